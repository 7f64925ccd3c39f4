"""Table of guardrails."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.kernel.database import Base, UtcDateTime


class GuardrailRow(Base):
    """One guardrail, by name in its project.

    `settings` are the fields of its kind's struct in `core.contracts.guardrails`, without the
    credential of a classifier, which is sealed with the context `guardrail:<id>`.
    """

    __tablename__ = "guardrails"
    __table_args__ = (UniqueConstraint("project_id", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40), index=True)
    name: Mapped[str] = mapped_column(String(80))
    kind: Mapped[str] = mapped_column(String(20))
    mode: Mapped[str] = mapped_column(String(20))
    action: Mapped[str] = mapped_column(String(20))
    applies_to: Mapped[str] = mapped_column(String(20))
    budget_ms: Mapped[float]
    on_failure: Mapped[str] = mapped_column(String(20))
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    sealed_credential: Mapped[str] = mapped_column(Text, default="")
    set_at: Mapped[datetime] = mapped_column(UtcDateTime)
    set_by_name: Mapped[str] = mapped_column(String(200))
