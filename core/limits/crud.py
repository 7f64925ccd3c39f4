"""Every query of the limits domain."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.limits.models import LimitRow


def limits(tx: Session, tenant_id: str, project_id: str) -> list[LimitRow]:
    """The limits of a project, by what they limit."""
    query = select(LimitRow).where(
        LimitRow.tenant_id == tenant_id, LimitRow.project_id == project_id
    )
    in_order = query.order_by(LimitRow.level, LimitRow.subject, LimitRow.metric, LimitRow.window)
    return list(tx.scalars(in_order))


def all_limits(tx: Session) -> list[LimitRow]:
    """Every limit there is."""
    return list(tx.scalars(select(LimitRow).order_by(LimitRow.id)))


def limit(
    tx: Session, project_id: str, level: str, subject: str, metric: str, window: str
) -> LimitRow | None:
    """The limit on one thing."""
    query = select(LimitRow).where(
        LimitRow.project_id == project_id,
        LimitRow.level == level,
        LimitRow.subject == subject,
        LimitRow.metric == metric,
        LimitRow.window == window,
    )
    return tx.scalar(query)


def delete_limits(tx: Session, tenant_id: str, project_id: str) -> int:
    """Delete the limits of a project; how many there were."""
    count = len(limits(tx, tenant_id, project_id))
    tx.execute(
        delete(LimitRow).where(LimitRow.tenant_id == tenant_id, LimitRow.project_id == project_id)
    )
    return count
