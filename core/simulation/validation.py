"""How accurate predictions are on rows that nothing was trained on, chosen on or scaled with.

Whole groups are held out in turn: configurations with their concurrency curves, combinations of
model, device and engine, devices, models. For each outer fold the whole of `training.train` runs
on the other rows, with inner folds of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from core.simulation import calibration, features, learners, training
from core.simulation.dataset import Measured
from core.simulation.predictor import Band, Predictor
from core.simulation.roofline import Roofline
from core.simulation.scenarios import Floats, Ints
from core.simulation.training import HEADS, Booleans

OUTER_FOLDS = 5
_STATIC = 2


@dataclass(frozen=True)
class Split:
    """What is held out, of which rows, and the MAPE in % to stay under (must, target)."""

    name: str
    title: str
    is_disaggregated: bool
    limits: Mapping[str, tuple[float, float]]


SPLITS = (
    Split(
        "configuration",
        "unseen configuration, aggregated",
        False,
        {"tpot_ms": (11, 8), "ttft_ms": (24, 18)},
    ),
    Split(
        "combination",
        "unseen model × GPU × engine, aggregated",
        False,
        {"tpot_ms": (23, 17), "ttft_ms": (45, 35)},
    ),
    Split("device", "unseen GPU, aggregated", False, {"tpot_ms": (25, 19), "ttft_ms": (48, 37)}),
    Split("model", "unseen model, aggregated", False, {"tpot_ms": (25, 19), "ttft_ms": (48, 37)}),
    Split(
        "configuration",
        "unseen configuration, disaggregated",
        True,
        {"tpot_ms": (22, 15), "ttft_ms": (50, 35)},
    ),
)


@dataclass(frozen=True)
class Score:
    """One line of the table.

    Attributes:
        split: What was held out.
        head: `ttft_ms` or `tpot_ms`.
        source: The data file; empty for all together.
        rows: How many.
        mape: Mean absolute error in % of the measured value.
        median: Median absolute error in %.
        coverage: Share of measured values inside the 80% interval, in %.
        roofline_mape: Of the calibrated analytic model alone.
        trees_mape: Of trees that know no physics, on the same rows.
    """

    split: Split
    head: str
    source: str
    rows: int
    mape: float
    median: float
    coverage: float
    roofline_mape: float
    trees_mape: float

    @property
    def limits(self) -> tuple[float, float]:
        """The MAPE to stay under: must, target."""
        return self.split.limits[self.head]


@dataclass(frozen=True)
class Fold:
    """What one outer fold answered of the rows that it held out."""

    rows: Ints
    bands: Mapping[str, Band]
    roofline: Mapping[str, Floats]
    trees: Mapping[str, Floats]


def validate(measured: Measured, *, workers: int = 2) -> list[Score]:
    """Every line of the table: by source and together."""
    scores = []
    with ProcessPoolExecutor(workers) as pool:
        for split in SPLITS:
            jobs = [masks(measured, split, fold) for fold in range(OUTER_FOLDS)]
            folds = list(pool.map(partial(_fold, measured), jobs))
            scores += [
                score(measured, split, head, source, folds)
                for head in ("tpot_ms", "ttft_ms")
                for source in ("", *sorted(set(measured.source[measured.rows.lengths != _STATIC])))
            ]
    return scores


def static_error(measured: Measured) -> tuple[int, float]:
    """Rows of static batches, and the median error in % of their end-to-end time.

    They are not held out: the analytic model has few coefficients of its own for them.
    """
    static = measured.take(measured.rows.lengths == _STATIC)
    coefficients = calibration.calibrate(measured)
    times = Roofline(measured.models, measured.systems, coefficients).times(static.rows)
    e2e_ms = times.ttft_ms + times.tpot_ms * np.maximum(0.0, static.rows.osl - 1)
    return len(static), 100 * float(np.median(np.abs(e2e_ms / static.e2e_ms - 1)))


def masks(measured: Measured, split: Split, fold: int) -> tuple[Booleans, Booleans]:
    """Training and test masks of an outer fold; a held-out group is nowhere in training rows."""
    group = groups(measured)[split.name]
    tested = (measured.rows.lengths != _STATIC) & (
        (measured.rows.mode == 1) == split.is_disaggregated
    )
    test = np.zeros(len(measured), dtype=bool)
    test[np.flatnonzero(tested)] = training.folds_of(group[tested], OUTER_FOLDS) == fold
    return ~np.isin(group, np.unique(group[test])), test


def groups(measured: Measured) -> dict[str, npt.NDArray[np.str_]]:
    """What is held out together, by the name of a split."""
    return {
        "configuration": measured.configuration,
        "combination": measured.combination,
        "device": measured.system_id,
        "model": measured.model_id,
    }


def _fold(measured: Measured, parts: tuple[Booleans, Booleans]) -> Fold:
    train, test = parts
    known, unknown = measured.take(train), measured.take(test)
    trained = training.train(known, training.about(known))
    predictor = Predictor(measured.models, measured.systems, trained)
    prediction = predictor.predict(unknown.rows)
    trees = _without_physics(known, unknown, predictor)
    return Fold(
        np.flatnonzero(test),
        {head: getattr(prediction, head) for head in HEADS},
        {head: getattr(prediction.times, head) for head in HEADS},
        trees,
    )


def _without_physics(known: Measured, unknown: Measured, predictor: Predictor) -> dict[str, Floats]:
    """What the `free` learner says alone: it sees neither the roofline nor its parts."""
    known = known.take(known.rows.lengths != _STATIC)
    found = {}
    matrices = [
        features.matrix(
            each.rows,
            predictor.roofline.times(each.rows),
            predictor.models,
            predictor.systems,
        )
        for each in (known, unknown)
    ]
    for head in HEADS:
        unused = np.zeros(len(known))
        measured = np.log(getattr(known, head))
        learner = learners.fit("free", matrices[0], unused, measured, known.combination)
        found[head] = np.exp(learner.logarithms(matrices[1], np.zeros(len(unknown))))
    return found


def score(measured: Measured, split: Split, head: str, source: str, folds: list[Fold]) -> Score:
    """One line of the table, of the rows of `source`, or of all where it is empty."""
    rows = np.concatenate([fold.rows for fold in folds])
    which = (measured.source[rows] == source) | (source == "")
    actual = getattr(measured, head)[rows][which]

    def joined(parts: list[Floats]) -> Floats:
        return np.asarray(np.concatenate(parts)[which])

    def error(parts: list[Floats]) -> Floats:
        return np.asarray(np.abs(joined(parts) / actual - 1) * 100)

    bands = [fold.bands[head] for fold in folds]
    own = error([band.mean for band in bands])
    low, high = joined([band.low for band in bands]), joined([band.high for band in bands])
    return Score(
        split,
        head,
        source,
        int(which.sum()),
        float(own.mean()),
        float(np.median(own)),
        100 * float(np.mean((actual >= low) & (actual <= high))),
        float(error([fold.roofline[head] for fold in folds]).mean()),
        float(error([fold.trees[head] for fold in folds]).mean()),
    )
