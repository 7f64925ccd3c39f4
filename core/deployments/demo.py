"""Deployments of the demo project: stopped ones, which a click on Start makes real."""

from __future__ import annotations

from datetime import datetime, timedelta

from core.clusters import services as clusters
from core.deployments import crud, planning, workflows
from core.deployments.schemas import DeploymentRequest, DeploymentView
from core.deployments.services import list_deployments, planned_row
from core.jobs import past
from core.kernel import audit, database, events
from core.kernel.actor import Actor
from core.kernel.errors import BudError, Conflict, NoCapacity
from core.registry.schemas import ModelView

_TRIED_AGAIN_AFTER = timedelta(minutes=4)


def add(
    actor: Actor,
    request: DeploymentRequest,
    model: ModelView,
    *,
    deployment_id: str,
    since: datetime,
    failed_first: bool = False,
) -> None:
    """Add a stopped deployment with the job that is said to have brought it up.

    Args:
        actor: Who is said to have deployed it.
        request: What to deploy.
        model: The model of the request.
        deployment_id: Its id, which the demo's requests name.
        since: When it is said to have been deployed.
        failed_first: Whether an attempt before that one failed.
    """
    actor.require("deployment:create", request.project_id)
    fit = planning.plan(request, model, clusters.this_machine(), 0)
    row = planned_row(actor, request, model, fit)
    row.id, row.demo = deployment_id, True
    row.desired_state = row.state = "stopped"
    row.created_at = row.updated_at = since
    with database.transaction() as tx:
        tx.add(row)
        for began, error in _attempts(since, failed_first=failed_first):
            row.job_id = past.record(
                tx,
                actor,
                workflows.bring_up,
                project_id=row.project_id,
                title=f"Deploy {row.name}",
                subject=f"deployment:{row.id}",
                arguments={"deployment_id": row.id},
                began=began,
                error=error,
            )
        audit.record(
            tx,
            actor,
            "deployment.created",
            f"deployment:{row.id}",
            project_id=row.project_id,
            name=row.name,
            demo=True,
        )
    events.publish("deployments.changed")


def _attempts(since: datetime, *, failed_first: bool) -> list[tuple[datetime, BudError | None]]:
    done: list[tuple[datetime, BudError | None]] = [(since, None)]
    if not failed_first:
        return done
    no_room = NoCapacity(
        "The model needs 1.4 GiB of memory and 0.9 GiB is free.",
        remedy="Stop another deployment, or deploy with a smaller context.",
    )
    return [(since - _TRIED_AGAIN_AFTER, no_room), *done]


def require_idle(actor: Actor, project_id: str) -> None:
    """Refuse to take a project away in which a person works.

    Raises:
        Conflict: One of its deployments runs, or is a person's own.
    """
    used = [view for view in list_deployments(actor, project_id) if not _is_idle_demo(view)]
    if used:
        raise Conflict(
            "The demo project has deployments that run or are your own.",
            value=", ".join(view.name for view in used),
            remedy="Stop or delete them first, or deploy them in another project.",
        )


def _is_idle_demo(view: DeploymentView) -> bool:
    return view.demo and view.desired_state == "stopped" and not view.replicas


def forget_project(actor: Actor, project_id: str) -> int:
    """Delete the demo deployments of a project that goes away; how many there were.

    Raises:
        Conflict: One of them runs, or is a person's own.
    """
    actor.require("project:delete", project_id)
    require_idle(actor, project_id)
    with database.transaction() as tx:
        rows = crud.deployments(tx, project_id)
        for row in rows:
            tx.delete(row)
        past.forget(tx, project_id)
        crud.forget_drafts(tx, project_id)
        audit.record(
            tx,
            actor,
            "deployment.forgotten",
            f"project:{project_id}",
            project_id=project_id,
            deployments=len(rows),
        )
    events.publish("deployments.changed")
    return len(rows)
