"""Many configurations from a CSV file, answered into another: `bud simulate --batch`.

A row means what it means in the measured files: `concurrency` counts requests in flight over the
whole deployment, and a blank cell is unknown. A bad row gets its error, the others their answer.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.hardware.schemas import Accelerator
from core.kernel.errors import InvalidInput
from core.simulation import batch_rows, device_counts, memory, predictor
from core.simulation.batch_rows import REQUIRED, Asked, Booleans, Texts, join, plain_name
from core.simulation.memory import Memory
from core.simulation.predictor import Band, Prediction
from core.simulation.scenarios import (
    ENGINES,
    PRECISIONS,
    UNKNOWN,
    Floats,
    Ints,
    ModelTable,
    Scenarios,
    native_precision,
)
from core.simulation.subjects import Subjects

_BANDS = ("ttft_ms", "tpot_ms", "e2e_ms", "tokens_per_s_per_gpu")
ADDED = (
    *(f"{name}{end}" for name in _BANDS for end in ("", "_low", "_high")),
    *("memory_gb_per_gpu", "fits", "support", "error", "note"),
)


@dataclass(frozen=True)
class One:
    """The answer to a single configuration: a table of one row.

    `fits` is False also where no engine would start it; `path` is that of a model read from a
    file, else empty.
    """

    scenarios: Scenarios
    prediction: Prediction
    models: ModelTable
    model_name: str
    path: str
    device: Accelerator
    fits: bool
    notes: tuple[str, ...]

    @property
    def engine(self) -> str:
        """As one of ENGINES."""
        return ENGINES[int(self.scenarios.engine[0])]

    @property
    def precision(self) -> str:
        """Of the weights."""
        given = int(self.scenarios.precision[0])
        shape = self.models.architectures[int(self.scenarios.model[0])]
        return native_precision(shape) if given == UNKNOWN else PRECISIONS[given]

    @property
    def support(self) -> str:
        """How near measured rows are."""
        return support(int(self.prediction.nearby[0]))


@dataclass(frozen=True)
class Summary:
    """What became of a file's rows."""

    rows: int
    answered: int
    failed: int
    target: str


def run(source: Path, target: Path, subjects: Subjects) -> Summary:
    """Answer every row of `source` into `target`, in order.

    Raises:
        InvalidInput: A file cannot be read or written, or a required column is missing.
    """
    if source.resolve() == target.resolve():
        raise InvalidInput(
            "The answers would overwrite the questions.", remedy="Name another file with --out."
        )
    sheet = read(source)
    answered = answer(sheet.table, subjects, sheet.broken)
    _write(answered, target)
    failed = int((answered["error"] != "").sum())
    return Summary(len(answered), len(answered) - failed, failed, str(target))


@dataclass(frozen=True)
class Sheet:
    """A CSV file's rows as text.

    Attributes:
        table: The cells, columns as the header names them.
        broken: What is wrong with the form of each row, "" if nothing.
        line: The line of the file in which each row ends, from 1.
    """

    table: pd.DataFrame
    broken: Texts
    line: Ints


def read(source: Path) -> Sheet:
    """The rows of a CSV file. Raises as `parse` does, and InvalidInput where there is no file."""
    try:
        content = source.read_bytes()
    except OSError as error:
        raise _unreadable(str(source), error) from error
    return parse(content, str(source))


