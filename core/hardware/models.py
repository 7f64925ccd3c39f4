"""Table of the hardware that people added."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from core.kernel.database import Base, UtcDateTime


class HardwareEntry(Base):
    """A device of a tenant; the figures are those of `schemas.Accelerator`."""

    __tablename__ = "hardware_entries"
    __table_args__ = (Index(None, "tenant_id", "slug", unique=True),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    slug: Mapped[str] = mapped_column(String(30))
    name: Mapped[str] = mapped_column(String(80))
    vendor: Mapped[str] = mapped_column(String(40))
    kind: Mapped[str] = mapped_column(String(20))
    family: Mapped[str] = mapped_column(String(20))
    memory_gb: Mapped[float]
    memory_bandwidth_gb_per_s: Mapped[float]
    bf16_tflops: Mapped[float]
    fp8_tflops: Mapped[float | None]
    int8_tops: Mapped[float | None]
    fp4_tflops: Mapped[float | None]
    link_gb_per_s: Mapped[float]
    network_gb_per_s: Mapped[float]
    devices_per_node: Mapped[int]
    tdp_w: Mapped[float | None]
    release_year: Mapped[int | None]
    source: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_by_name: Mapped[str] = mapped_column(String(200))
