"""The reconciler against real processes that answer like a model server, without a model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from core.deployments import reconciler as module
from core.deployments import server_records
from core.deployments import services as deployments
from core.deployments.models import Deployment
from core.deployments.reconciler import Reconciler
from core.deployments.schemas import DeploymentRequest, DeploymentView
from core.kernel import database
from core.kernel.actor import Actor
from core.kernel.settings import ROOT, settings
from core.registry import services as registry
from core.registry.models import ModelVersion

PROJECT = "prj_default"


@pytest.fixture
def folder(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder whose deployments run the double; whatever runs is stopped afterwards."""
    monkeypatch.setenv("BUD_MODEL_SERVER_MODULE", "tests.doubles.model_server")
    settings.cache_clear()
    yield data_dir
    server_records.stop_all(data_dir)


@pytest.fixture
def reconciler(folder: Path) -> Iterator[Reconciler]:
    made = Reconciler()
    made.start()
    yield made
    made.stop()


def _until(what: str, check: Callable[[], object], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.05)


def _run(admin: Actor, replicas: int = 1) -> str:
    """A deployment that is wanted, as its job leaves it after the step `start`."""
    request = DeploymentRequest(
        project_id=PROJECT,
        name="double",
        model_id=registry.add_starter(admin).id,
        context_tokens=256,
        slots=1,
        threads=1,
        replicas=replicas,
    )
    made = deployments.deploy(admin, request)
    deployments._cancel_job(admin, made)
    _want(made.id, desired_state="running")
    return made.id


def _want(deployment_id: str, **values: object) -> None:
    with database.transaction() as tx:
        row = tx.get(Deployment, deployment_id)
        assert row is not None
        for name, value in values.items():
            setattr(row, name, value)


