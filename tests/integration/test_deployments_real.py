"""Deployments with the real model server: deploy, answer, die, come back, stop."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from core import jobs
from core.contracts import route_table
from core.contracts.route_table import RouteTable
from core.deployments import server_records
from core.deployments import services as deployments
from core.deployments.adapters import local
from core.deployments.reconciler import Reconciler
from core.deployments.schemas import DeploymentRequest, DeploymentView
from core.jobs import engine
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, InvalidInput, NoCapacity, NotFound
from core.kernel.keys import keyring
from core.registry import services as registry
from core.routing import services as routing

PROJECT = "prj_default"


def _until(what: str, check: Callable[[], object], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.05)


@pytest.fixture
def running(data_dir: Path) -> Iterator[Path]:
    """Jobs, reconciler and routing, as the app runs them; every server is killed afterwards."""
    routing.subscribe()
    reconciler = Reconciler()
    reconciler.start()
    engine.launch()
    yield data_dir
    engine.shutdown()
    reconciler.stop()
    server_records.stop_all(data_dir)


def _request(admin: Actor, name: str = "smol", **changes: object) -> DeploymentRequest:
    model = registry.add_starter(admin)
    values = {"project_id": PROJECT, "name": name, "model_id": model.id, "slots": 2}
    return DeploymentRequest.model_validate(
        {**values, "context_tokens": 512, "threads": 1, **changes}
    )


def _ready(admin: Actor, deployment_id: str) -> DeploymentView:
    def state() -> str:
        return deployments.get_deployment(admin, deployment_id).state

    _until("ready or failed", lambda: state() in ("ready", "failed"))
    view = deployments.get_deployment(admin, deployment_id)
    assert view.state == "ready", view
    return view


def _table() -> RouteTable:
    return route_table.decode(routing.table_path().read_bytes())


def _ask(path: str, body: dict[str, object]) -> httpx.Response:
    replica = _table().routes[0].replicas[0]
    secret = keyring().open(replica.credential, context=f"replica:{replica.id}").reveal()
    return httpx.post(
        replica.base_url + path,
        json=body,
        headers={"Authorization": f"Bearer {secret}"},
        timeout=60,
    )


def test_a_deployment_answers_survives_a_kill_and_stops(running: Path, admin: Actor) -> None:
    made = deployments.deploy(admin, _request(admin))
    assert made.job_id is not None
    view = _ready(admin, made.id)
    _until("the job's end", lambda: not jobs.get(admin, str(made.job_id)).is_active)
    job = jobs.get(admin, str(made.job_id))
    assert [step.state for step in job.steps] == ["succeeded"] * 5
    assert any("Enough memory" in line.line for line in jobs.logs(admin, job.id))
    answer = _ask("/v1/completions", {"prompt": "One, two,", "max_tokens": 3})
    assert answer.json()["usage"]["completion_tokens"] == 3
    assert view.replicas[0].memory_bytes is not None
    assert 0 < local.held_bytes(view.replicas[0].pid) < view.planned_bytes - 98_362_432

    old_pid = view.replicas[0].pid
    assert old_pid is not None
    os.kill(old_pid, signal.SIGKILL)
    _until(
        "another pid is ready",
        lambda: (
            (seen := deployments.get_deployment(admin, made.id)).state == "ready"
            and seen.replicas[0].pid != old_pid
        ),
    )
    assert deployments.get_deployment(admin, made.id).replicas[0].restarts == 1
    assert deployments.logs(admin, made.id, 0).lines

    deployments.scale(admin, made.id, 2)
    _until("two", lambda: deployments.get_deployment(admin, made.id).ready_replicas == 2)
    _until("two routes", lambda: len(_table().routes[0].replicas) == 2)
    deployments.edit(admin, made.id, context_tokens=256)
    _until(
        "two of the new generation",
        lambda: (
            deployments.get_deployment(admin, made.id).ready_replicas == 2
            and len(
                {replica.pid for replica in deployments.get_deployment(admin, made.id).replicas}
            )
            == 2
            and deployments.get_deployment(admin, made.id).state == "ready"
        ),
    )
    pids = [replica.pid for replica in deployments.get_deployment(admin, made.id).replicas]
    deployments.stop(admin, made.id)
    _until("stopped", lambda: deployments.get_deployment(admin, made.id).state == "stopped")
    assert not any(psutil.pid_exists(pid) for pid in pids if pid)
    assert _table().routes[0].replicas == []
    with pytest.raises(Conflict, match="used by deployment smol"):
        registry.delete_model(admin, _shadow(admin))
    deployments.delete(admin, made.id)
    _until("gone", lambda: deployments.list_deployments(admin, PROJECT) == [])


def _shadow(admin: Actor) -> str:
    """The starter model, as if the project owned it, so that it may be deleted at all."""
    from core.kernel import database
    from core.registry.models import Model

    model = registry.add_starter(admin)
    with database.transaction() as tx:
        row = tx.get(Model, model.id)
        assert row is not None
        row.project_id = PROJECT
    return model.id


def test_another_app_adopts_running_servers(data_dir: Path, admin: Actor) -> None:
    first = Reconciler()
    first.start()
    engine.launch()
    try:
        made = deployments.deploy(admin, _request(admin, slots=1))
        view = _ready(admin, made.id)
        first.stop()
        second = Reconciler()
        second.start()
        with pytest.raises(Conflict, match="Another process"):
            Reconciler().start()
        time.sleep(1.5)
        after = deployments.get_deployment(admin, made.id)
        second.stop()
        assert [replica.pid for replica in after.replicas] == [
            replica.pid for replica in view.replicas
        ]
        assert len(server_records.read_all(data_dir)) == 1
    finally:
        engine.shutdown()
        assert server_records.stop_all(data_dir) == 1


def test_an_embedding_deployment_embeds(running: Path, admin: Actor) -> None:
    made = deployments.deploy(admin, _request(admin, "embed", task="embedding", slots=1))
    _ready(admin, made.id)
    _until("a route", lambda: _table().routes and _table().routes[0].replicas)
    assert _table().routes[0].capabilities == ["embedding"]
    answer = _ask("/v1/embeddings", {"input": "hello"})
    assert len(answer.json()["data"][0]["embedding"]) == 576


def test_a_broken_file_fails_with_its_reason(running: Path, admin: Actor, tmp_path: Path) -> None:
    request = _request(admin)
    broken = tmp_path / "broken.gguf"
    model = registry.get_model(admin, request.model_id)
    assert model.path is not None
    with Path(model.path).open("rb") as whole:
        broken.write_bytes(whole.read(30_000_000))
    from core.kernel import database
    from core.registry.models import ModelVersion

    with database.transaction() as tx:
        row = tx.get(ModelVersion, model.version_id)
        assert row is not None
        # As if it had been added like this: the preflight sees a file of the right size.
        row.path, row.size_bytes = str(broken), broken.stat().st_size
    made = deployments.deploy(admin, request)
    _until("the job has failed", lambda: jobs.get(admin, str(made.job_id)).state == "failed")
    _until("failed", lambda: deployments.get_deployment(admin, made.id).state == "failed")
    reason = deployments.get_deployment(admin, made.id).reason
    assert reason is not None
    assert "is not within the file bounds, model is corrupted or incomplete" in reason
    assert "Read the replica's log" in reason
    _until("no server", lambda: not server_records.read_all(running))


def test_what_cannot_fit_is_refused_with_the_numbers(data_dir: Path, admin: Actor) -> None:
    request = _request(admin, context_tokens=8192, slots=64, replicas=32)
    fit = deployments.check_fit(admin, request)
    assert not fit.fits
    with pytest.raises(NoCapacity, match=r"needs \d+\.\d\d GB .* are free") as caught:
        deployments.deploy(admin, request)
    assert "would fit" in caught.value.remedy
    assert deployments.list_deployments(admin, PROJECT) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "Not A Name"}, "small letters"),
        ({"context_tokens": 10**9}, "trained for"),
        ({"threads": 10_000}, "threads must be between"),
        ({"replicas": 0}, "replicas must be between"),
    ],
)
def test_bad_numbers_are_refused_by_name(
    data_dir: Path, admin: Actor, changes: dict[str, object], why: str
) -> None:
    with pytest.raises(InvalidInput, match=why):
        deployments.deploy(admin, _request(admin, **changes))


def test_project_b_sees_nothing_of_a(data_dir: Path, admin: Actor) -> None:
    made = deployments.deploy(admin, _request(admin))
    with pytest.raises(Conflict, match="already a deployment"):
        deployments.deploy(admin, _request(admin))
    stranger = Actor("usr_b", "b@example.org", admin.tenant_id, "member", {"prj_b": "admin"})
    assert deployments.list_deployments(stranger, "prj_b") == []
    for look in (deployments.get_deployment, deployments.stop, deployments.delete):
        with pytest.raises(NotFound):
            look(stranger, made.id)
