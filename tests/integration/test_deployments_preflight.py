"""The first playbook, run by the real ansible-runner on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core import jobs
from core.deployments import services as deployments
from core.deployments import workflows
from core.deployments.adapters.preflight import run_preflight
from core.deployments.reconciler import Reconciler
from core.deployments.schemas import DeploymentRequest
from core.jobs import engine
from core.jobs.workflows import Control, Progress
from core.kernel.actor import Actor
from core.kernel.errors import Conflict
from core.registry import services as registry

PROJECT = "prj_default"


@pytest.fixture
def model_path(data_dir: Path, admin: Actor) -> str:
    return str(registry.add_starter(admin).path)


def _check(admin: Actor, data_dir: Path, **variables: Any) -> None:
    job_id = jobs.start(
        admin,
        workflows.bring_up,
        project_id=PROJECT,
        title="A test",
        subject="deployment:dep_1",
        arguments={"deployment_id": "dep_1"},
    )
    progress = Progress(job_id, "preflight", Control())
    values = {
        "model_bytes": 98_362_432,
        "needed_memory_mb": 1,
        "needed_disk_mb": 1,
        "data_dir": str(data_dir),
        **variables,
    }
    run_preflight(progress, data_dir / "ansible" / "job_1", values)


def _ansible(data_dir: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(data_dir) in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _until(what: str, check: Callable[[], object], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.1)


def test_too_little_memory_is_said_with_both_numbers(
    data_dir: Path, model_path: str, admin: Actor
) -> None:
    with pytest.raises(Conflict, match=r"needs 99999999 MB of memory; \d+ MB are free") as caught:
        _check(admin, data_dir, model_path=model_path, needed_memory_mb=99_999_999)
    assert "retry the job" in caught.value.remedy
    assert not (data_dir / "ansible" / "job_1").exists()


def test_a_file_of_another_size_is_refused(data_dir: Path, model_path: str, admin: Actor) -> None:
    with pytest.raises(Conflict, match="has 98362432 bytes instead of 5"):
        _check(admin, data_dir, model_path=model_path, model_bytes=5)


@pytest.fixture
def running(data_dir: Path) -> Iterator[Path]:
    reconciler = Reconciler()
    reconciler.start()
    engine.launch()
    yield data_dir
    engine.shutdown()
    reconciler.stop()


def test_a_stop_in_the_middle_ends_ansible_and_starts_no_server(
    running: Path, admin: Actor
) -> None:
    model = registry.add_starter(admin)
    request = DeploymentRequest(
        project_id=PROJECT, name="smol", model_id=model.id, context_tokens=256, slots=1
    )
    made = deployments.deploy(admin, request)
    assert made.job_id is not None
    job_id = made.job_id
    _until("ansible runs", lambda: len(_ansible(running)) > 0)
    deployments.stop(admin, made.id)
    _until("the job has ended", lambda: jobs.get(admin, job_id).state == "cancelled", 30)
    _until("nothing runs", lambda: _ansible(running) == [], 10)
    _until("stopped", lambda: deployments.get_deployment(admin, made.id).state == "stopped", 10)
    assert deployments.get_deployment(admin, made.id).replicas == []
