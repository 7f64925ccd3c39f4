"""Every query of the registry."""

from __future__ import annotations

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from core.registry.models import Model


def model(tx: Session, model_id: str) -> Model | None:
    """One model."""
    return tx.get(Model, model_id)


def models(tx: Session, tenant_id: str, project_id: str) -> list[Model]:
    """The models of a project and the shared ones, by name."""
    query = select(Model).where(
        Model.tenant_id == tenant_id,
        or_(Model.project_id == project_id, Model.project_id.is_(None)),
    )
    return list(tx.scalars(query.order_by(Model.name)))


def same_file(tx: Session, tenant_id: str, project_id: str | None, sha256: str) -> Model | None:
    """The ready model with these bytes that the project can use already."""
    query = select(Model).where(
        Model.tenant_id == tenant_id,
        Model.sha256 == sha256,
        Model.state == "ready",
        or_(Model.project_id == project_id, Model.project_id.is_(None)),
    )
    return tx.scalar(query.limit(1))


def shared_source(tx: Session, tenant_id: str, source: str) -> Model | None:
    """The shared model from `source`."""
    query = select(Model).where(
        Model.tenant_id == tenant_id, Model.project_id.is_(None), Model.source == source
    )
    return tx.scalar(query)
