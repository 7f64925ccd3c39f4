"""Every query of the jobs domain."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from core.jobs.models import Job, JobLog, JobStep
from core.jobs.schemas import ACTIVE
from core.kernel import clock

MAX_LOG_LINES = 5000
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


def asked_to_cancel(tx: Session, job_ids: Sequence[str]) -> list[str]:
    """Which of these jobs somebody asked to cancel."""
    query = select(Job.id).where(Job.id.in_(job_ids), Job.cancel_requested)
    return list(tx.scalars(query))


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
        if started and ended and ended
    ]
    return median(durations) if durations else typical_s


def logs(tx: Session, job_id: str, after: int, limit: int) -> list[JobLog]:
    """Log lines that came after line `after`, oldest first."""
    query = select(JobLog).where(JobLog.job_id == job_id, JobLog.id > after)
    return list(tx.scalars(query.order_by(JobLog.id).limit(limit)))


def add_log(tx: Session, job_id: str, level: str, line: str) -> None:
    """Append a line; the oldest go when there are too many."""
    tx.add(JobLog(job_id=job_id, at=clock.now(), level=level, line=line))
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


def end_open_steps(tx: Session, job_id: str, state: str) -> None:
    """Close the steps that were running when a job ended."""
    tx.execute(
        update(JobStep)
        .where(JobStep.job_id == job_id, JobStep.state == "running")
        .values(state=state, ended_at=clock.now())
    )
