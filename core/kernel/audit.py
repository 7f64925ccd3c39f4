"""The audit log: who changed what, when; one row a change, in the same transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, String, delete, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from core.kernel import clock, database, ids
from core.kernel.actor import Actor
from core.kernel.database import Base, UtcDateTime


class AuditEntry(Base):
    """One change."""

    __tablename__ = "audit_entries"
    __table_args__ = (Index(None, "project_id", "at"), Index(None, "subject"))

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str | None] = mapped_column(String(40))
    user_id: Mapped[str] = mapped_column(String(40))
    user_name: Mapped[str] = mapped_column(String(200))
    action: Mapped[str] = mapped_column(String(80))
    subject: Mapped[str] = mapped_column(String(80))
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


def record(
    tx: Session,
    actor: Actor,
    action: str,
    subject: str,
    *,
    project_id: str | None = None,
    **details: object,
) -> None:
    """Add one row to the log. `details` must be plain JSON and hold no secret."""
    tx.add(
        AuditEntry(
            id=ids.new_id("aud"),
            at=clock.now(),
            tenant_id=actor.tenant_id,
            project_id=project_id,
            user_id=actor.user_id,
            user_name=actor.name,
            action=action,
            subject=subject,
            details=dict(details),
        )
    )


def entries(
    actor: Actor, project_id: str | None, *, subject: str | None = None, limit: int = 200
) -> list[AuditEntry]:
    """The newest entries of a project, or of the whole tenant for an admin when None."""
    actor.require("audit:read", project_id)
    query = select(AuditEntry).where(AuditEntry.tenant_id == actor.tenant_id)
    if project_id is not None:
        query = query.where(AuditEntry.project_id == project_id)
    if subject is not None:
        query = query.where(AuditEntry.subject == subject)
    with database.reading() as session:
        return list(session.scalars(query.order_by(AuditEntry.at.desc()).limit(limit)))


def prune(actor: Actor, before: datetime) -> int:
    """Delete the tenant's entries from before a moment; how many there were. Admins only."""
    actor.require("audit:delete")
    old = delete(AuditEntry).where(AuditEntry.tenant_id == actor.tenant_id, AuditEntry.at < before)
    with database.transaction() as tx:
        pruned = tx.connection().execute(old).rowcount
        if pruned:
            record(tx, actor, "audit.pruned", "audit", before=before.isoformat(), entries=pruned)
    return pruned
