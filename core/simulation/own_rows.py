"""Measurements of one's own: a CSV file in the batch format with what was measured, read strictly.

`ttft_ms` and `tpot_ms` are means over a run at steady concurrency, in milliseconds, as in the rows
that ship with Bud. Every row is either understood or named with its line and what is wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from core.kernel.errors import InvalidInput
from core.simulation import batch, batch_rows, dataset, device_counts
from core.simulation.batch import Sheet
from core.simulation.batch_rows import Booleans, Texts, join, plain_name
from core.simulation.dataset import Measured
from core.simulation.predictor import Predictor
from core.simulation.scenarios import (
    ENGINES,
    MODES,
    PRECISIONS,
    SPECULATION,
    UNKNOWN,
    Floats,
    Ints,
    Scenarios,
)
from core.simulation.subjects import Subjects
from core.simulation.training import HEADS

MOST_ROWS = 20_000
MOST_BYTES = 10_000_000
# An hour and ten minutes: slower is a slip or another unit.
_MOST_MS = {"ttft_ms": 3_600_000.0, "tpot_ms": 600_000.0}
_LEAST_MS = 0.001
# A file whose figures are in the mean so many times off the prediction has another unit.
_ANOTHER_UNIT = 100.0
# Figures of one run, written with fewer digits.
_SAME = 5e-4
# What tells runs apart, as in the cleaning of the rows that ship: sources differ in the rest.
_RUN = ("model", "system", "mode", "isl", "osl", "concurrency")
_COUNTS = (
    *("isl", "osl", "concurrency", "tp", "pp", "ep", "dp", "replicas"),
    *(
        f"{side}_{name}"
        for side in batch_rows.SIDES
        for name in ("workers", "tp", "pp", "ep", "dp")
    ),
)


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used: its line in the file, from 1, and why."""

    line: int
    what: str


@dataclass(frozen=True)
class OwnRows:
    """What a file holds.

    Attributes:
        table: The usable rows, with the columns of the table that ships.
        bad: The others, in order.
        configurations: How many the usable rows are of; a concurrency curve is of one.
    """

    table: pd.DataFrame
    bad: tuple[BadRow, ...]
    configurations: int


def read(content: bytes, name: str, subjects: Subjects, measured_on: date) -> OwnRows:
    """The rows of a person's CSV file.

    Args:
        content: The file: the columns of the batch format, and `ttft_ms`, `tpot_ms` or both.
        name: The file's name, for messages.
        subjects: What may be named.
        measured_on: The day that stands beside the rows.

    Raises:
        InvalidInput: The file is too large or no CSV, lacks a column, holds no row, or its
            figures are in another unit than milliseconds.
    """
    if len(content) > MOST_BYTES:
        raise InvalidInput(
            f"{name} is larger than {MOST_BYTES / 1e6:,.0f} MB.",
            value=f"{len(content) / 1e6:,.1f} MB",
            remedy="Keep the columns that are needed, or upload it in parts.",
        )
    sheet = batch.parse(content, name)
    _check(sheet, name)
    asked = batch_rows.ask(sheet.table, subjects, broken=sheet.broken)
    errors = asked.errors.copy()
    times = {head: _times(sheet, head, errors) for head in HEADS}
    nothing = ~np.isfinite(times["ttft_ms"]) & ~np.isfinite(times["tpot_ms"])
    _fail(errors, nothing & (errors == ""), "neither ttft_ms nor tpot_ms is given")
    usable = np.flatnonzero(errors == "")
    rows = asked.scenarios.take((errors == "")[asked.is_good])
    rows, _ = device_counts.raised(rows, subjects.models, subjects.systems)
    times = {head: values[usable] for head, values in times.items()}
    table = _table(sheet, usable, rows, times, subjects, measured_on)
    errors[usable] = _copies(table)
    kept = table[errors[usable] == ""].reset_index(drop=True)
    measured = dataset.from_table(kept, subjects.models, subjects.systems)
    _check_unit(measured, subjects.predictor)
    bad = [BadRow(int(sheet.line[row]), errors[row]) for row in np.flatnonzero(errors != "")]
    return OwnRows(kept, tuple(bad), len(set(measured.configuration)))


def _fail(errors: Texts, where: Booleans, what: str) -> None:
    """Add what is wrong to the rows at `where`."""
    for row in np.flatnonzero(where).tolist():
        join(errors, row, what)


def _check(sheet: Sheet, name: str) -> None:
    columns = {plain_name(column) for column in sheet.table.columns}
    if not columns & set(HEADS):
        raise InvalidInput(
            f"{name} has no column {' or '.join(HEADS)}.",
            remedy="Add what you measured: means in milliseconds at steady concurrency.",
        )
    if not 1 <= len(sheet.table) <= MOST_ROWS:
        raise InvalidInput(
            f"{name} has {len(sheet.table):,} rows.",
            remedy=f"A file holds 1 to {MOST_ROWS:,} measured rows below its header.",
        )


