"""Table of the projects whose answers are kept; the answers lie with the gateway."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from core.kernel.database import Base, UtcDateTime


class ResponseCacheRow(Base):
    """What a project keeps; with a higher `generation` nothing that was kept before is given."""

    __tablename__ = "response_caches"

    project_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40), index=True)
    enabled: Mapped[bool]
    ttl_s: Mapped[int]
    max_mb: Mapped[int]
    all_requests: Mapped[bool]
    generation: Mapped[int]
    set_at: Mapped[datetime] = mapped_column(UtcDateTime)
    set_by_name: Mapped[str] = mapped_column(String(200))