def parse(content: bytes, name: str) -> Sheet:
    """The rows of a CSV file's content.

    Raises:
        InvalidInput: It cannot be read, or a required column is missing or named twice.
    """
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        lines = [(reader.line_num, cells) for cells in reader if cells]
    except (UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(name, error) from error
    header, rows = (lines[0][1], lines[1:]) if lines else ([], [])
    _check_header([plain_name(column) for column in header])
    width = len(header)
    broken = np.array(
        [
            f"{len(cells)} cells where the header names {width}" if len(cells) > width else ""
            for _, cells in rows
        ],
        dtype=object,
    )
    cells = [given[:width] + [""] * (width - len(given)) for _, given in rows]
    return Sheet(
        pd.DataFrame(cells, columns=header, dtype=object),
        broken,
        np.array([number for number, _ in rows], dtype=np.int64),
    )


def _unreadable(name: str, error: Exception) -> InvalidInput:
    return InvalidInput(
        f"{name} cannot be read as CSV: {error}.", remedy="Check the path and the file."
    )


def _check_header(names: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise InvalidInput(
            f"The file has no column {', '.join(missing)}.",
            remedy=f"It needs {', '.join(REQUIRED)}; leave a cell blank where it is unknown.",
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(
            f"The file has several columns {', '.join(twice)}.", remedy="Keep one of each."
        )


def _write(table: pd.DataFrame, target: Path) -> None:
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        table.to_csv(beside, index=False)
        beside.replace(target)
    except OSError as error:
        raise InvalidInput(
            f"{target} cannot be written: {error.strerror}.",
            remedy="Name a file in a folder that exists and is yours.",
        ) from error


def answer(table: pd.DataFrame, subjects: Subjects, broken: Texts | None = None) -> pd.DataFrame:
    """The table with the columns ADDED; a column of such a name becomes `in_…`.

    Args:
        table: Text cells; the columns REQUIRED and any of OPTIONAL.
        subjects: What may be named.
        broken: What is wrong with a row besides its values, "" for nothing.
    """
    asked = batch_rows.ask(table, subjects, broken=broken)
    named = table.rename(
        columns={name: f"in_{name}" for name in table.columns if plain_name(name) in ADDED}
    )
    return pd.concat([named.reset_index(drop=True), _added(asked, subjects)], axis=1)


def answer_one(columns: Mapping[str, str], subjects: Subjects) -> One:
    """The answer to one configuration; tp and dp name every device once.

    Args:
        columns: Text by column, as in a file's row.
        subjects: What may be named.

    Raises:
        NotFound: An unknown model, system, engine or precision, with the nearest.
        InvalidInput: A figure out of range.
    """
    model = subjects.find_model(columns["model"])
    system = subjects.find_system(columns["system"])
    batch_rows.engine_index(columns["engine"])
    batch_rows.precision_index(columns["precision"])
    table = pd.DataFrame([dict(columns)], dtype=object)
    asked = batch_rows.ask(table, subjects, counted_as_measured=False)
    if not asked.is_good[0]:
        raise InvalidInput(f"{asked.errors[0]}.", remedy="See: bud simulate --help")
    prediction = subjects.predictor.predict(asked.scenarios)
    note = str(_with_memory_notes(asked, prediction.memory, prediction.most_concurrency)[0])
    named = next(each for each in subjects.model_subjects if each.index == model)
    return One(
        scenarios=asked.scenarios,
        prediction=prediction,
        models=subjects.models,
        model_name=named.name,
        path=named.path,
        device=subjects.systems.accelerators[system],
        fits=bool(prediction.fits[0] and asked.is_startable[0]),
        notes=tuple(note.split("; ")) if note else (),
    )


def _added(asked: Asked, subjects: Subjects) -> pd.DataFrame:
    blank: Texts = np.full(len(asked.is_good), "", dtype=object)
    columns: dict[str, Any] = dict.fromkeys(ADDED, blank)
    columns |= {"error": asked.errors, "note": asked.notes}
    if asked.is_good.any():
        columns |= _predicted(asked, subjects)
    return pd.DataFrame(columns)


def _predicted(asked: Asked, subjects: Subjects) -> dict[str, Any]:
    models, systems = subjects.models, subjects.systems
    rows, is_raised = device_counts.raised(asked.scenarios, models, systems)
    prediction = subjects.predictor.predict(rows)
    columns: dict[str, Any] = {}
    for name in _BANDS:
        band: Band = getattr(prediction, name)
        for end, values in (("", band.mean), ("_low", band.low), ("_high", band.high)):
            columns[name + end] = _spread(np.round(values, 3), asked.is_good)
    # Memory and fit are those of the devices that the row names.
    held = memory.of_deployment(asked.scenarios, models, systems)
    columns["memory_gb_per_gpu"] = _spread(np.round(held.needed / 1e9, 3), asked.is_good)
    fits = held.fits & asked.is_startable[asked.is_good]
    columns["fits"] = _spread_texts(np.where(fits, "true", "false"), asked.is_good)
    columns["support"] = _spread_texts(_support(prediction.nearby), asked.is_good)
    notes = _with_memory_notes(asked, held, prediction.most_concurrency)
    devices = predictor.device_count(rows)
    places = np.flatnonzero(asked.is_good).tolist()
    for index in np.flatnonzero(is_raised).tolist():
        join(notes, places[index], f"predicted as {devices[index]:.0f} devices would run it")
    columns["note"] = notes
    return columns


def _spread(values: Floats, where: Booleans) -> Floats:
    spread = np.full(len(where), np.nan)
    spread[where] = values
    return spread


def _spread_texts(values: npt.NDArray[Any], where: Booleans) -> Texts:
    spread = np.full(len(where), "", dtype=object)
    spread[where] = values
    return spread


def support(nearby: int) -> str:
    """How near measured rows are: `41 measured rows nearby`, or `extrapolated`."""
    if nearby <= 0:
        return "extrapolated"
    return f"{nearby:,} measured row{'' if nearby == 1 else 's'} nearby"


def _support(nearby: Ints) -> Texts:
    counts, places = np.unique(nearby, return_inverse=True)
    said: Texts = np.array([support(int(count)) for count in counts], dtype=object)
    return said[places]


def _with_memory_notes(asked: Asked, held: Memory, most_concurrency: Floats) -> Texts:
    notes = asked.notes.copy()
    rows = np.flatnonzero(asked.is_good).tolist()
    needed_gb, usable_gb = held.needed / 1e9, held.usable / 1e9
    for index in np.flatnonzero(~held.fits).tolist():
        text = f"{needed_gb[index]:,.1f} GB needed of {usable_gb[index]:,.1f} GB usable"
        join(notes, rows[index], f"does not fit: {text}")
    waits = held.fits & (asked.scenarios.concurrency > most_concurrency)
    for index in np.flatnonzero(waits).tolist():
        most = int(most_concurrency[index])
        join(notes, rows[index], f"the KV cache holds {most:,} requests at once; the others wait")
    return notes
