from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from core import jobs
from core.accounts import services as accounts
from core.jobs import engine
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound, PermissionDenied
from core.projects import services as projects
from core.simulation import kept_traces, replays, traces, workloads
from core.simulation.replay import Policy
from core.simulation.replay_requests import ReplayRequest
from core.simulation.replay_results import LatencyTargets
from core.simulation.schemas import WhatIf

CSV = b"arrival_s,input_tokens,output_tokens\n0,100,20\n1,200,10\n"


@pytest.fixture
def project_id(data_dir: Path, quick_passwords: None, admin: Actor) -> str:
    accounts.bootstrap("admin@example.org", None)
    projects.bootstrap()
    return projects.create_project(admin, "Simulations").id


@pytest.fixture
def running(project_id: str) -> Iterator[None]:
    engine.launch()
    yield
    engine.shutdown()


def _wait_for(actor: Actor, job_id: str, *states: str) -> jobs.JobView:
    deadline = time.monotonic() + 60
    while (job := jobs.get(actor, job_id)).state not in states:
        assert time.monotonic() < deadline, f"still {job.state}"
        time.sleep(0.05)
    return job


def test_a_replay_runs_as_a_job_and_its_result_is_kept(
    running: None, project_id: str, admin: Actor
) -> None:
    request = ReplayRequest(
        query=WhatIf(model="meta-llama/Llama-3.1-8B-Instruct", gpus=2, usd_per_gpu_hour=2.0),
        trace="azure-code",
        rate=2.0,
        end_s=600.0,
        policy=Policy(max_replicas=4, target_in_flight=8.0, start_up_s=30.0),
        targets=LatencyTargets(ttft_ms=2000),
    )
    started = replays.start(admin, project_id, request)
    assert started.result is None
    assert started.request.query.model == "llama-3.1-8b"
    assert "Azure code completion, 2023, 0 to 600 s × 2 over llama-3.1-8b" in started.title
    job = _wait_for(admin, started.job_id, "succeeded", "failed")
    assert (job.state, job.error) == ("succeeded", None)

    found = replays.get(admin, started.id)
    assert found.request == started.request
    result = found.result
    assert result is not None
    assert result.requests == len(request.cut(traces.shipped("azure-code")))
    assert 2 <= result.peak_replicas <= 4
    assert result.cost_usd == pytest.approx(2.0 * result.device_hours)
    assert 0 < result.attained["ttft_ms"] <= 1
    assert len(result.timeline.start_s) == len(result.timeline.attainment)
    assert [each.id for each in replays.list_replays(admin, project_id)] == [started.id]

    replays.delete(admin, started.id)
    assert replays.list_replays(admin, project_id) == []
    with pytest.raises(NotFound):
        replays.get(admin, started.id)


def test_a_replay_is_cancelled_and_one_that_fits_nothing_says_why(
    running: None, project_id: str, admin: Actor
) -> None:
    # Long enough to be met while it runs.
    long = traces.synthetic(workloads.find("chat"), requests_per_s=300, duration_s=3000)
    trace_id = kept_traces.keep(project_id, long)
    started = replays.start(admin, project_id, ReplayRequest(trace=trace_id))
    _wait_for(admin, started.job_id, "running")
    jobs.cancel(admin, started.job_id)
    assert _wait_for(admin, started.job_id, "cancelled", "succeeded").state == "cancelled"
    assert replays.get(admin, started.id).result is None

    short = ReplayRequest(query=WhatIf(model="llama-3.1-70b", gpus=1))
    job = _wait_for(admin, replays.start(admin, project_id, short).job_id, "failed", "succeeded")
    assert job.error == "The model's weights leave no memory for requests."
    assert "more devices" in str(job.remedy)


def test_what_cannot_be_replayed_is_refused_before_a_job_is_made(
    project_id: str, admin: Actor
) -> None:
    few = Policy(max_replicas=2)
    for request, error, message in (
        (ReplayRequest(trace="azure"), NotFound, "nearest is azure-"),
        (ReplayRequest(trace="trc_../../../../x"), NotFound, "There is no trace"),
        (ReplayRequest(trace="trc_0123456789abcdef"), NotFound, "There is no trace"),
        (ReplayRequest(rate=0.0), InvalidInput, "0.001 to 1000"),
        (ReplayRequest(start_s=9e9), InvalidInput, "No request arrives"),
        (ReplayRequest(query=WhatIf(model="llama-9")), NotFound, "nearest"),
        (ReplayRequest(query=WhatIf(gpus=8), policy=few), InvalidInput, "8 to 2"),
        (ReplayRequest(query=WhatIf(tp=3, gpus=3)), InvalidInput, "cannot be split"),
    ):
        with pytest.raises(error, match=message):
            replays.start(admin, project_id, request)
    assert jobs.list_jobs(admin, project_id) == []


def test_a_person_brings_a_trace(project_id: str, admin: Actor) -> None:
    added = replays.add_trace(admin, project_id, "mine.csv", CSV)
    assert (added.name, added.requests, added.mean_input_tokens) == ("mine.csv", 2, 150)
    # The same file once more is the same trace.
    assert replays.add_trace(admin, project_id, "mine.csv", CSV).id == added.id
    listed = replays.list_traces(admin, project_id)
    assert [each.id for each in listed] == [*traces.SHIPPED, added.id]
    assert all(each.source for each in listed[:-1])
    replays.delete_trace(admin, project_id, added.id)
    assert len(replays.list_traces(admin, project_id)) == 3
    for trace_id in (added.id, "azure-code", "trc_/../x"):
        with pytest.raises(NotFound):
            replays.delete_trace(admin, project_id, trace_id)
    with pytest.raises(InvalidInput, match="No column is arrival_s"):
        replays.add_trace(admin, project_id, "mine.csv", b"x\n1\n")


def test_another_project_sees_nothing(project_id: str, admin: Actor) -> None:
    started = replays.start(admin, project_id, ReplayRequest())
    other = projects.create_project(admin, "Other").id
    stranger = replace(admin, user_id="usr_b", role="member", projects={other: "admin"})
    assert replays.list_replays(stranger, other) == []
    with pytest.raises(NotFound):
        replays.get(stranger, started.id)
    with pytest.raises(NotFound):
        replays.delete(stranger, started.id)
    for call in (
        lambda: replays.start(stranger, project_id, ReplayRequest()),
        lambda: replays.add_trace(stranger, project_id, "mine.csv", CSV),
        lambda: replays.list_traces(stranger, project_id),
        lambda: replays.list_replays(stranger, project_id),
    ):
        with pytest.raises(PermissionDenied):
            call()
    trace_id = replays.add_trace(admin, project_id, "mine.csv", CSV).id
    with pytest.raises(NotFound):
        replays.start(stranger, other, ReplayRequest(trace=trace_id))
