"""Every query of the guardrails domain."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.guardrails.models import GuardrailRow


def guardrails(tx: Session, tenant_id: str, project_id: str) -> list[GuardrailRow]:
    """The guardrails of a project, by name."""
    query = select(GuardrailRow).where(
        GuardrailRow.tenant_id == tenant_id, GuardrailRow.project_id == project_id
    )
    return list(tx.scalars(query.order_by(GuardrailRow.name)))


def named(tx: Session, tenant_id: str, project_id: str, name: str) -> GuardrailRow | None:
    """The guardrail of a name."""
    query = select(GuardrailRow).where(
        GuardrailRow.tenant_id == tenant_id,
        GuardrailRow.project_id == project_id,
        GuardrailRow.name == name,
    )
    return tx.scalar(query)


def active(tx: Session) -> list[GuardrailRow]:
    """Every guardrail that is not off."""
    query = select(GuardrailRow).where(GuardrailRow.mode != "off")
    return list(tx.scalars(query.order_by(GuardrailRow.id)))
