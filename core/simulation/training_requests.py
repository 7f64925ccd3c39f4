"""What people get to see of trainings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from core.simulation.schemas import Basis


@dataclass(frozen=True)
class OwnError:
    """How far predictions are from a person's own rows of one time.

    Attributes:
        rows: How many were measured.
        shipped_mape: Mean absolute error in % of the measured value, of the shipped model, which
            knows none of them.
        held_out_mape: The same of the new way to train, each configuration predicted by learners
            that were trained without any row of it.
    """

    rows: int
    shipped_mape: float
    held_out_mape: float


class TrainingResult(BaseModel):
    """What a training made.

    Attributes:
        version: Of the method.
        data_date: The day of the newest measurement, ISO 8601.
        data_hash: SHA-256 of all rows.
        rows: How many of each source.
        errors: On the person's own rows, by `ttft_ms` and `tpot_ms`.
    """

    model_config = ConfigDict(frozen=True)

    version: str
    data_date: str
    data_hash: str
    rows: dict[str, int]
    errors: dict[str, OwnError]


class TrainingView(BaseModel):
    """A training; `result` is None until its job has succeeded.

    Attributes:
        id: `trn_…`.
        project_id: Where its job is; what it makes is the tenant's.
        name: Of the file.
        rows: Own rows that it learns from.
        configurations: How many these are of.
        is_in_use: Whether the tenant predicts with it.
        is_current: Whether this version of Bud can predict with it.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    project_id: str
    name: str
    job_id: str
    rows: int
    configurations: int
    result: TrainingResult | None
    is_in_use: bool
    is_current: bool
    created_by_name: str
    created_at: datetime


@dataclass(frozen=True)
class Standing:
    """What predictions stand on now.

    Attributes:
        basis: The version, and the data.
        training: The training in use; None for the model that ships with Bud.
    """

    basis: Basis
    training: TrainingView | None

    @property
    def own_rows(self) -> int:
        """How many of the rows the tenant measured."""
        return 0 if self.training is None else self.training.rows
