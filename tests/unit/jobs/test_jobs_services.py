from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from core import jobs
from core.jobs import crud, workflows
from core.jobs.models import Job, JobStep
from core.kernel import actor as actor_module
from core.kernel import audit, clock, database, events
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, NotFound, PermissionDenied

STEPS = (jobs.Step("one", "One", typical_s=10), jobs.Step("two", "Two", typical_s=30))


def _never_run(_run: jobs.Run) -> None:
    raise AssertionError


WORKFLOW = jobs.Workflow("test.services", STEPS, _never_run)


def _start(actor: Actor, subject: str = "test:1") -> str:
    return jobs.start(
        actor, WORKFLOW, project_id="prj_a", title="T", subject=subject, arguments={"n": 1}
    )


def _set(job_id: str, **values: object) -> None:
    with database.transaction() as tx:
        tx.execute(update(Job).where(Job.id == job_id).values(**values))


def _set_step(job_id: str, name: str, **values: object) -> None:
    with database.transaction() as tx:
        crud.set_step(tx, job_id, name, **values)


def test_the_time_left_comes_from_typical_times_then_from_history(
    data_dir: Path, admin: Actor
) -> None:
    first = _start(admin)
    assert jobs.get(admin, first).eta_s == 40
    for ended_after_s in (4, 6, 5):
        job_id = _start(admin)
        now = clock.now()
        _set_step(
            job_id,
            "two",
            state="succeeded",
            started_at=now - timedelta(seconds=ended_after_s),
            ended_at=now,
        )
    assert [step.expected_s for step in jobs.get(admin, _start(admin)).steps] == [10, 5]


def test_a_measured_share_of_the_work_beats_history(data_dir: Path, admin: Actor) -> None:
    job_id = _start(admin)
    begun = clock.now() - timedelta(seconds=20)
    _set(job_id, state="running")
    _set_step(job_id, "one", state="running", started_at=begun, fraction=0.5)
    assert jobs.get(admin, job_id).eta_s == pytest.approx(20 + 30, abs=1)
    _set_step(job_id, "one", fraction=None)
    assert jobs.get(admin, job_id).eta_s == pytest.approx(0 + 30, abs=1)


def test_the_log_keeps_the_newest_lines_and_cuts_long_ones(
    data_dir: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crud, "MAX_LOG_LINES", 5)
    job_id, other = _start(admin), _start(admin)
    with database.transaction() as tx:
        crud.add_log(tx, other, "info", "mine stays")
        for number in range(12):
            crud.add_log(tx, job_id, "info", f"line {number} " + "x" * 9000)
    lines = jobs.logs(admin, job_id)
    assert [line.line.split()[1] for line in lines] == ["7", "8", "9", "10", "11"]
    assert max(len(line.line) for line in lines) == 4000
    assert [line.line for line in jobs.logs(admin, other)] == ["mine stays"]
    assert [line.id for line in jobs.logs(admin, job_id, after=lines[3].id)] == [lines[4].id]


def test_a_retry_is_linked_and_not_doubled(data_dir: Path, admin: Actor) -> None:
    job_id = _start(admin)
    with pytest.raises(Conflict, match="only a failed or cancelled"):
        jobs.retry(admin, job_id)
    _set(job_id, state="failed", ended_at=clock.now())
    again = jobs.get(admin, jobs.retry(admin, job_id))
    assert (again.attempt, again.retry_of, again.state) == (2, job_id, "queued")
    assert [step.title for step in again.steps] == ["One", "Two"]
    with database.reading() as session:
        row = session.get(Job, again.id)
        assert row is not None
        assert row.arguments == {"n": 1}
    with pytest.raises(Conflict, match=f"already being done by job {again.id}"):
        jobs.retry(admin, job_id)


def test_who_may_read_and_cancel(data_dir: Path, admin: Actor) -> None:
    job_id = _start(admin)
    member = Actor("usr_m", "m@example.org", admin.tenant_id, "member", {"prj_a": "member"})
    stranger = Actor("usr_s", "s@example.org", admin.tenant_id, "member", {"prj_b": "admin"})
    elsewhere = Actor("usr_e", "e@example.org", "ten_other", "admin")
    assert jobs.get(member, job_id).created_by_name == admin.name
    for actor in (stranger, elsewhere):
        for use in (jobs.get, jobs.logs, jobs.cancel, jobs.retry):
            with pytest.raises(NotFound):
                use(actor, job_id)
    assert jobs.list_jobs(elsewhere, None) == []
    with pytest.raises(PermissionDenied):
        jobs.list_jobs(stranger, "prj_a")
    with pytest.raises(PermissionDenied):
        jobs.list_jobs(member, None)
    jobs.cancel(member, job_id)
    with database.reading() as session:
        rows = session.scalars(select(audit.AuditEntry).order_by(audit.AuditEntry.at))
        assert [(row.action, row.user_id) for row in rows] == [
            ("job.started", "system"),
            ("job.cancelled", "usr_m"),
        ]


