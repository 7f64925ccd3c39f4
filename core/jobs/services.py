"""Use cases of jobs: start, look at, cancel, retry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from core.jobs import crud
from core.jobs.models import Job, JobStep
from core.jobs.schemas import ACTIVE, JobView, LogLine, StepView
from core.jobs.workflows import Step, Workflow
from core.kernel import audit, clock, database, events, ids
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, NotFound


def start(
    actor: Actor,
    workflow: Workflow,
    *,
    project_id: str,
    title: str,
    subject: str,
    arguments: dict[str, Any],
) -> str:
    """Queue a job and return its id at once: `enqueue` in a transaction of its own."""
    with database.transaction() as tx:
        return enqueue(
            tx,
            actor,
            workflow,
            project_id=project_id,
            title=title,
            subject=subject,
            arguments=arguments,
        )


def enqueue(
    tx: Session,
    actor: Actor,
    workflow: Workflow,
    *,
    project_id: str,
    title: str,
    subject: str,
    arguments: dict[str, Any],
) -> str:
    """Queue a job together with the row that it works on, and return its id.

    The caller has already checked that `actor` may do what the job does. Any process may call
    this; the app's dispatcher picks the row up once `tx` has been committed.
    """
    job = _new(actor, workflow.kind, project_id, title, subject, arguments)
    _add(tx, actor, job, workflow.steps)
    event.listen(tx, "after_commit", _announce, once=True)
    return job.id


def _announce(_session: Session) -> None:
    events.publish("jobs.changed")


def _new(
    actor: Actor,
    kind: str,
    project_id: str,
    title: str,
    subject: str,
    arguments: dict[str, Any],
) -> Job:
    return Job(
        id=ids.new_id("job"),
        tenant_id=actor.tenant_id,
        project_id=project_id,
        kind=kind,
        title=title,
        subject=subject,
        arguments=arguments,
        state="queued",
        attempt=1,
        created_by=actor.user_id,
        created_by_name=actor.name,
        created_at=clock.now(),
    )


def _add(tx: Session, actor: Actor, job: Job, steps: Sequence[Step]) -> None:
    tx.add(job)
    tx.flush()
    for position, step in enumerate(steps):
        tx.add(
            JobStep(
                job_id=job.id,
                position=position,
                kind=job.kind,
                name=step.name,
                title=step.title,
                state="pending",
                expected_s=crud.expected_s(tx, job.kind, step.name, step.typical_s),
            )
        )
    audit.record(
        tx, actor, "job.started", f"job:{job.id}", project_id=job.project_id, title=job.title
    )


def get(actor: Actor, job_id: str) -> JobView:
    """One job with its steps. NotFound when it is not of a project the actor can read."""
    with database.reading() as session:
        job = _readable(actor, crud.job(session, job_id), job_id)
        return _view(job, crud.steps(session, [job_id])[job_id])


def list_jobs(
    actor: Actor,
    project_id: str | None,
    *,
    subject: str | None = None,
    active_only: bool = False,
    limit: int = 100,
) -> list[JobView]:
    """The newest jobs of a project, or of every project for an admin when None."""
    actor.require("job:read", project_id)
    scope = None if project_id is None else [project_id]
    with database.reading() as session:
        found = crud.jobs(session, actor.tenant_id, scope, subject, active_only, limit)
        steps = crud.steps(session, [job.id for job in found])
    return [_view(job, steps[job.id]) for job in found]


def find_active(actor: Actor, project_id: str, subject: str) -> JobView | None:
    """The job that works on `subject` now, if any."""
    found = list_jobs(actor, project_id, subject=subject, active_only=True, limit=1)
    return found[0] if found else None


def logs(actor: Actor, job_id: str, *, after: int = 0, limit: int = 1000) -> list[LogLine]:
    """Log lines after line id `after`, oldest first."""
    with database.reading() as session:
        _readable(actor, crud.job(session, job_id), job_id)
        return [LogLine.model_validate(row) for row in crud.logs(session, job_id, after, limit)]


def cancel(actor: Actor, job_id: str) -> None:
    """Ask a job to stop; a queued one ends at once, a running one within about 2 s."""
    with database.transaction() as tx:
        job = _readable(actor, crud.job(tx, job_id), job_id)
        actor.require("job:cancel", job.project_id)
        if job.state not in ACTIVE:
            raise Conflict(f"Job {job_id} has already ended ({job.state}).")
        job.cancel_requested = True
        if job.state == "queued":
            job.state, job.ended_at, job.cleanup_due = "cancelled", clock.now(), True
        audit.record(tx, actor, "job.cancelled", f"job:{job_id}", project_id=job.project_id)
    events.publish("jobs.changed")


def retry(actor: Actor, job_id: str) -> str:
    """Start the same work again, with the same arguments; the new job's id.

    Any process may call this: the steps come from the first attempt, not from the workflow.

    Raises:
        Conflict: The job did not fail, or the same work is already being done again.
    """
    with database.transaction() as tx:
        old = _readable(actor, crud.job(tx, job_id), job_id)
        actor.require("job:retry", old.project_id)
        if old.state not in ("failed", "cancelled"):
            raise Conflict(
                f"Job {job_id} is {old.state}; only a failed or cancelled job can be retried.",
                remedy="Wait for its end, or cancel it.",
            )
        twin = crud.active_twin(tx, old)
        if twin is not None:
            raise Conflict(
                f"This work is already being done by job {twin.id}.",
                remedy="Wait for its end, or cancel it.",
            )
        new = _new(actor, old.kind, old.project_id, old.title, old.subject, old.arguments)
        new.attempt, new.retry_of = old.attempt + 1, old.id
        steps = crud.steps(tx, [job_id])[job_id]
        _add(tx, actor, new, [Step(step.name, step.title, step.expected_s) for step in steps])
    events.publish("jobs.changed")
    return new.id


def _readable(actor: Actor, job: Job | None, job_id: str) -> Job:
    if job is None or job.tenant_id != actor.tenant_id or not actor.may("job:read", job.project_id):
        raise NotFound(f"There is no job {job_id}.", remedy="See the Jobs page for what exists.")
    return job


def _view(job: Job, steps: Sequence[JobStep]) -> JobView:
    views = [StepView.model_validate(step) for step in steps]
    view = JobView.model_validate(
        {name: getattr(job, name) for name in JobView.model_fields if hasattr(job, name)}
    )
    eta_s = _eta_s(views) if job.state in ACTIVE else None
    return view.model_copy(update={"steps": views, "eta_s": eta_s})


def _eta_s(steps: Sequence[StepView]) -> float:
    left_s = 0.0
    for step in steps:
        if step.state == "pending":
            left_s += step.expected_s
        if step.state == "running" and step.started_at is not None:
            spent_s = (clock.now() - step.started_at).total_seconds()
            left_s += _left_of_running_s(step, spent_s)
    return left_s


def _left_of_running_s(step: StepView, spent_s: float) -> float:
    # A measured share of the work beats the history of other runs once there is some of it.
    if step.fraction is not None and step.fraction > 0.02:
        return spent_s * (1 - step.fraction) / step.fraction
    return max(step.expected_s - spent_s, 0.0)
