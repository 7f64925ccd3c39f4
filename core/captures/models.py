"""Table of the projects that keep prompts and answers; what they keep lies in files."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from core.kernel.database import Base, UtcDateTime


class CaptureRow(Base):
    """What a project keeps; one that turned it off stays until what it kept is too old."""

    __tablename__ = "captures"

    project_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40), index=True)
    enabled: Mapped[bool]
    keep_days: Mapped[int]
    max_mb: Mapped[int]
    set_at: Mapped[datetime] = mapped_column(UtcDateTime)
    set_by_name: Mapped[str] = mapped_column(String(200))