def test_a_job_stands_in_the_transaction_of_its_caller(
    data_dir: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced: list[str] = []
    monkeypatch.setattr(events, "_subscribers", defaultdict(list))
    events.subscribe("jobs.changed", lambda: announced.append("changed"))

    def enqueue(*, killed: bool) -> str:
        with database.transaction() as tx:
            job_id = jobs.enqueue(
                tx, admin, WORKFLOW, project_id="prj_a", title="T", subject="s", arguments={}
            )
            assert announced == []
            if killed:
                raise KeyboardInterrupt
        return job_id

    with pytest.raises(KeyboardInterrupt):
        enqueue(killed=True)
    assert (jobs.list_jobs(admin, "prj_a"), announced) == ([], [])
    job_id = enqueue(killed=False)
    assert [job.id for job in jobs.list_jobs(admin, "prj_a")] == [job_id]
    assert announced == ["changed"]


def test_a_retry_has_a_permission_of_its_own(
    data_dir: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = _start(admin)
    _set(job_id, state="failed", ended_at=clock.now())
    member = Actor("usr_m", "m@example.org", admin.tenant_id, "member", {"prj_a": "member"})
    granted = actor_module._MEMBER_PERMISSIONS
    monkeypatch.setattr(actor_module, "_MEMBER_PERMISSIONS", granted - {"job:retry"})
    with pytest.raises(PermissionDenied, match="job:retry"):
        jobs.retry(member, job_id)
    monkeypatch.setattr(actor_module, "_MEMBER_PERMISSIONS", granted - {"job:cancel"})
    assert jobs.get(member, jobs.retry(member, job_id)).attempt == 2


def test_lists_are_newest_first_and_filtered(data_dir: Path, admin: Actor) -> None:
    ids = [_start(admin, f"test:{number}") for number in range(3)]
    _set(ids[1], state="failed", ended_at=clock.now())
    listed = jobs.list_jobs(admin, "prj_a")
    assert [job.id for job in listed] == ids[::-1]
    assert [len(job.steps) for job in listed] == [2, 2, 2]
    active = jobs.list_jobs(admin, None, active_only=True)
    assert [job.id for job in active] == [ids[2], ids[0]]
    assert [job.id for job in jobs.list_jobs(admin, "prj_a", limit=1)] == [ids[2]]
    found = jobs.find_active(admin, "prj_a", "test:0")
    assert found is not None
    assert found.id == ids[0]
    assert jobs.find_active(admin, "prj_a", "test:1") is None


def test_a_step_counts_its_runs(data_dir: Path, admin: Actor) -> None:
    job_id = _start(admin)
    for _ in range(2):
        with database.transaction() as tx:
            crud.begin_step(tx, job_id, "one")
    with database.reading() as session:
        row = session.scalars(select(JobStep).where(JobStep.name == "one")).one()
        assert (row.runs, row.state, row.process_groups) == (2, "running", [])


def test_a_step_is_shown_as_done_only_once_its_result_is_remembered(
    data_dir: Path, admin: Actor
) -> None:
    job_id = _start(admin)
    remembered: dict[str, dict[str, Any]] = {}

    def killed_after_the_record(name: str, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        remembered[name] = call()
        raise workflows.JobInterrupted

    def step() -> tuple[str, int]:
        with database.reading() as session:
            row = session.scalars(select(JobStep).where(JobStep.name == "one")).one()
            return row.state, row.runs

    def run(run_once: workflows.StepRunner) -> object:
        return workflows.Run(job_id, workflows.Control(), run_once).step("one", lambda _: 7)

    with pytest.raises(workflows.JobInterrupted):
        run(killed_after_the_record)
    assert step() == ("running", 1)
    assert run(lambda name, call: remembered[name]) == 7
    assert step() == ("succeeded", 1)
