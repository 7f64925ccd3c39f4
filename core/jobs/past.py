"""Jobs that never ran: the history of the demo project."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.jobs import crud
from core.jobs.models import Job, JobStep
from core.jobs.workflows import Workflow
from core.kernel import ids
from core.kernel.actor import Actor
from core.kernel.errors import BudError

# Their steps have a kind of their own, so that what is made up teaches no estimate.
_KIND = "demo"


def record(
    tx: Session,
    actor: Actor,
    workflow: Workflow,
    *,
    project_id: str,
    title: str,
    subject: str,
    arguments: dict[str, Any],
    began: datetime,
    error: BudError | None = None,
) -> str:
    """Write down a job as if it had begun at a moment; with an error, its first step failed.

    The caller has already checked that `actor` may make demo data. Returns the job's id.
    """
    ended = began + timedelta(seconds=sum(step.typical_s for step in workflow.steps))
    if error is not None:
        ended = began + timedelta(seconds=workflow.steps[0].typical_s)
    job = Job(
        id=ids.new_id("job"),
        tenant_id=actor.tenant_id,
        project_id=project_id,
        kind=workflow.kind,
        title=title,
        subject=subject,
        arguments=arguments,
        state="failed" if error else "succeeded",
        created_by=actor.user_id,
        created_by_name=actor.name,
        created_at=began,
        started_at=began,
        ended_at=ended,
        error=error.what if error else None,
        remedy=error.remedy if error else None,
    )
    tx.add(job)
    tx.flush()
    tx.add_all(_steps(job.id, workflow, began, failed=error is not None))
    return job.id


def _steps(job_id: str, workflow: Workflow, began: datetime, *, failed: bool) -> list[JobStep]:
    made = []
    for position, step in enumerate(workflow.steps):
        ran = not failed or position == 0
        ended = began + timedelta(seconds=step.typical_s)
        made.append(
            JobStep(
                job_id=job_id,
                position=position,
                kind=_KIND,
                name=step.name,
                title=step.title,
                state=("failed" if failed else "succeeded") if ran else "pending",
                runs=int(ran),
                expected_s=step.typical_s,
                started_at=began if ran else None,
                ended_at=ended if ran else None,
            )
        )
        began = ended
    return made


def forget(tx: Session, project_id: str) -> None:
    """Forget what `record` wrote down; a project's real jobs stay until they are too old."""
    made_up = select(JobStep.job_id).where(JobStep.kind == _KIND)
    found = select(Job.id).where(Job.project_id == project_id, Job.id.in_(made_up))
    crud.delete_jobs(tx, list(tx.scalars(found)))
