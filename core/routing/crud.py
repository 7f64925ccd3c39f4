"""Every query of the routing domain."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.routing.models import RouteRules
from core.routing.schemas import Rules


def versions(tx: Session, tenant_id: str, project_id: str, model: str) -> list[RouteRules]:
    """The versions of a model's rules, the newest first."""
    query = select(RouteRules).where(
        RouteRules.tenant_id == tenant_id,
        RouteRules.project_id == project_id,
        RouteRules.model == model,
    )
    return list(tx.scalars(query.order_by(RouteRules.version.desc())))


def newest(tx: Session, project_id: str | None = None) -> dict[tuple[str, str], RouteRules]:
    """The rules that hold, by project and model; of one project, or of all."""
    query = select(RouteRules).order_by(RouteRules.version)
    if project_id is not None:
        query = query.where(RouteRules.project_id == project_id)
    return {(row.project_id, row.model): row for row in tx.scalars(query)}


def rules_of(tx: Session, project_id: str) -> dict[str, Rules]:
    """The rules that hold in a project, by model."""
    return {
        model: Rules.model_validate(row.rules) for (_, model), row in newest(tx, project_id).items()
    }
