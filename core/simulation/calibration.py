"""Fits the roofline's coefficients to measured rows, all together, each held near its prior.

A coefficient of one engine or one family of devices is the product of what all of them share and
of its own deviation, so that an engine with few rows, or none, takes after the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares
from threadpoolctl import threadpool_limits

from core.simulation.dataset import Measured
from core.simulation.roofline import COEFFICIENTS, PRIOR, SIGMA, Roofline
from core.simulation.scenarios import ENGINES, FAMILIES, PRECISIONS, Floats, Ints, precision_of

_STEP = 1e-3
_ROUNDS = 25
# One prior counts like this many typical rows.
_PRIOR_STRENGTH = 5.0
_LOSS_SCALE = 0.25
_STATIC = 2


@dataclass(frozen=True)
class _Column:
    """The coefficients of one name, changed together because each row depends on one of them."""

    indexes: Ints  # (kinds,): their places in the vector
    kind: Ints  # (rows,): which of them a row depends on; all 0 for a lone one


def calibrate(measured: Measured, start: Floats = PRIOR) -> Floats:
    """Logarithms of COEFFICIENTS that fit `measured` best, sought from `start` on.

    Runs of a service come first. Static batches are of another kind: they only set the
    coefficients of engines and devices that no service was measured on.
    """
    # A thread of BLAS that waits for a busy core keeps the other core busy with waiting.
    with threadpool_limits(1, user_api="blas"):
        return _calibrated(measured, start)


def _calibrated(measured: Measured, start: Floats) -> Floats:
    is_static = measured.rows.lengths == _STATIC
    if is_static.all():
        return _fit(measured, PRIOR, np.ones(len(PRIOR), dtype=bool), start)
    serving = measured.take(~is_static)
    found = _fit(serving, PRIOR, np.ones(len(PRIOR), dtype=bool), start)
    untouched = ~_used(serving)
    if is_static.any() and untouched.any():
        found = _fit(measured.take(is_static), found, untouched, found)
    return found


def _fit(measured: Measured, prior: Floats, free: npt.NDArray[np.bool_], start: Floats) -> Floats:
    """The vector near `prior` that fits `measured`, with only the `free` coefficients changed.

    Minimises soft-L1 residuals of log TTFT and log TPOT, or of log end-to-end latency for static
    batches. Large groups of model, system and engine are weighted down to the root of their size.
    """
    weights = _weights(measured)
    columns = _columns(measured)
    basis, sigma = _hierarchy(free)

    def vector(unknowns: Floats) -> Floats:
        return prior + basis @ unknowns

    def residuals(unknowns: Floats) -> Floats:
        errors = _errors(measured, vector(unknowns), weights)
        return np.concatenate([errors, unknowns / sigma * _PRIOR_STRENGTH])

    def jacobian(unknowns: Floats) -> Floats:
        logarithms = vector(unknowns)
        base = _errors(measured, logarithms, weights)
        by_coefficient = np.zeros((len(base), len(prior)))
        stacked = len(base) // len(measured)
        rows = np.arange(len(base))
        for column in columns:
            moved = logarithms.copy()
            moved[column.indexes] += _STEP
            change = (_errors(measured, moved, weights) - base) / _STEP
            by_coefficient[rows, column.indexes[np.tile(column.kind, stacked)]] = change
        return np.vstack([by_coefficient @ basis, np.diag(_PRIOR_STRENGTH / sigma)])

    solved = least_squares(
        residuals,
        _unknowns(start - prior, basis, sigma),
        jac=jacobian,
        loss="soft_l1",
        f_scale=_LOSS_SCALE,
        max_nfev=_ROUNDS,
        ftol=1e-4,
    )
    return vector(np.asarray(solved.x))


def _hierarchy(free: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """A basis of the free coefficients, and the standard deviation of each of its members.

    One member a coefficient, and one more for what the coefficients of one name share.
    """
    places = np.flatnonzero(free)
    members = [np.eye(len(PRIOR))[place] for place in places]
    sigma = [SIGMA[place] for place in places]
    for indexes in _by_name().values():
        chosen = np.array([index for index in indexes if free[index]])
        if len(chosen) > 1:
            shared = np.zeros(len(PRIOR))
            shared[chosen] = 1.0
            members.append(shared)
            sigma.append(SIGMA[chosen[0]])
    return np.array(members).T, np.array(sigma)


def _unknowns(change: Floats, basis: Floats, sigma: Floats) -> Floats:
    """The likeliest members of the basis that add up to `change`."""
    scaled = basis * sigma
    return np.asarray(sigma * np.linalg.lstsq(scaled, change, rcond=None)[0])


def _by_name() -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, each in enumerate(COEFFICIENTS):
        found.setdefault(each.name.split(":")[0], []).append(index)
    return found


def _errors(measured: Measured, logarithms: Floats, weights: Floats) -> Floats:
    """Weighted log errors of TPOT, TTFT and end-to-end latency, stacked; 0 where not measured."""
    times = Roofline(measured.models, measured.systems, logarithms).times(measured.rows)
    rows = measured.rows
    e2e_ms = times.ttft_ms + times.tpot_ms * np.maximum(0.0, rows.osl - 1)
    is_static = rows.lengths == _STATIC
    pairs = (
        (times.tpot_ms, measured.tpot_ms, ~is_static & measured.has("tpot_ms")),
        (times.ttft_ms, measured.ttft_ms, ~is_static & measured.has("ttft_ms")),
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
    return np.asarray((np.median(sizes) / sizes) ** 0.25 * measured.weight)


def _columns(measured: Measured) -> list[_Column]:
    kinds = _kinds(measured)
    found = []
    for indexes in _by_name().values():
        of_kinds = tuple(COEFFICIENTS[index].name.partition(":")[2] for index in indexes)
        kind = kinds.get(of_kinds, np.zeros(len(measured), dtype=np.int64))
        found.append(_Column(np.array(indexes), kind))
    return found


def _kinds(measured: Measured) -> dict[tuple[str, ...], Ints]:
    rows = measured.rows
    family = measured.systems.columns["family"][rows.system].astype(np.int64)
    precision = precision_of(rows, measured.models)
    return {FAMILIES: family, PRECISIONS: precision, ENGINES: rows.engine}


def _used(measured: Measured) -> npt.NDArray[np.bool_]:
    """Which coefficients some row of `measured` depends on."""
    found = np.zeros(len(PRIOR), dtype=bool)
    for column in _columns(measured):
        found[column.indexes[np.unique(column.kind)]] = True
    return found


def describe(logarithms: Floats) -> dict[str, float]:
    """Every coefficient by name."""
    values = np.exp(logarithms)
    return {each.name: float(value) for each, value in zip(COEFFICIENTS, values, strict=True)}


def from_description(values: dict[str, float]) -> Floats:
    """The vector that `describe` described; a coefficient that is new since keeps its prior."""
    return np.log([values.get(each.name, each.median) for each in COEFFICIENTS])
