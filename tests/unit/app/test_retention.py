"""What is too old goes once a day, and nothing else."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from app import retention
from core import jobs
from core.accounts import services as accounts
from core.accounts.models import LogInSession
from core.jobs import engine
from core.jobs.models import Job, JobLog, JobStep
from core.kernel import audit, clock, database
from core.kernel.actor import Actor
from core.kernel.audit import AuditEntry
from core.kernel.crypto import Secret
from core.kernel.database import Base
from core.kernel.errors import PermissionDenied
from core.kernel.periodic import Periodic
from core.kernel.settings import settings
from core.metrics import ingest, segments, services, store
from core.metrics.schemas import StoredFact, Window
from core.projects import services as projects

PROJECT = "prj_default"
EMAIL, PASSWORD = "admin@example.org", Secret("correct-horse-battery")
DAY = timedelta(days=1)


def _say(progress: jobs.Progress) -> None:
    progress.log("a line")


@jobs.workflow("test.retention", steps=(jobs.Step("say", "Say"),))
def say(run: jobs.Run) -> None:
    run.step("say", _say)


@pytest.fixture
def bud(data_dir: Path, quick_passwords: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A set-up data folder with the job engine and the metrics store of an app."""
    for name in ("REQUESTS", "JOBS", "AUDIT"):
        monkeypatch.setenv(f"BUD_KEEP_{name}_DAYS", "10")
    settings.cache_clear()
    accounts.bootstrap(EMAIL, PASSWORD)
    projects.bootstrap()
    engine.launch()
    opened = ingest.open_store(data_dir)
    store.set_writer(opened)
    yield data_dir
    store.set_writer(None)
    opened.close()
    engine.shutdown()


def _until(check: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.05)


def _ended_job(admin: Actor, ago: timedelta) -> str:
    job_id = jobs.start(admin, say, project_id=PROJECT, title="T", subject="s", arguments={})
    _until(lambda: jobs.get(admin, job_id).state == "succeeded")
    with database.transaction() as tx:
        tx.execute(update(Job).where(Job.id == job_id).values(ended_at=clock.now() - ago))
    return job_id


def _known_to_dbos(data_dir: Path) -> set[str]:
    with sqlite3.connect(data_dir / "jobs.db") as connection:
        return {row[0] for row in connection.execute("SELECT workflow_uuid FROM workflow_status")}


def _count(table: type[Base]) -> int:
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_old_jobs_go_with_their_steps_lines_and_dbos_rows(bud: Path, admin: Actor) -> None:
    old, young = _ended_job(admin, 11 * DAY), _ended_job(admin, 9 * DAY)
    _until(lambda: _known_to_dbos(bud) == {old, young})
    assert retention.prune(admin)["jobs"] == 1
    assert [job.id for job in jobs.list_jobs(admin, PROJECT)] == [young]
    assert _known_to_dbos(bud) == {young}
    assert (_count(JobStep), _count(JobLog)) == (1, 1)


def test_a_job_that_has_not_ended_stays(data_dir: Path, admin: Actor) -> None:
    job_id = jobs.start(admin, say, project_id=PROJECT, title="T", subject="s", arguments={})
    assert engine.prune(admin, clock.now() + DAY) == 0
    assert jobs.get(admin, job_id).state == "queued"


def test_old_requests_and_minutes_go(bud: Path, admin: Actor) -> None:
    now_s = clock.now().timestamp()
    facts = [
        StoredFact(
            request_id=f"req_{days}",
            started_unix_s=now_s - days * 86400,
            endpoint="/v1/chat/completions",
            project_id=PROJECT,
            replica_id="rep_1",
            duration_ms=100.0,
        )
        for days in (1, 9, 11, 400)
    ]
    segments.write(bud, "seg-1", facts)
    ingest.ingest_once(store.own(), bud)
    assert retention.prune(admin)["requests"] == 2
    ever = Window(start=datetime(2000, 1, 1, tzinfo=UTC), end=clock.now() + DAY)
    kept = services.requests(admin, PROJECT, ever)
    assert [row.request_id for row in kept] == ["req_1", "req_9"]
    minutes = store.own()._query("SELECT min(minute) AS first FROM machine_minutes", {})
    assert minutes[0]["first"] == int((now_s - 9 * 86400) // 60)


def test_old_audit_entries_go_and_leave_one_that_says_so(bud: Path, admin: Actor) -> None:
    projects.create_project(admin, "Old")
    projects.create_project(admin, "New")
    with database.transaction() as tx:
        aged = update(AuditEntry).where(AuditEntry.details["name"].as_string() == "Old")
        tx.execute(aged.values(at=clock.now() - 11 * DAY))
    before = len(audit.entries(admin, None))
    assert retention.prune(admin)["audit entries"] == 1
    entries = audit.entries(admin, None)
    assert (entries[0].action, entries[0].details["entries"]) == ("audit.pruned", 1)
    assert len(entries) == before
    assert "Old" not in [entry.details.get("name") for entry in entries]


def test_log_ins_that_expired_long_ago_go(bud: Path, admin: Actor) -> None:
    for client in ("10.0.0.1", "10.0.0.2"):
        accounts.log_in(EMAIL, PASSWORD, client)
    with database.transaction() as tx:
        first = update(LogInSession).where(LogInSession.client == "10.0.0.1")
        tx.execute(first.values(expires_at=clock.now() - 31 * DAY))
    assert retention.prune(admin)["log-ins"] == 1
    assert _count(LogInSession) == 1


def test_what_fails_keeps_nothing_else_from_going(
    bud: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _ended_job(admin, 11 * DAY)
    store_of_the_app = store.own()
    store.set_writer(None)
    pruned = retention.prune(admin)
    store.set_writer(store_of_the_app)
    assert "requests" not in pruned
    assert pruned["jobs"] == 1


def test_only_admins_delete(bud: Path) -> None:
    member = Actor("usr_m", "m", "ten_default", "member", {PROJECT: "admin"})
    now = clock.now()
    for act in (
        lambda: services.prune(member, now),
        lambda: engine.prune(member, now),
        lambda: audit.prune(member, now),
        lambda: accounts.prune_sessions(member),
    ):
        with pytest.raises(PermissionDenied):
            act()


def test_the_thread_prunes_on_its_own(bud: Path, admin: Actor) -> None:
    _ended_job(admin, 11 * DAY)
    pruner = Periodic("retention", lambda: retention.prune(admin), 3600, first_after_s=0.01)
    pruner.start()
    _until(lambda: not jobs.list_jobs(admin, PROJECT))
    pruner.stop()
