"""Table of limits; what is used of them stands at the gateway, not here."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.kernel.database import Base, UtcDateTime


class LimitRow(Base):
    """One limit; what it limits is unique, so setting it again changes the amount."""

    __tablename__ = "limits"
    __table_args__ = (UniqueConstraint("project_id", "level", "subject", "metric", "window"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40))
    level: Mapped[str] = mapped_column(String(20))
    subject: Mapped[str] = mapped_column(String(200))
    metric: Mapped[str] = mapped_column(String(20))
    window: Mapped[str] = mapped_column(String(20))
    amount: Mapped[float]
    when_alone: Mapped[str] = mapped_column(String(20))
    set_at: Mapped[datetime] = mapped_column(UtcDateTime)
    set_by_name: Mapped[str] = mapped_column(String(200))
