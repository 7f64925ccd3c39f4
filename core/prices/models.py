"""Tables of dated prices; a row is never changed, a newer one replaces it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from core.kernel.database import Base, UtcDateTime


class TokenPriceRow(Base):
    """USD per million tokens of one model name of a project; all three empty: not set again."""

    __tablename__ = "token_prices"
    __table_args__ = (Index(None, "project_id", "model", "valid_from"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40))
    model: Mapped[str] = mapped_column(String(200))
    input_usd_per_million_tokens: Mapped[float | None]
    output_usd_per_million_tokens: Mapped[float | None]
    cached_usd_per_million_tokens: Mapped[float | None]
    valid_from: Mapped[datetime] = mapped_column(UtcDateTime)
    set_by_name: Mapped[str] = mapped_column(String(200))


class MachinePriceRow(Base):
    """USD per hour of a cluster's machine; `usd_per_hour` empty: not set again.

    The other figures are what it was computed from, kept so that the form can show them again.
    """

    __tablename__ = "machine_prices"
    __table_args__ = (Index(None, "tenant_id", "cluster_id", "valid_from"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    cluster_id: Mapped[str] = mapped_column(String(40))
    usd_per_hour: Mapped[float | None]
    watts: Mapped[float | None]
    usd_per_kwh: Mapped[float | None]
    purchase_usd: Mapped[float | None]
    lifetime_hours: Mapped[float | None]
    valid_from: Mapped[datetime] = mapped_column(UtcDateTime)
    set_by_name: Mapped[str] = mapped_column(String(200))
