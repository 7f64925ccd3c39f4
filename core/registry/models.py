"""Table of models."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.kernel.database import Base, UtcDateTime


class Model(Base):
    """A model; `project_id` None is shared with every project (the starter model)."""

    __tablename__ = "models"
    __table_args__ = (Index(None, "project_id", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str | None] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(120))
    state: Mapped[str] = mapped_column(String(20))
    source: Mapped[str] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
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
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
