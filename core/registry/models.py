"""Tables of models, their versions, where they come from, and what people say of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.kernel.database import Base, UtcDateTime


class Facts:
    """What a model's files say of it; a model bears the facts of its current version."""

    path: Mapped[str | None] = mapped_column(Text)
    managed: Mapped[bool] = mapped_column(default=True)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    architecture: Mapped[str | None] = mapped_column(String(60))
    parameters: Mapped[int | None] = mapped_column(BigInteger)
    quantization: Mapped[str | None] = mapped_column(String(20))
    context_tokens: Mapped[int | None]
    layers: Mapped[int | None]
    heads: Mapped[int | None]
    kv_heads: Mapped[int | None]
    key_length: Mapped[int | None]
    value_length: Mapped[int | None]
    embedding_length: Mapped[int | None]
    vocabulary: Mapped[int | None]
    chat_template: Mapped[bool | None]
    licence: Mapped[str | None] = mapped_column(String(120))
    capabilities: Mapped[list[Any]] = mapped_column(JSON, default=list)
    # All that `extraction.describe` found, also what has no column of its own.
    extracted: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)


class Model(Facts, Base):
    """A model; `project_id` None is shared with every project (the starter model).

    `version_id` is its current version: the one in production, else the newest that is ready and
    not retired.
    A model of `kind` hosted runs at its provider; it has no versions and no files.
    """

    __tablename__ = "models"
    __table_args__ = (Index(None, "project_id", "name"), Index(None, "project_id", "source"))

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str | None] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(120))
    kind: Mapped[str] = mapped_column(String(10), default="local")
    state: Mapped[str] = mapped_column(String(20))
    source: Mapped[str] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    version_id: Mapped[str | None] = mapped_column(String(40))
    catalogue_id: Mapped[str | None] = mapped_column(String(200))
    provider_id: Mapped[str | None] = mapped_column(String(40), index=True)
    provider_model: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ModelVersion(Facts, Base):
    """One set of files of a model, as it was added; versions are numbered from 1.

    `path` is where the files lie on this machine (the first of them), `artifact_uri` where the
    artifact store keeps them (None: on this machine only). `files` lists name, size and SHA-256
    of each. An override lets a version be deployed that its scan forbids.
    """

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("model_id", "number"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str | None] = mapped_column(String(40), index=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(20))
    error: Mapped[str | None] = mapped_column(Text)
    source: Mapped[str] = mapped_column(Text)
    revision: Mapped[str | None] = mapped_column(String(200))
    artifact_uri: Mapped[str | None] = mapped_column(Text)
    files: Mapped[list[Any]] = mapped_column(JSON, default=list)
    stage: Mapped[str] = mapped_column(String(20), default="draft")
    scan_state: Mapped[str] = mapped_column(String(20), default="not scanned")
    severity: Mapped[str | None] = mapped_column(String(20))
    findings: Mapped[list[Any]] = mapped_column(JSON, default=list)
    scan_reasons: Mapped[list[Any]] = mapped_column(JSON, default=list)
    scanned_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    override_reason: Mapped[str | None] = mapped_column(Text)
    override_by_name: Mapped[str | None] = mapped_column(String(200))
    override_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_by_name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class StageChange(Base):
    """A version went from one stage to another; what was in production when follows from these."""

    __tablename__ = "model_stage_changes"
    __table_args__ = (Index(None, "model_id", "at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str | None] = mapped_column(String(40), index=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"))
    version_id: Mapped[str] = mapped_column(String(40))
    version_number: Mapped[int]
    from_stage: Mapped[str] = mapped_column(String(20))
    to_stage: Mapped[str] = mapped_column(String(20))
    comment: Mapped[str] = mapped_column(Text)
    by_name: Mapped[str] = mapped_column(String(200))
    at: Mapped[datetime] = mapped_column(UtcDateTime)


class Policy(Base):
    """Which versions a project may deploy; a project without a row has the defaults."""

    __tablename__ = "model_policies"

    project_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    approved_only: Mapped[bool] = mapped_column(default=False)
    block_unscanned: Mapped[bool] = mapped_column(default=False)


class Provider(Base):
    """An account at a provider of hosted models; `sealed_credentials` opens with `provider:<id>`.

    `options` holds what is no secret, such as a region. `models` is what it listed last.
    """

    __tablename__ = "model_providers"
    __table_args__ = (UniqueConstraint("project_id", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(80))
    kind: Mapped[str] = mapped_column(String(40))
    base_url: Mapped[str] = mapped_column(Text)
    options: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    sealed_credentials: Mapped[str] = mapped_column(Text)
    models: Mapped[list[Any]] = mapped_column(JSON, default=list)
    checked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    check_error: Mapped[str | None] = mapped_column(Text)
    rotated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by_name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Tag(Base):
    """A word that a project puts on a subject: `model:<id>` or `catalogue:<canonical id>`."""

    __tablename__ = "model_tags"
    __table_args__ = (UniqueConstraint("project_id", "subject", "tag"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(220))
    tag: Mapped[str] = mapped_column(String(40))


class Comment(Base):
    """What somebody of a project wrote about a subject."""

    __tablename__ = "model_comments"
    __table_args__ = (Index(None, "project_id", "subject"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40))
    subject: Mapped[str] = mapped_column(String(220))
    text: Mapped[str] = mapped_column(Text)
    user_id: Mapped[str] = mapped_column(String(40))
    by_name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    edited_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Favourite(Base):
    """A subject that a person marked in a project."""

    __tablename__ = "model_favourites"

    project_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    subject: Mapped[str] = mapped_column(String(220), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))


class SavedView(Base):
    """A page's filters under a name; `query` is the page's URL parameters."""

    __tablename__ = "model_saved_views"
    __table_args__ = (UniqueConstraint("project_id", "user_id", "page", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40))
    user_id: Mapped[str] = mapped_column(String(40))
    by_name: Mapped[str] = mapped_column(String(200))
    page: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(80))
    query: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    shared: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class CatalogueRefresh(Base):
    """One fetch of a source of the catalogue: what differs, and who decided what about it.

    The catalogue is one for all tenants: public facts, which nobody owns.
    """

    __tablename__ = "catalogue_refreshes"
    __table_args__ = (Index(None, "feed", "created_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    feed: Mapped[str] = mapped_column(String(80))
    state: Mapped[str] = mapped_column(String(20))
    error: Mapped[str | None] = mapped_column(Text)
    entries: Mapped[int] = mapped_column(default=0)
    unresolved: Mapped[int] = mapped_column(default=0)
    added: Mapped[int] = mapped_column(default=0)
    removed: Mapped[int] = mapped_column(default=0)
    changed: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    decided_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    decided_by: Mapped[str | None] = mapped_column(String(200))
