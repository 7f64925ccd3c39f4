"""What goes from accounts when a project goes."""

from __future__ import annotations

from sqlalchemy import delete, select

from core.accounts.models import ApiKeyRow, LogInSession, Membership, User
from core.kernel import audit, database, events
from core.kernel.actor import Actor


def forget_project(actor: Actor, project_id: str) -> tuple[int, int]:
    """Delete a project's keys and memberships, and demo users who are in no other project.

    Returns:
        How many keys and how many users went.
    """
    actor.require("project:delete", project_id)
    of_project = (ApiKeyRow.tenant_id == actor.tenant_id, ApiKeyRow.project_id == project_id)
    with database.transaction() as tx:
        keys = list(tx.scalars(select(ApiKeyRow.id).where(*of_project)))
        tx.execute(delete(ApiKeyRow).where(*of_project))
        tx.execute(delete(Membership).where(Membership.project_id == project_id))
        elsewhere = select(Membership.user_id)
        users = list(
            tx.scalars(
                select(User.id).where(
                    User.tenant_id == actor.tenant_id, User.demo, User.id.not_in(elsewhere)
                )
            )
        )
        tx.execute(delete(LogInSession).where(LogInSession.user_id.in_(users)))
        tx.execute(delete(User).where(User.id.in_(users)))
        audit.record(
            tx,
            actor,
            "accounts.forgotten",
            f"project:{project_id}",
            project_id=project_id,
            keys=len(keys),
            users=len(users),
        )
    events.publish("keys.changed")
    return len(keys), len(users)
