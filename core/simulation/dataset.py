"""The measured rows that ship with the package, ready for calculation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.hardware import catalogue
from core.kernel.errors import InvalidInput
from core.simulation import architectures
from core.simulation.scenarios import (
    ENGINES,
    LENGTHS,
    MODES,
    PRECISIONS,
    SPECULATION,
    UNKNOWN,
    Floats,
    ModelTable,
    Scenarios,
    SystemTable,
    from_columns,
    version_number,
)

PATH = Path(__file__).parent / "data" / "serving.parquet"
# Racks with many tensor-parallel devices that are called aggregated behave like disaggregated
# ones; they may inform, and must not dominate.
_DOUBTFUL_WEIGHT = 0.3
# The source of rows that a person measured.
OWN = "own"
# One of them counts like so many others: they are few, and of what will be asked about.
_OWN_EMPHASIS = 4.0
_SIDES = tuple(
    f"{side}_{name}"
    for side in ("prefill", "decode")
    for name in ("workers", "tp", "pp", "ep", "dp")
)
_COPIED = ("isl", "osl", "concurrency", "tp", "pp", "ep", "dp", "replicas", *_SIDES)

Texts = npt.NDArray[np.str_]


@dataclass(frozen=True)
class Measured:
    """Rows, what was measured of them (milliseconds, NaN if not), and which belong together.

    `combination` names model × system × engine, `configuration` everything but the concurrency:
    a configuration's whole concurrency curve shares it.
    """

    rows: Scenarios
    models: ModelTable
    systems: SystemTable
    ttft_ms: Floats
    tpot_ms: Floats
    e2e_ms: Floats
    source: Texts
    weight: Floats

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, which: npt.NDArray[Any]) -> Measured:
        """The rows at `which` (indexes or a mask)."""
        columns = ("ttft_ms", "tpot_ms", "e2e_ms", "source", "weight")
        parts = {name: getattr(self, name)[which] for name in columns}
        return replace(self, rows=self.rows.take(which), **parts)

    def has(self, head: str) -> npt.NDArray[np.bool_]:
        """Which rows have a measured `head`: `ttft_ms`, `tpot_ms` or `e2e_ms`."""
        measured: Floats = getattr(self, head)
        return np.isfinite(measured)

    @property
    def is_own(self) -> npt.NDArray[np.bool_]:
        """Which rows a person measured."""
        own: npt.NDArray[np.bool_] = self.source == OWN
        return own

    @property
    def emphasis(self) -> Floats:
        """How much a row counts for the learners."""
        return np.where(self.is_own, _OWN_EMPHASIS, 1.0)

    @cached_property
    def model_id(self) -> Texts:
        """The model's name."""
        return np.array([each.id for each in self.models.architectures])[self.rows.model]

    @cached_property
    def system_id(self) -> Texts:
        """The accelerator's name."""
        return np.array([each.id for each in self.systems.accelerators])[self.rows.system]

    @cached_property
    def combination(self) -> Texts:
        """Model, system and engine."""
        engine = np.array(ENGINES)[self.rows.engine]
        return _joined([self.model_id, self.system_id, engine])

    @cached_property
    def configuration(self) -> Texts:
        """Everything that a run keeps while its concurrency changes."""
        rows = self.rows
        names = (
            *("precision", "mode", "speculation", "isl", "osl"),
            *("tp", "pp", "ep", "dp", "replicas", *_SIDES),
        )
        numbers = [getattr(rows, name).astype(np.int64).astype(np.str_) for name in names]
        return _joined([self.combination, *numbers])


def _joined(parts: list[Texts]) -> Texts:
    return np.array(["|".join(each) for each in zip(*parts, strict=True)])


def tables() -> tuple[ModelTable, SystemTable]:
    """Constants of every model and accelerator that ships with Bud and can be simulated."""
    systems = (each for each in catalogue.shipped() if each.can_simulate)
    return ModelTable(architectures.records().values()), SystemTable(systems)


def shipped_table() -> pd.DataFrame:
    """The cleaned rows as they ship: one row a measurement, names as text."""
    return pd.read_parquet(PATH)


def load() -> Measured:
    """Every cleaned row that ships with Bud."""
    return from_table(shipped_table(), *tables())


def load_with(own: pd.DataFrame, models: ModelTable, systems: SystemTable) -> Measured:
    """The rows that ship, then those that a person measured.

    Args:
        own: Rows with the columns of the shipped table, see `own_rows.read`.
        models: The shipped models, and those of the rows.
        systems: The shipped systems, and those of the rows.

    Raises:
        InvalidInput: A model or a device of the rows is known no more.
    """
    for column, known in (("model", models.ids), ("system", systems.ids)):
        gone = sorted(set(own[column]) - set(known))
        if gone:
            raise InvalidInput(
                f"The rows are of a {column} that is known no more: {', '.join(gone)}.",
                remedy="It was deleted since they were uploaded. Upload them again.",
            )
    return from_table(pd.concat([shipped_table(), own], ignore_index=True), models, systems)


def data_hash(own: pd.DataFrame | None = None) -> str:
    """SHA-256 of the cleaned rows: a trained model names the data it was made from."""
    shipped = hashlib.sha256(PATH.read_bytes()).hexdigest()
    if own is None:
        return shipped
    return hashlib.sha256(f"{shipped}\n{own.to_csv(index=False)}".encode()).hexdigest()


def data_date() -> str:
    """The day of the newest measurement that ships, ISO 8601."""
    return str(pd.read_parquet(PATH, columns=["measured_on"])["measured_on"].max())


def from_table(table: pd.DataFrame, models: ModelTable, systems: SystemTable) -> Measured:
    """Measured rows from a cleaned table; rows whose hardware cannot be simulated are left out."""
    table = table[table["system"].isin(list(systems.ids))].reset_index(drop=True)
    rows = from_columns(
        {
            **{name: table[name].to_numpy() for name in _COPIED},
            "model": _indexes(table["model"], list(models.ids)),
            "system": _indexes(table["system"], list(systems.ids)),
            "engine": _indexes(table["engine"], list(ENGINES)),
            "precision": _indexes(table["precision"], list(PRECISIONS)),
            "mode": _indexes(table["mode"], list(MODES)),
            "speculation": _indexes(table["spec_decoding"], ["", *SPECULATION[1:]]),
            "lengths": _indexes(table["lengths"], list(LENGTHS)),
            "engine_version": np.array(
                [
                    version_number(engine, version)
                    for engine, version in zip(
                        table["engine"], table["engine_version"], strict=True
                    )
                ]
            ),
        }
    )
    return Measured(
        rows=rows,
        models=models,
        systems=systems,
        ttft_ms=table["ttft_ms"].to_numpy(),
        tpot_ms=table["tpot_ms"].to_numpy(),
        e2e_ms=table["e2e_ms"].to_numpy(),
        source=table["source"].to_numpy().astype(np.str_),
        weight=np.where(table["note"] == "hidden disaggregation", _DOUBTFUL_WEIGHT, 1.0),
    )


def _indexes(values: pd.Series[Any], names: list[str]) -> npt.NDArray[np.int64]:
    found = values.map({name: index for index, name in enumerate(names)})
    return np.asarray(found.fillna(UNKNOWN), dtype=np.int64)
