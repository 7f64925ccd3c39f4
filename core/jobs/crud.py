"""Every query of the jobs domain."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from statistics import median

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from core.jobs.models import Job, JobLog, JobStep
from core.jobs.schemas import ACTIVE
from core.kernel import clock

MAX_LOG_LINES = 5000
_MAX_LINE = 4000
_HISTORY = 10


def job(tx: Session, job_id: str) -> Job | None:
    """One job."""
    return tx.get(Job, job_id)


def jobs(
    tx: Session,
    tenant_id: str,
    project_ids: Sequence[str] | None,
    subject: str | None,
    active_only: bool,
    limit: int,
) -> list[Job]:
    """The newest jobs; `project_ids` None means every project of the tenant."""
    query = select(Job).where(Job.tenant_id == tenant_id)
    if project_ids is not None:
        query = query.where(Job.project_id.in_(project_ids))
    if subject is not None:
        query = query.where(Job.subject == subject)
    if active_only:
        query = query.where(Job.state.in_(ACTIVE))
    return list(tx.scalars(query.order_by(Job.created_at.desc()).limit(limit)))


def steps(tx: Session, job_ids: Sequence[str]) -> dict[str, list[JobStep]]:
    """The steps of several jobs, in order."""
    found: dict[str, list[JobStep]] = {job_id: [] for job_id in job_ids}
    query = select(JobStep).where(JobStep.job_id.in_(job_ids)).order_by(JobStep.position)
    for step in tx.scalars(query):
        found[step.job_id].append(step)
    return found


def waiting(tx: Session) -> list[str]:
    """The ids of queued jobs, oldest first."""
    query = select(Job.id).where(Job.state == "queued").order_by(Job.created_at)
    return list(tx.scalars(query))


def running(tx: Session) -> list[str]:
    """The ids of the jobs that run, or were running when the app was killed."""
    return list(tx.scalars(select(Job.id).where(Job.state == "running")))


def requeue(tx: Session, job_id: str) -> None:
    """Put a job that counts as running back into the queue."""
    tx.execute(update(Job).where(Job.id == job_id, Job.state == "running").values(state="queued"))


def to_clean_up(tx: Session) -> list[Job]:
    """Jobs that were cancelled before they ran, and whose `on_cancel` has yet to be called."""
    return list(tx.scalars(select(Job).where(Job.state == "cancelled", Job.cleanup_due)))


def active_twin(tx: Session, job: Job) -> Job | None:
    """Another queued or running job of the same kind on the same subject."""
    query = select(Job).where(
        Job.tenant_id == job.tenant_id,
        Job.kind == job.kind,
        Job.subject == job.subject,
        Job.state.in_(ACTIVE),
    )
    return tx.scalar(query.limit(1))


def asked_to_cancel(tx: Session, job_ids: Sequence[str]) -> list[str]:
    """Which of these jobs somebody asked to cancel."""
    query = select(Job.id).where(Job.id.in_(job_ids), Job.cancel_requested)
    return list(tx.scalars(query))


def ended_before(tx: Session, moment: datetime, limit: int) -> list[str]:
    """The ids of jobs that ended before a moment and have nothing left to clean up."""
    query = select(Job.id).where(Job.ended_at < moment, Job.cleanup_due.is_(False))
    return list(tx.scalars(query.order_by(Job.ended_at).limit(limit)))


def delete_jobs(tx: Session, job_ids: Sequence[str]) -> None:
    """Forget jobs with their steps and log lines."""
    tx.execute(delete(JobLog).where(JobLog.job_id.in_(job_ids)))
    tx.execute(delete(JobStep).where(JobStep.job_id.in_(job_ids)))
    tx.execute(delete(Job).where(Job.id.in_(job_ids)))


def expected_s(tx: Session, kind: str, name: str, typical_s: float) -> float:
    """The median duration of the last runs of this step, or `typical_s` before the first."""
    query = (
        select(JobStep.started_at, JobStep.ended_at)
        .where(JobStep.kind == kind, JobStep.name == name, JobStep.state == "succeeded")
        .order_by(JobStep.ended_at.desc())
        .limit(_HISTORY)
    )
    durations = [
        (ended - started).total_seconds()
        for started, ended in tx.execute(query)
        if started and ended
    ]
    return median(durations) if durations else typical_s


def logs(tx: Session, job_id: str, after: int, limit: int) -> list[JobLog]:
    """Log lines that came after line `after`, oldest first."""
    query = select(JobLog).where(JobLog.job_id == job_id, JobLog.id > after)
    return list(tx.scalars(query.order_by(JobLog.id).limit(limit)))


def add_log(tx: Session, job_id: str, level: str, line: str) -> None:
    """Append a line; the oldest go when there are too many."""
    tx.add(JobLog(job_id=job_id, at=clock.now(), level=level, line=line[:_MAX_LINE]))
    tx.flush()
    query = select(func.count()).select_from(JobLog).where(JobLog.job_id == job_id)
    surplus = (tx.scalar(query) or 0) - MAX_LOG_LINES
    if surplus > 0:
        oldest = select(JobLog.id).where(JobLog.job_id == job_id).order_by(JobLog.id).limit(surplus)
        tx.execute(delete(JobLog).where(JobLog.id.in_(oldest)))


def set_step(tx: Session, job_id: str, name: str, **values: object) -> None:
    """Change one step."""
    tx.execute(
        update(JobStep).where(JobStep.job_id == job_id, JobStep.name == name).values(**values)
    )


def begin_step(tx: Session, job_id: str, name: str) -> None:
    """A step begins, for the first time or again after a kill."""
    set_step(
        tx,
        job_id,
        name,
        state="running",
        runs=JobStep.runs + 1,
        fraction=None,
        detail="",
        started_at=clock.now(),
        ended_at=None,
        process_groups=[],
    )


def end_step(tx: Session, job_id: str, name: str, state: str) -> None:
    """A step has ended; nothing changes for one that ended before a restart."""
    values: dict[str, object] = {"state": state, "ended_at": clock.now(), "process_groups": []}
    if state == "succeeded":
        values["fraction"] = 1.0
    running = (JobStep.job_id == job_id, JobStep.name == name, JobStep.state == "running")
    tx.execute(update(JobStep).where(*running).values(values))


def process_groups(tx: Session, job_id: str) -> list[tuple[int, float | None]]:
    """The process groups that steps noted, each with the start of its leader in Unix seconds."""
    query = select(JobStep.process_groups).where(JobStep.job_id == job_id)
    return [(group, started_s) for groups in tx.scalars(query) for group, started_s in groups]


def end_open_steps(tx: Session, job_id: str, state: str) -> None:
    """Close the steps that were running when a job ended."""
    tx.execute(
        update(JobStep)
        .where(JobStep.job_id == job_id, JobStep.state == "running")
        .values(state=state, ended_at=clock.now())
    )
