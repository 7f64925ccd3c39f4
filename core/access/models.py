"""Table of blocking rules."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.kernel.database import Base, UtcDateTime


class BlockRow(Base):
    """One blocking rule, by name in its project; `project_id` "" holds in every project."""

    __tablename__ = "block_rules"
    __table_args__ = (UniqueConstraint("tenant_id", "project_id", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40), index=True)
    name: Mapped[str] = mapped_column(String(80))
    conditions: Mapped[dict[str, Any]] = mapped_column(JSON)
    set_at: Mapped[datetime] = mapped_column(UtcDateTime)
    set_by_name: Mapped[str] = mapped_column(String(200))