def _servers(data_dir: Path) -> list[psutil.Process]:
    """Every living server of this data folder, recorded or not."""
    found = []
    for process in psutil.process_iter():
        try:
            if any(str(data_dir) in word and ".config" in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def _view(admin: Actor, deployment_id: str) -> DeploymentView:
    return deployments.get_deployment(admin, deployment_id)


def _ready(admin: Actor, deployment_id: str) -> DeploymentView:
    _until("ready", lambda: _view(admin, deployment_id).state == "ready")
    return _view(admin, deployment_id)


def test_a_killed_server_is_back_within_seconds_and_counted(
    folder: Path, reconciler: Reconciler, admin: Actor
) -> None:
    deployment_id = _run(admin)
    before = _ready(admin, deployment_id).replicas[0]
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    _until("seen", lambda: _view(admin, deployment_id).replicas[0].restarts == 1, 5)
    assert _view(admin, deployment_id).state == "restarting"
    assert "SIGKILL" in str(_view(admin, deployment_id).reason)
    after = _ready(admin, deployment_id).replicas[0]
    assert after.pid != before.pid
    assert after.id == before.id
    assert len(_servers(folder)) == 1


def test_an_app_that_died_between_start_and_record_leaves_no_second_server(
    folder: Path, admin: Actor
) -> None:
    deployment_id = _run(admin)
    first = Reconciler()
    first.tick()
    (replica,) = _view(admin, deployment_id).replicas
    config = server_records.config_path(folder, replica.id)
    # What an app does that is killed right after it: a start that no row knows of.
    first.tick()
    stray = subprocess.Popen(
        [sys.executable, "-m", "tests.doubles.model_server", str(config)],
        cwd=ROOT,
        env=os.environ,
        start_new_session=True,
    )
    try:
        second = Reconciler()
        deadline = time.monotonic() + 40
        while _view(admin, deployment_id).state != "ready" or len(_servers(folder)) != 1:
            assert time.monotonic() < deadline, _servers(folder)
            stray.poll()
            second.tick()
            time.sleep(0.1)
        recorded = server_records.read_all(folder)[replica.id].pid
        assert [server.pid for server in _servers(folder)] == [recorded]
        assert _view(admin, deployment_id).replicas[0].pid == recorded
    finally:
        server_records.stop_all(folder)
        stray.wait(timeout=60)


def test_the_next_app_starts_what_a_clean_stop_ended_without_calling_it_a_crash(
    folder: Path, admin: Actor
) -> None:
    deployment_id = _run(admin)
    first = Reconciler()
    first.start()
    old = _ready(admin, deployment_id).replicas[0].pid
    first.stop()
    assert server_records.stop_all(folder) == 1
    second = Reconciler()
    second.start()
    try:
        _until("new", lambda: _view(admin, deployment_id).replicas[0].pid not in (None, old))
        replica = _ready(admin, deployment_id).replicas[0]
        assert (replica.restarts, replica.last_error) == (0, None)
    finally:
        second.stop()


def test_a_server_that_hangs_is_replaced_but_a_busy_one_is_not(
    folder: Path, reconciler: Reconciler, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HANGS_AFTER_S", 1.0)
    monkeypatch.setattr(module, "_HEALTH_EVERY_S", 0.2)
    deployment_id = _run(admin)
    pid = _ready(admin, deployment_id).replicas[0].pid
    assert pid is not None
    # Busy: it answers nothing, but computes.
    monkeypatch.setattr(reconciler._engine, "healthy", lambda _port: False)
    used = iter(range(10_000))
    monkeypatch.setattr(module.local, "cpu_s", lambda _process: float(next(used)))
    time.sleep(3.0)
    assert _view(admin, deployment_id).replicas[0].pid == pid
    monkeypatch.undo()
    monkeypatch.setattr(module, "_HANGS_AFTER_S", 1.0)
    os.kill(pid, signal.SIGSTOP)
    _until("replaced", lambda: _view(admin, deployment_id).replicas[0].pid not in (None, pid))
    assert not psutil.pid_exists(pid)


def test_an_edit_restarts_one_replica_at_a_time(
    folder: Path, reconciler: Reconciler, admin: Actor
) -> None:
    deployment_id = _run(admin, replicas=2)
    old = {replica.pid for replica in _ready(admin, deployment_id).replicas}
    deployments._cancel_job(admin, _view(admin, deployment_id))
    deployments.edit(admin, deployment_id, context_tokens=512)
    least = 2

    def replaced() -> bool:
        nonlocal least
        view = _view(admin, deployment_id)
        least = min(least, view.ready_replicas)
        return view.ready_replicas == 2 and not old & {replica.pid for replica in view.replicas}

    _until("both replaced", replaced)
    assert least == 1
    assert _view(admin, deployment_id).requested["context_tokens"] == 512
    assert len(_servers(folder)) == 2


def test_scaling_down_stops_the_surplus_and_leaves_the_others(
    folder: Path, reconciler: Reconciler, admin: Actor
) -> None:
    deployment_id = _run(admin, replicas=3)
    before = _ready(admin, deployment_id).replicas
    deployments.scale(admin, deployment_id, 1)
    _until("one", lambda: len(_view(admin, deployment_id).replicas) == 1)
    assert _view(admin, deployment_id).replicas[0].pid == before[0].pid
    assert [server.pid for server in _servers(folder)] == [before[0].pid]
    deployments.delete(admin, deployment_id)
    _until("gone", lambda: deployments.list_deployments(admin, PROJECT) == [])
    assert _servers(folder) == []
    assert list(server_records.folder(folder).iterdir()) == []


def test_a_server_of_no_deployment_is_ended(
    folder: Path, reconciler: Reconciler, admin: Actor
) -> None:
    deployment_id = _run(admin)
    _ready(admin, deployment_id)
    (server,) = _servers(folder)
    reconciler.stop()
    with database.transaction() as tx:
        from core.deployments.models import Replica

        for replica in tx.query(Replica).all():
            tx.delete(replica)
        tx.flush()
        tx.delete(tx.get(Deployment, deployment_id))
    again = Reconciler()
    again.start()
    try:
        _until("ended", lambda: not server.is_running() or server.status() == "zombie", 10)
        _until("forgotten", lambda: server_records.read_all(folder) == {}, 10)
    finally:
        again.stop()


def test_a_model_that_is_gone_is_the_reason_and_the_others_go_on(
    folder: Path, reconciler: Reconciler, admin: Actor
) -> None:
    deployment_id = _run(admin)
    _ready(admin, deployment_id)
    with database.transaction() as tx:
        for version in tx.query(ModelVersion).all():
            version.path, version.error = None, "its file is gone"
    (server,) = _servers(folder)
    server.kill()
    _until("failed", lambda: _view(admin, deployment_id).state == "failed")
    assert "its file is gone" in str(_view(admin, deployment_id).reason)
    with database.transaction() as tx:
        for version in tx.query(ModelVersion).all():
            version.path = __file__
    _ready(admin, deployment_id)


def test_one_reconciler_a_data_folder(folder: Path, reconciler: Reconciler) -> None:
    from core.kernel.errors import Conflict

    with pytest.raises(Conflict, match="Another process"):
        Reconciler().start()
