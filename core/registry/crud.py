"""Every query of the registry."""

from __future__ import annotations

from sqlalchemy import Select, or_, select
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


def same_file(tx: Session, model: Model, sha256: str) -> Model | None:
    """Another ready model with these bytes that the project of `model` can use already."""
    return tx.scalar(_others(model).where(Model.sha256 == sha256).limit(1))


def same_size(tx: Session, model: Model, size_bytes: int) -> bool:
    """Whether the project of `model` has another ready model of this size."""
    return tx.scalar(_others(model).where(Model.size_bytes == size_bytes).limit(1)) is not None


def _others(model: Model) -> Select[Model]:
    return select(Model).where(
        Model.id != model.id,
        Model.tenant_id == model.tenant_id,
        Model.state == "ready",
        or_(Model.project_id == model.project_id, Model.project_id.is_(None)),
    )


def shared_source(tx: Session, tenant_id: str, source: str) -> Model | None:
    """The shared model from `source`."""
    query = select(Model).where(
        Model.tenant_id == tenant_id, Model.project_id.is_(None), Model.source == source
    )
    return tx.scalar(query)
