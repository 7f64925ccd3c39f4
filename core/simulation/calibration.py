"""Fits the roofline's coefficients to measured rows, all together, each held near its prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from core.simulation import memory
from core.simulation.dataset import Measured
from core.simulation.roofline import COEFFICIENTS, PRIOR, SIGMA, Roofline
from core.simulation.scenarios import ENGINES, FAMILIES, PRECISIONS, Floats, Ints

_STEP = 1e-3
_ROUNDS = 25
# Runs of static batches tell about devices that the serving data lack; they are many, and of
# another kind, so all of them together count as much as this share of the serving rows.
_STATIC_SHARE = 0.25
_STATIC = 2


@dataclass(frozen=True)
class _Column:
    """The coefficients of one name, changed together because each row depends on one of them."""

    indexes: Ints  # (kinds,): their places in the vector
    kind: Ints  # (rows,): which of them a row depends on; all 0 for a lone one


def calibrate(measured: Measured, start: Floats = PRIOR) -> Floats:
    """Logarithms of COEFFICIENTS that fit `measured` best.

    Minimises soft-L1 residuals of log TTFT, log TPOT and, for static batches, log end-to-end
    latency. Large groups of model, system and engine are weighted down to the root of their size.
    """
    weights = _weights(measured)
    columns = _columns(measured)

    def residuals(logarithms: Floats) -> Floats:
        prior = (logarithms - PRIOR) / SIGMA * _PRIOR_STRENGTH
        return np.concatenate([_errors(measured, logarithms, weights), prior])

    def jacobian(logarithms: Floats) -> Floats:
        base = _errors(measured, logarithms, weights)
        found = np.zeros((len(base) + len(PRIOR), len(PRIOR)))
        stacked = len(base) // len(measured)
        rows = np.arange(len(base))
        for column in columns:
            moved = logarithms.copy()
            moved[column.indexes] += _STEP
            change = (_errors(measured, moved, weights) - base) / _STEP
            found[rows, column.indexes[np.tile(column.kind, stacked)]] = change
        found[len(base) :] = np.diag(_PRIOR_STRENGTH / SIGMA)
        return found

    solved = least_squares(
        residuals, start, jac=jacobian, loss="soft_l1", f_scale=0.25, max_nfev=_ROUNDS, ftol=1e-4
    )
    return np.asarray(solved.x)


# One prior counts like this many typical rows.
_PRIOR_STRENGTH = 0.5


def _errors(measured: Measured, logarithms: Floats, weights: Floats) -> Floats:
    """Weighted log errors of TPOT, TTFT and end-to-end latency, stacked; 0 where not measured."""
    times = Roofline(measured.models, measured.systems, logarithms).times(measured.rows)
    rows = measured.rows
    e2e_ms = times.ttft_ms + times.tpot_ms * np.maximum(0.0, rows.osl - 1)
    is_static = rows.lengths == _STATIC
    pairs = (
        (times.tpot_ms, measured.tpot_ms, ~is_static),
        (times.ttft_ms, measured.ttft_ms, ~is_static),
        (e2e_ms, measured.e2e_ms, is_static),
    )
    return np.concatenate(
        [
            np.where(use, np.log(predicted / np.where(use, actual, 1.0)), 0.0) * weights
            for predicted, actual, use in pairs
        ]
    )


def _weights(measured: Measured) -> Floats:
    groups = np.unique(measured.combination, return_inverse=True)[1]
    sizes = np.bincount(groups)[groups]
    weights = (np.median(sizes) / sizes) ** 0.25
    is_static = measured.rows.lengths == _STATIC
    if is_static.any() and not is_static.all():
        share = _STATIC_SHARE * np.sum(~is_static) / np.sum(is_static)
        weights = weights * np.where(is_static, np.sqrt(min(1.0, share)), 1.0)
    return weights * measured.weight


def _columns(measured: Measured) -> list[_Column]:
    rows = measured.rows
    family = measured.systems.columns["family"][rows.system].astype(np.int64)
    precision = memory.precision_of(rows, measured.models)
    kinds = {FAMILIES: family, PRECISIONS: precision, ENGINES: rows.engine}
    places: dict[str, list[int]] = {}
    for index, each in enumerate(COEFFICIENTS):
        places.setdefault(each.name.split(":")[0], []).append(index)
    found = []
    for name, indexes in places.items():
        of_kinds = tuple(COEFFICIENTS[index].name.partition(":")[2] for index in indexes)
        kind = kinds.get(of_kinds, np.zeros(len(rows), dtype=np.int64))
        found.append(_Column(np.array(indexes), kind))
    return found


def describe(logarithms: Floats) -> dict[str, float]:
    """Every coefficient by name."""
    values = np.exp(logarithms)
    return {each.name: float(value) for each, value in zip(COEFFICIENTS, values, strict=True)}


def from_description(values: dict[str, float]) -> Floats:
    """The vector that `describe` described; a coefficient that is new since keeps its prior."""
    return np.log([values.get(each.name, each.median) for each in COEFFICIENTS])
