"""Every query of the registry."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Select, delete, func, or_, select
from sqlalchemy.orm import Session

from core.registry.models import (
    CatalogueRefresh,
    Comment,
    Favourite,
    Model,
    ModelVersion,
    Policy,
    Provider,
    SavedView,
    StageChange,
    Tag,
)


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


def of_source(tx: Session, tenant_id: str, project_id: str, source: str) -> Model | None:
    """The model of a project that was first added from `source`."""
    query = select(Model).where(
        Model.tenant_id == tenant_id, Model.project_id == project_id, Model.source == source
    )
    return tx.scalar(query.order_by(Model.created_at).limit(1))


def of_provider(tx: Session, provider_id: str) -> list[Model]:
    """The hosted models that use an account, by name."""
    query = select(Model).where(Model.provider_id == provider_id)
    return list(tx.scalars(query.order_by(Model.name)))


def of_catalogue(tx: Session, project_id: str, catalogue_id: str) -> Model | None:
    """The entry of the catalogue that a project has added as it is."""
    query = select(Model).where(
        Model.project_id == project_id,
        Model.catalogue_id == catalogue_id,
        Model.state == "listed",
        Model.kind == "local",
    )
    return tx.scalar(query.limit(1))


def shared_source(tx: Session, tenant_id: str, source: str) -> Model | None:
    """The shared model from `source`."""
    query = select(Model).where(
        Model.tenant_id == tenant_id, Model.project_id.is_(None), Model.source == source
    )
    return tx.scalar(query)


def version(tx: Session, version_id: str) -> ModelVersion | None:
    """One version."""
    return tx.get(ModelVersion, version_id)


def versions(tx: Session, model_id: str) -> list[ModelVersion]:
    """The versions of a model, the newest first."""
    query = select(ModelVersion).where(ModelVersion.model_id == model_id)
    return list(tx.scalars(query.order_by(ModelVersion.number.desc())))


def current_versions(tx: Session, tenant_id: str, project_id: str) -> list[ModelVersion]:
    """The current version of each model of a project and of each shared one."""
    query = select(ModelVersion).join(Model, Model.version_id == ModelVersion.id)
    return list(
        tx.scalars(
            query.where(
                Model.tenant_id == tenant_id,
                or_(Model.project_id == project_id, Model.project_id.is_(None)),
            )
        )
    )


def next_number(tx: Session, model_id: str) -> int:
    """The number of a model's next version."""
    query = select(func.max(ModelVersion.number)).where(ModelVersion.model_id == model_id)
    return (tx.scalar(query) or 0) + 1


def same_file(tx: Session, version: ModelVersion, sha256: str) -> ModelVersion | None:
    """Another ready version with these bytes that the project of `version` can use already."""
    return tx.scalar(_others(version).where(ModelVersion.sha256 == sha256).limit(1))


def same_size(tx: Session, version: ModelVersion, size_bytes: int) -> bool:
    """Whether the project of `version` has another ready version of this size."""
    query = _others(version).where(ModelVersion.size_bytes == size_bytes)
    return tx.scalar(query.limit(1)) is not None


def _others(version: ModelVersion) -> Select[ModelVersion]:
    return select(ModelVersion).where(
        ModelVersion.id != version.id,
        ModelVersion.tenant_id == version.tenant_id,
        ModelVersion.state == "ready",
        or_(ModelVersion.project_id == version.project_id, ModelVersion.project_id.is_(None)),
    )


def stage_changes(tx: Session, model_id: str) -> list[StageChange]:
    """How the versions of a model went through their stages, oldest first."""
    query = select(StageChange).where(StageChange.model_id == model_id)
    return list(tx.scalars(query.order_by(StageChange.at, StageChange.id)))


def policy(tx: Session, project_id: str) -> Policy | None:
    """Which versions a project may deploy; None is the default."""
    return tx.get(Policy, project_id)


def provider(tx: Session, provider_id: str) -> Provider | None:
    """One account at a provider."""
    return tx.get(Provider, provider_id)


def providers(tx: Session, tenant_id: str, project_id: str) -> list[Provider]:
    """The accounts of a project, by name."""
    query = select(Provider).where(
        Provider.tenant_id == tenant_id, Provider.project_id == project_id
    )
    return list(tx.scalars(query.order_by(Provider.name)))


def tags(tx: Session, project_id: str, subjects: Sequence[str] | None = None) -> list[Tag]:
    """The tags of a project, of some subjects or of every one when None; by tag."""
    query = select(Tag).where(Tag.project_id == project_id)
    if subjects is not None:
        query = query.where(Tag.subject.in_(subjects))
    return list(tx.scalars(query.order_by(Tag.tag)))


def comment(tx: Session, comment_id: str) -> Comment | None:
    """One comment."""
    return tx.get(Comment, comment_id)


def comments(tx: Session, project_id: str, subject: str) -> list[Comment]:
    """The comments on a subject, oldest first."""
    query = select(Comment).where(Comment.project_id == project_id, Comment.subject == subject)
    return list(tx.scalars(query.order_by(Comment.created_at, Comment.id)))


def favourites(tx: Session, project_id: str, user_id: str) -> list[str]:
    """The subjects that a person marked in a project."""
    query = select(Favourite.subject).where(
        Favourite.project_id == project_id, Favourite.user_id == user_id
    )
    return list(tx.scalars(query.order_by(Favourite.subject)))


def saved_view(tx: Session, view_id: str) -> SavedView | None:
    """One saved view."""
    return tx.get(SavedView, view_id)


def saved_views(tx: Session, project_id: str, user_id: str, page: str) -> list[SavedView]:
    """A person's own views of a page and those shared in the project, by name."""
    query = select(SavedView).where(
        SavedView.project_id == project_id,
        SavedView.page == page,
        or_(SavedView.user_id == user_id, SavedView.shared),
    )
    return list(tx.scalars(query.order_by(SavedView.name, SavedView.created_at)))


def forget_subject(tx: Session, subject: str) -> None:
    """Delete what was said of a subject that goes away."""
    for table in (Tag, Comment, Favourite):
        tx.execute(delete(table).where(table.subject == subject))


def forget_project(tx: Session, project_id: str) -> None:
    """Delete all that a project has in the registry."""
    for table in (Model, StageChange, Policy, Provider, Tag, Comment, Favourite, SavedView):
        tx.execute(delete(table).where(table.project_id == project_id))


def refresh(tx: Session, refresh_id: str) -> CatalogueRefresh | None:
    """One fetch of a source of the catalogue."""
    return tx.get(CatalogueRefresh, refresh_id)


def refreshes(
    tx: Session, feed: str | None = None, state: str | None = None
) -> list[CatalogueRefresh]:
    """The fetches of a source, or of all, in one state or any; the newest first."""
    query = select(CatalogueRefresh)
    if feed is not None:
        query = query.where(CatalogueRefresh.feed == feed)
    if state is not None:
        query = query.where(CatalogueRefresh.state == state)
    return list(
        tx.scalars(query.order_by(CatalogueRefresh.created_at.desc(), CatalogueRefresh.id.desc()))
    )
