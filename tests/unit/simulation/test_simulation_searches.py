"""A search runs as a job; what it finds is what asking for it says; others do not see it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import jobs
from core.accounts import services as accounts
from core.jobs import engine
from core.kernel.actor import Actor
from core.kernel.errors import BudError, InvalidInput, NotFound, PermissionDenied
from core.projects import services as projects
from core.simulation import searches, services, subjects
from core.simulation.schemas import WhatIf
from core.simulation.search_requests import SearchRequest, question

REQUEST = SearchRequest(
    query=WhatIf(model="Qwen/Qwen3-8B", prefix_hit_share=0.3),
    hardware=("h100_sxm", "l4"),
    max_gpus=4,
    tpot_ms=20.0,
    evaluations=2000,
)


@pytest.fixture
def project_id(
    data_dir: Path, quick_passwords: None, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A project, on shipped models and devices: nothing is probed or read from disk."""
    accounts.bootstrap("admin@example.org", None)
    projects.bootstrap()
    monkeypatch.setattr(subjects, "for_actor", lambda _actor: subjects.shipped())
    return projects.create_project(admin, "Searches").id


@pytest.fixture
def running(project_id: str) -> Iterator[None]:
    engine.launch()
    yield
    engine.shutdown()


def test_a_search_runs_as_a_job_and_its_options_can_be_asked_for(
    running: None, project_id: str, admin: Actor
) -> None:
    started = searches.start(admin, project_id, REQUEST)
    assert started.title == "qwen3-8b on up to 4 × 2 kinds of GPU"
    deadline = time.monotonic() + 60
    while jobs.get(admin, started.job_id).is_active:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job = jobs.get(admin, started.job_id)
    assert (job.state, job.error) == ("succeeded", None)
    result = searches.get(admin, started.id).result
    assert result is not None
    assert result.evaluated <= 2000
    best = result.best
    assert best is not None
    assert best.meets_slo
    assert best.tpot_ms.mean <= 20
    for option in result.front[:5]:
        asked = services.ask(admin, project_id, question(REQUEST, option)).outcome
        assert asked.devices == option.devices
        assert asked.tpot_ms.mean == pytest.approx(option.tpot_ms.mean)
        assert asked.ttft_ms.mean == pytest.approx(option.ttft_ms.mean)
        assert asked.usd_per_hour == pytest.approx(option.usd_per_hour)
    assert [each.id for each in searches.list_searches(admin, project_id)] == [started.id]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_gpus": 0}, "1 to 256 GPUs"),
        ({"hardware": ()}, "No hardware"),
        ({"hardware": ("h1000",)}, "no hardware 'h1000'"),
        ({"engines": ("vlm",)}, "engine"),
        ({"engines": ()}, "No engine"),
        ({"max_usd_per_hour": 0.01}, "at most 0.01 USD per hour"),
        ({"max_usd_per_hour": -1.0}, "0 USD per hour or more"),
        ({"ttft_ms": -5.0}, "A target for TTFT is a positive"),
        ({"query": WhatIf(model="lama")}, "No model of the name"),
        ({"query": WhatIf(isl=10**9)}, "Input tokens"),
    ],
    ids=str,
)
def test_what_cannot_be_searched_is_refused(
    project_id: str, admin: Actor, wrong: dict[str, object], said: str
) -> None:
    with pytest.raises(BudError, match=said):
        searches.start(admin, project_id, REQUEST.model_copy(update=wrong))
    assert searches.list_searches(admin, project_id) == []


def test_the_budget_bounds_how_much_is_rented(project_id: str, admin: Actor) -> None:
    request = REQUEST.model_copy(update={"max_usd_per_hour": 20.0})
    machines = searches._machines(admin, request, WhatIf())
    assert machines
    for machine in machines:
        assert machine.usd_per_device_hour is not None
        assert machine.max_devices is not None
        assert machine.max_devices * machine.usd_per_device_hour <= 20.0
    # What has no price cannot be said to be within a budget.
    with pytest.raises(InvalidInput):
        searches._machines(admin, request.model_copy(update={"hardware": ("mi355x",)}), WhatIf())


def test_another_project_sees_nothing(project_id: str, admin: Actor) -> None:
    started = searches.start(admin, project_id, REQUEST)
    theirs = projects.create_project(admin, "Theirs").id
    outsider = Actor("usr_b", "b@example.org", admin.tenant_id, "member", {theirs: "member"})
    assert searches.list_searches(outsider, theirs) == []
    with pytest.raises(NotFound):
        searches.get(outsider, started.id)
    with pytest.raises(PermissionDenied):
        searches.start(outsider, project_id, REQUEST)
