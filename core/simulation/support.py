"""How near a scenario is to what was measured.

Two numbers a scenario: its kind (was this combination of model, device and engine measured, at
such a load; or only its parts; or is the device or the model new), and how many measured rows
are nearby. Both are look-ups in small tables of integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from core.simulation.dataset import Measured
from core.simulation.scenarios import (
    ENGINES,
    MODES,
    Floats,
    Ints,
    ModelTable,
    Scenarios,
    SystemTable,
)

KINDS = ("seen", "combination", "device", "model")
# A cell is a factor of two wide in each of these; nearby rows are in the same or the next cell.
_CELL_COLUMNS = ("isl", "osl", "concurrency", "devices")
_CELLS = 32


@dataclass(frozen=True)
class Place:
    """Where scenarios stand.

    Attributes:
        kind: Index into KINDS.
        nearby: Measured rows of the same combination within a factor of about two in prompt and
            answer length, concurrency and devices.
        beyond: Doublings by which the load lies outside of anything measured.
    """

    kind: Ints
    nearby: Ints
    beyond: Floats


class Support:
    """The measured rows, counted."""

    def __init__(self, cells: Mapping[tuple[str, str, str, str], Any], box: Any) -> None:
        """Use `of` or `read`."""
        self._cells, self._box = cells, box

    @staticmethod
    def of(measured: Measured) -> Support:
        """Count the rows of `measured`."""
        rows = measured.rows
        cells = _cells(rows)
        names = zip(
            measured.model_id.tolist(),
            measured.system_id.tolist(),
            np.array(ENGINES)[rows.engine].tolist(),
            np.array(MODES)[rows.mode].tolist(),
            strict=True,
        )
        found: dict[tuple[str, str, str, str], dict[int, int]] = {}
        for name, cell in zip(names, cells.tolist(), strict=True):
            counts = found.setdefault(name, {})
            counts[cell] = counts.get(cell, 0) + 1
        values = _cell_values(rows)
        return Support(found, [[float(v.min()), float(v.max())] for v in values])

    def document(self) -> dict[str, Any]:
        """What `read` reads."""
        cells = [
            [*name, sorted(counts), [counts[cell] for cell in sorted(counts)]]
            for name, counts in self._cells.items()
        ]
        return {"cells": cells, "box": self._box}

    @staticmethod
    def read(document: Mapping[str, Any]) -> Support:
        """A support that `document` wrote."""
        cells = {
            tuple(names): dict(zip(keys, counts, strict=True))
            for *names, keys, counts in document["cells"]
        }
        return Support(cells, document["box"])

    def over(self, models: ModelTable, systems: SystemTable) -> Lookup:
        """Tables to look scenarios over `models` and `systems` up in."""
        return Lookup(self._cells, self._box, models, systems)


class Lookup:
    """Support as tables of integers, for the models and systems of two tables."""

    def __init__(
        self,
        cells: Mapping[tuple[str, str, str, str], Mapping[int, int]],
        box: list[list[float]],
        models: ModelTable,
        systems: SystemTable,
    ) -> None:
        self._shape = (len(models.ids), len(systems.ids), len(ENGINES), len(MODES))
        is_seen = np.zeros(self._shape, dtype=bool)
        keys, counts = [], []
        for (model, system, engine, mode), counted in cells.items():
            if model not in models.ids or system not in systems.ids:
                continue
            place = (
                models.ids[model],
                systems.ids[system],
                ENGINES.index(engine),
                MODES.index(mode),
            )
            is_seen[place] = True
            combination = int(np.ravel_multi_index(place, self._shape))
            own = np.array(list(counted), dtype=np.int64)
            keys.append(combination * _CELLS**4 + own)
            counts.append(np.array(list(counted.values())))
        self._is_seen = is_seen
        self._knows_model = np.any(is_seen, axis=(1, 2, 3), keepdims=True).ravel()
        self._knows_system = np.any(is_seen, axis=(0, 2, 3), keepdims=True).ravel()
        self._keys, self._counts = _spread(keys, counts)
        self._low, self._high = np.array(box).T

    def place(self, rows: Scenarios) -> Place:
        """Where `rows` stand."""
        where = (rows.model, rows.system, rows.engine, rows.mode)
        values = np.stack(_cell_values(rows))
        beyond = np.maximum(self._low[:, None] - values, values - self._high[:, None])
        nearby = self._nearby(np.ravel_multi_index(where, self._shape), _cells(rows))
        is_seen = self._is_seen[where] & (nearby > 0)
        kind = np.where(is_seen, 0, 1)
        kind = np.where(self._knows_system[rows.system], kind, 2)
        kind = np.where(self._knows_model[rows.model], kind, 3)
        return Place(kind, nearby, np.maximum(0.0, beyond).sum(axis=0))

    def _nearby(self, combination: Ints, cells: Ints) -> Ints:
        if len(self._keys) == 0:
            return np.zeros(len(cells), dtype=np.int64)
        keys = combination * _CELLS**4 + cells
        found = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[found] == keys, self._counts[found], 0)


def _cell_values(rows: Scenarios) -> list[Floats]:
    decode = rows.decode_tp * np.maximum(1.0, rows.decode_workers)
    devices = np.where(rows.mode == 1, np.maximum(1.0, decode), rows.tp * rows.pp)
    return [np.log2(value) for value in (rows.isl, rows.osl, rows.concurrency, devices)]


def _cells(rows: Scenarios) -> Ints:
    found = np.zeros(len(rows), dtype=np.int64)
    for value in _cell_values(rows):
        # One cell is kept free at either end for the neighbours of the outermost.
        found = found * _CELLS + np.clip(np.rint(value), 1, _CELLS - 2).astype(np.int64)
    return found


def _spread(keys: list[Ints], counts: list[Ints]) -> tuple[Ints, Ints]:
    """Sorted cells that have measured rows in them or next to them, and how many."""
    if not keys:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    own, rows = np.concatenate(keys), np.concatenate(counts)
    steps = [
        sum(step * _CELLS**power for step, power in zip(each, range(3, -1, -1), strict=True))
        for each in product((-1, 0, 1), repeat=len(_CELL_COLUMNS))
    ]
    around = (own[:, None] + np.array(steps)[None]).ravel()
    found, place = np.unique(around, return_inverse=True)
    return found, np.bincount(place, weights=np.repeat(rows, len(steps))).astype(np.int64)
