"""What a change of a deployment leaves in its row and in the routes; no server runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import jobs
from core.deployments import services as deployments
from core.deployments.models import Deployment
from core.deployments.schemas import DeploymentRequest, DeploymentView
from core.kernel import audit, database
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, InvalidInput
from core.registry import services as registry

PROJECT = "prj_default"


def _request(admin: Actor, name: str = "smol", **settings: int) -> DeploymentRequest:
    model = registry.add_starter(admin)
    known = {"context_tokens": 512, "slots": 1, "threads": 1} | settings
    return DeploymentRequest(project_id=PROJECT, name=name, model_id=model.id, **known)


@pytest.fixture
def running(data_dir: Path, admin: Actor) -> DeploymentView:
    """A deployment that is wanted, as its job leaves it."""
    made = deployments.deploy(admin, _request(admin))
    deployments._cancel_job(admin, made)
    with database.transaction() as tx:
        row = tx.get(Deployment, made.id)
        assert row is not None
        row.desired_state, row.state = "running", "ready"
    return deployments.get_deployment(admin, made.id)


def _killed(*_arguments: object) -> None:
    raise KeyboardInterrupt


def test_a_kill_between_a_deployment_and_its_job_leaves_neither(
    data_dir: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = _request(admin)
    monkeypatch.setattr("core.jobs.services._new", _killed)
    with pytest.raises(KeyboardInterrupt):
        deployments.deploy(admin, request)
    assert deployments.list_deployments(admin, PROJECT) == []
    monkeypatch.undo()


def test_a_deployment_names_its_job(data_dir: Path, admin: Actor) -> None:
    made = deployments.deploy(admin, _request(admin))
    active = jobs.find_active(admin, PROJECT, f"deployment:{made.id}")
    assert active is not None
    assert made.job_id == active.id


def test_a_rename_moves_the_route_and_restarts_nothing(
    running: DeploymentView, admin: Actor
) -> None:
    deployments.edit(admin, running.id, name="smol-2")
    assert [route.name for route in deployments.routes()] == ["smol-2"]
    after = deployments.get_deployment(admin, running.id)
    assert (after.name, after.generation) == ("smol-2", running.generation)
    assert after.requested == running.requested
    entry = audit.entries(admin, PROJECT, subject=f"deployment:{running.id}")[0]
    assert (entry.action, entry.details) == (
        "deployment.renamed",
        {"name": "smol", "new_name": "smol-2"},
    )


@pytest.mark.parametrize("name", ["", "Smol", "-smol", "x" * 64])
def test_a_bad_name_is_refused_and_nothing_else_is_changed(
    running: DeploymentView, admin: Actor, name: str
) -> None:
    with pytest.raises(InvalidInput, match="1 to 63 small letters"):
        deployments.edit(admin, running.id, name=name, context_tokens=1024)
    assert deployments.get_deployment(admin, running.id) == running


def test_a_taken_name_is_refused(running: DeploymentView, admin: Actor) -> None:
    deployments.deploy(admin, _request(admin, "other"))
    with pytest.raises(Conflict, match="already a deployment 'other'"):
        deployments.check_name(admin, PROJECT, "other")
    with pytest.raises(InvalidInput, match=r"A deployment's name .* Write it as bad-name\."):
        deployments.check_name(admin, PROJECT, "Bad Name!")
    deployments.check_name(admin, PROJECT, "bad-name")
    with pytest.raises(Conflict, match="already a deployment 'other'"):
        deployments.edit(admin, running.id, name="other")
    deployments.edit(admin, running.id, name="smol")  # its own name is no clash


def test_a_value_is_set_and_given_back_to_bud(running: DeploymentView, admin: Actor) -> None:
    deployments.edit(admin, running.id, slots=2)
    changed = deployments.get_deployment(admin, running.id)
    assert (changed.slots, changed.context_tokens) == (2, 512)
    assert changed.generation == running.generation + 1
    deployments.edit(admin, running.id, context_tokens=None, slots=None)
    reset = deployments.get_deployment(admin, running.id)
    assert reset.requested == {"context_tokens": None, "slots": None, "threads": 1}
    assert (reset.context_tokens, reset.threads) == (8192, 1)
    assert reset.generation == running.generation + 2


def test_to_pin_what_bud_chose_restarts_nothing(running: DeploymentView, admin: Actor) -> None:
    deployments.edit(admin, running.id, slots=None)
    chosen = deployments.get_deployment(admin, running.id)
    deployments.edit(admin, running.id, slots=chosen.slots)
    pinned = deployments.get_deployment(admin, running.id)
    assert pinned.requested["slots"] == chosen.slots
    assert pinned.generation == chosen.generation