def _text(sheet: Sheet, name: str) -> pd.Series[str]:
    for column in sheet.table.columns:
        if plain_name(column) == name:
            return sheet.table[column].astype(str).str.strip()
    return pd.Series([""] * len(sheet.table), dtype=object)


def _times(sheet: Sheet, head: str, errors: Texts) -> Floats:
    """Measured milliseconds, NaN where the cell is blank; what cannot be is the row's error."""
    text = _text(sheet, head)
    values = pd.to_numeric(text, errors="coerce").to_numpy(dtype=np.float64)
    is_given = (text != "").to_numpy()
    is_number = np.isfinite(values)
    is_outside = is_number & ~((values >= _LEAST_MS) & (values <= _MOST_MS[head]))
    for row in np.flatnonzero(is_given & ~is_number).tolist():
        join(errors, row, f"{head} is no number (got: {text.iloc[row][:40]})")
    for row in np.flatnonzero(is_given & is_outside).tolist():
        allowed = f"{_LEAST_MS:g} to {_MOST_MS[head]:,.0f} ms"
        join(errors, row, f"{head} must be {allowed} (got: {text.iloc[row][:40]})")
    if head == "tpot_ms":
        is_single = pd.to_numeric(_text(sheet, "osl"), errors="coerce").to_numpy() <= 1
        _fail(errors, is_given & is_single, "tpot_ms cannot be measured with osl 1")
    return np.where(is_given & is_number, values, np.nan)


def _table(
    sheet: Sheet,
    usable: Ints,
    rows: Scenarios,
    times: dict[str, Floats],
    subjects: Subjects,
    measured_on: date,
) -> pd.DataFrame:
    """The rows as the shipped table has them: names under their ids, columns it lacks left out."""
    models = np.array([each.id for each in subjects.models.architectures])
    systems = np.array([each.id for each in subjects.systems.accelerators])
    versions = _text(sheet, "engine_version").iloc[usable].map(batch_rows.version_text)
    known = rows.precision != UNKNOWN
    return pd.DataFrame(
        {
            "source": dataset.OWN,
            "source_id": [f"line:{number}" for number in sheet.line[usable]],
            "model": models[rows.model],
            "system": systems[rows.system],
            "engine": np.array(ENGINES)[rows.engine],
            "engine_version": versions.to_numpy(dtype=object),
            "precision": np.where(known, np.array(PRECISIONS)[rows.precision], ""),
            "mode": np.array(MODES)[rows.mode],
            "spec_decoding": np.array(["", *SPECULATION[1:]])[rows.speculation],
            "measured_on": measured_on.isoformat(),
            "lengths": "random",
            "note": "",
            **{column: getattr(rows, column) for column in _COUNTS},
            **times,
            "e2e_ms": np.nan,
        }
    )


def _copies(table: pd.DataFrame) -> Texts:
    """What is wrong with rows that are among those that ship, or stand above in the file.

    A run that is there twice would count twice, and would be known while it is held out.
    """
    errors: Texts = np.full(len(table), "", dtype=object)
    shipped: dict[tuple[object, ...], list[tuple[float, float, str]]] = {}
    for *key, ttft, tpot, source in _tuples(dataset.shipped_table(), (*_RUN, *HEADS, "source")):
        shipped.setdefault(tuple(key), []).append((ttft, tpot, source))
    above: dict[tuple[object, ...], str] = {}
    everything = tuple(name for name in table.columns if name != "source_id")
    pairs = zip(
        _tuples(table, (*_RUN, *HEADS)),
        _tuples(table.fillna(0.0), everything),
        table["source_id"],
        strict=True,
    )
    for row, ((*key, ttft, tpot), whole, source_id) in enumerate(pairs):
        twins = (
            source
            for other_ttft, other_tpot, source in shipped.get(tuple(key), ())
            if _same(ttft, other_ttft) and _same(tpot, other_tpot)
        )
        twin = next(twins, None)
        if twin is not None:
            errors[row] = f"this run ships with Bud already (source: {twin})"
        elif whole in above:
            errors[row] = f"the same as {above[whole].replace(':', ' ')}"
        above.setdefault(whole, source_id)
    return errors


def _tuples(table: pd.DataFrame, columns: tuple[str, ...]) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].tolist() for name in columns), strict=True))


def _same(value: float, other: float) -> bool:
    """Whether two figures are of one run; what was not given contradicts nothing."""
    return math.isnan(value) or math.isclose(value, other, rel_tol=_SAME)


def _check_unit(measured: Measured, predictor: Predictor) -> None:
    if not len(measured):
        return
    prediction = predictor.predict(measured.rows)
    for head in HEADS:
        known = measured.has(head)
        if not known.any():
            continue
        ratios = getattr(measured, head)[known] / getattr(prediction, head).mean[known]
        median = float(np.median(ratios))
        if not 1 / _ANOTHER_UNIT < median < _ANOTHER_UNIT:
            raise InvalidInput(
                f"{head} is typically {median:,.3g} times what is predicted.",
                value=f"{float(np.median(getattr(measured, head)[known])):,.3g}",
                remedy="TTFT and TPOT are means of a run in milliseconds. Check the unit.",
            )
