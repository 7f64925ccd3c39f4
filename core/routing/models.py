"""Tables of what was published last, and of how each model's requests are routed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.kernel.database import Base, UtcDateTime


class Publication(Base):
    """The newest route table; one row, `id` 1."""

    __tablename__ = "route_table_publications"

    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int]
    content_sha256: Mapped[str] = mapped_column(String(64))
    published_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RouteRules(Base):
    """One version of a model's rules; never changed, the newest one holds."""

    __tablename__ = "route_rules"
    __table_args__ = (UniqueConstraint("project_id", "model", "version"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40))
    model: Mapped[str] = mapped_column(String(200))
    version: Mapped[int]
    rules: Mapped[dict[str, Any]] = mapped_column(JSON)
    set_at: Mapped[datetime] = mapped_column(UtcDateTime)
    set_by_name: Mapped[str] = mapped_column(String(200))
