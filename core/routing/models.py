"""Table of what was published last."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from core.kernel.database import Base, UtcDateTime


class Publication(Base):
    """The newest route table; one row, `id` 1."""

    __tablename__ = "route_table_publications"

    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int]
    content_sha256: Mapped[str] = mapped_column(String(64))
    published_at: Mapped[datetime] = mapped_column(UtcDateTime)
