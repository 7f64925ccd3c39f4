"""Tables of saved scenarios, of searches and replays with their results, and of trainings."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from core.kernel.database import Base, UtcDateTime


class SimulationScenario(Base):
    """A question that somebody saved; `query` holds what is not at its default."""

    __tablename__ = "simulation_scenarios"
    __table_args__ = (Index(None, "project_id", "name", unique=True),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(80))
    query: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_by_name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SimulationRun(Base):
    """A search or a replay: what was asked, and what its job found (None until then)."""

    __tablename__ = "simulation_runs"
    __table_args__ = (Index(None, "project_id", "kind", "created_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40))
    kind: Mapped[str] = mapped_column(String(20))
    title: Mapped[str] = mapped_column(String(200))
    job_id: Mapped[str] = mapped_column(String(40))
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    created_by_name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SimulationTraining(Base):
    """A predictor trained on a person's own measurements beside the rows that ship.

    The tenant predicts with the one that was used last, with the shipped one when none is.
    """

    __tablename__ = "simulation_trainings"
    __table_args__ = (Index(None, "tenant_id", "created_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(200))
    job_id: Mapped[str] = mapped_column(String(40))
    rows: Mapped[int]
    configurations: Mapped[int]
    # The person's rows as Parquet, and the trained model as compressed JSON (about a megabyte):
    # loaded only where they are read.
    own: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)
    trained: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_by_name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
