"""Trains the predictor on measured rows, and writes and reads what was trained.

How learners are combined, and how wide the error bands are, is chosen on rows that were held out:
whole configurations, combinations, devices and models in turn, so that each kind of support has
its own choice. Everything is deterministic.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.simulation import calibration, dataset, features, learners
from core.simulation.dataset import Measured
from core.simulation.learners import COMBINATIONS, LEAN, RECIPES, ROOFLINE, Combination, Learner
from core.simulation.roofline import Roofline
from core.simulation.scenarios import MODES, Floats, Ints
from core.simulation.support import KINDS, Place, Support

PATH = Path(__file__).parent / "data" / "trained.json"
HEADS = ("ttft_ms", "tpot_ms")
COVERAGE = 0.8
_STATIC = 2
_FOLDS = 3
# Rows nearby from which on a seen scenario has the narrower bands.
NEARBY_STEPS = (4, 12)
_FEWEST_ROWS = 30

# Changes when the same data give another model: with the physics, the features or the recipes.
VERSION = "2"

Booleans = npt.NDArray[np.bool_]
Choices = Mapping[str, Mapping[str, "Choice"]]
# Told how far it is: how many parts of the work are done, of how many, and which comes next.
Tick = Callable[[int, int, str], None]


@dataclass(frozen=True)
class About:
    """Where a trained model comes from.

    Attributes:
        version: Of the method.
        data_hash: SHA-256 of the cleaned rows.
        data_date: The day of the newest measurement, ISO 8601.
        rows: Measured rows.
    """

    version: str
    data_hash: str
    data_date: str
    rows: int


@dataclass(frozen=True)
class Choice:
    """For one kind of support: how learners are combined, and the bounds of log(measured / answer).

    `low` and `high` have one entry for each range that NEARBY_STEPS makes of the rows nearby.
    """

    combination: Combination
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class Trained:
    """All that predictions need; `choices` and `learners` by head, and by kind and mode."""

    coefficients: Floats
    learners: Mapping[str, Mapping[str, Learner]]
    choices: Choices
    support: Support
    about: About


def regime(kind: int, mode: int) -> str:
    """The key of `Trained.choices`."""
    return f"{KINDS[kind]} {MODES[mode]}"


def band_of(nearby: Ints) -> Ints:
    """Which of a choice's bounds hold for so many rows nearby."""
    return np.searchsorted(NEARBY_STEPS, nearby, side="right")


def _silent(done: int, total: int, what: str) -> None:
    """For those who need not know how far it is."""


def train_shipped(*, workers: int = 1, tick: Tick = _silent) -> Trained:
    """Train on the rows that ship with Bud."""
    measured = dataset.load()
    return train(measured, about(measured), workers=workers, tick=tick)


def about(measured: Measured) -> About:
    """Of the rows that ship with Bud."""
    return About(VERSION, dataset.data_hash(), dataset.data_date(), len(measured))


def train(measured: Measured, about: About, *, workers: int = 1, tick: Tick = _silent) -> Trained:
    """Train on `measured`; `about` says where it came from and travels with the result."""
    parts = 2 + len(held_out_splits(served(measured)))
    tick(0, parts, "calibrating the roofline")
    coefficients = calibration.calibrate(measured)
    serving = served(measured)
    held_out = hold_out(
        serving,
        coefficients,
        workers=workers,
        tick=lambda done, _, what: tick(1 + done, parts, what),
    )
    tick(parts - 1, parts, "training the learners")
    return learn(serving, coefficients, choose(serving, held_out), about)


def served(measured: Measured) -> Measured:
    """The rows of services: what is learnt from; static batches only calibrate."""
    return measured.take(measured.rows.lengths != _STATIC)


def hold_out(
    serving: Measured, coefficients: Floats, *, workers: int = 1, tick: Tick = _silent
) -> list[HeldOut]:
    """What is said of the rows of each held-out split by learners trained on the others.

    Args:
        serving: Rows of services.
        coefficients: Where the calibration of each split starts.
        workers: Processes to work with.
        tick: Called before the first split and after each.
    """
    splits = held_out_splits(serving)
    names = [
        f"{name} not seen, {number % _FOLDS + 1} of {_FOLDS}"
        for number, (name, _, _) in enumerate(splits)
    ]
    tick(0, len(splits), names[0])
    found = []
    for each in _mapped(partial(_held_out, serving, coefficients), splits, workers):
        found.append(each)
        tick(len(found), len(splits), names[min(len(found), len(splits) - 1)])
    return found


def choose(serving: Measured, held_out: list[HeldOut]) -> dict[str, dict[str, Choice]]:
    """How learners are combined, by head and by kind and mode."""
    return {head: _choices(serving, head, held_out) for head in HEADS}


def learn(serving: Measured, coefficients: Floats, choices: Choices, about: About) -> Trained:
    """The learners that `choices` need, trained on every row."""
    return Trained(
        coefficients,
        fit_learners(serving, coefficients, _needed(choices)),
        choices,
        Support.of(serving),
        about,
    )


def _mapped(function: Any, items: list[Any], workers: int) -> Iterator[Any]:
    if workers <= 1:
        yield from map(function, items)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(function, items)


def held_out_splits(serving: Measured) -> list[tuple[str, Booleans, Booleans]]:
    """Names, training and test masks: what each kind of support would be asked about."""
    groups = {
        "configuration": serving.configuration,
        "combination": serving.combination,
        "device": serving.system_id,
        "model": serving.model_id,
    }
    found = []
    for name, group in groups.items():
        fold = folds_of(group, _FOLDS)
        found += [(name, fold != each, fold == each) for each in range(_FOLDS)]
    return found


def folds_of(groups: npt.NDArray[np.str_], folds: int) -> Ints:
    """A fold for each row; rows of a group share it, and folds are of like size."""
    _, inverse = np.unique(groups, return_inverse=True)
    sizes = np.bincount(inverse)
    # Ties are broken by a fixed scramble: neighbouring names must not end up in one fold.
    scramble = np.random.default_rng(0).permutation(len(sizes))
    load = np.zeros(folds, dtype=np.int64)
    fold_of_group = np.zeros(len(sizes), dtype=np.int64)
    for group in sorted(range(len(sizes)), key=lambda each: (-sizes[each], scramble[each])):
        fold_of_group[group] = np.argmin(load)
        load[fold_of_group[group]] += sizes[group]
    return fold_of_group[inverse]


@dataclass(frozen=True)
class HeldOut:
    """Predictions of rows that nothing was trained on."""

    rows: Ints
    place: Place
    logarithms: Mapping[str, Mapping[str, Floats]]

    def take(self, which: Booleans) -> HeldOut:
        """Some of them."""
        place = self.place
        return HeldOut(
            self.rows[which],
            Place(place.kind[which], place.nearby[which], place.beyond[which]),
            {head: _at(by_name, which) for head, by_name in self.logarithms.items()},
        )


def _held_out(serving: Measured, start: Floats, split: tuple[str, Booleans, Booleans]) -> HeldOut:
    _, train_mask, test_mask = split
    return predict_held_out(serving, start, train_mask, test_mask)


def predict_held_out(
    serving: Measured, start: Floats, train_mask: Booleans, test_mask: Booleans
) -> HeldOut:
    """What every learner, trained on one part of the rows, says of another."""
    known, unknown = serving.take(train_mask), serving.take(test_mask)
    coefficients = calibration.calibrate(known, start=start)
    trained = fit_learners(known, coefficients, dict.fromkeys(HEADS, tuple(RECIPES)))
    lookup = Support.of(known).over(serving.models, serving.systems)
    times = Roofline(serving.models, serving.systems, coefficients).times(unknown.rows)
    matrix = features.matrix(unknown.rows, times, serving.models, serving.systems)
    logarithms = {}
    for head in HEADS:
        roofline = np.log(getattr(times, head))
        logarithms[head] = {ROOFLINE: roofline} | {
            name: each.logarithms(matrix, roofline) for name, each in trained[head].items()
        }
    return HeldOut(np.flatnonzero(test_mask), lookup.place(unknown.rows), logarithms)


def fit_learners(
    serving: Measured, coefficients: Floats, names: Mapping[str, tuple[str, ...]]
) -> dict[str, dict[str, Learner]]:
    """The named learners of each head."""
    times = Roofline(serving.models, serving.systems, coefficients).times(serving.rows)
    matrix = features.matrix(serving.rows, times, serving.models, serving.systems)
    found: dict[str, dict[str, Learner]] = {}
    for head in HEADS:
        known = serving.has(head)
        roofline = np.log(getattr(times, head)[known])
        measured = np.log(getattr(serving, head)[known])
        groups, emphasis = serving.combination[known], serving.emphasis[known]
        found[head] = {
            name: learners.fit(name, matrix[known], roofline, measured, groups, emphasis)
            for name in names[head]
        }
    return found


def _needed(choices: Choices) -> dict[str, tuple[str, ...]]:
    found = {}
    for head, by_regime in choices.items():
        used = {name for each in by_regime.values() for name in each.combination.learners}
        found[head] = tuple(name for name in RECIPES if name in used)
    return found


def _choices(serving: Measured, head: str, held_out: list[HeldOut]) -> dict[str, Choice]:
    rows = np.concatenate([each.rows for each in held_out])
    known = serving.has(head)[rows]
    rows = rows[known]
    kind = np.concatenate([each.place.kind for each in held_out])[known]
    nearby = np.concatenate([each.place.nearby for each in held_out])[known]
    logarithms = {
        name: np.concatenate([each.logarithms[head][name] for each in held_out])[known]
        for name in (ROOFLINE, *RECIPES)
    }
    measured = np.log(getattr(serving, head)[rows])
    mode = serving.rows.mode[rows]
    band = band_of(nearby)
    found = {}
    for mode_index in range(len(MODES)):
        for kind_index in range(len(KINDS)):
            # What was never measured is of many kinds: one choice for all of it is steadier.
            alike = (kind == 0) if kind_index == 0 else (kind > 0)
            which = alike & (mode == mode_index)
            which = which if which.sum() >= _FEWEST_ROWS else alike
            combination = _best(_at(logarithms, which), measured[which], is_seen=kind_index == 0)
            own = which & (kind == kind_index)
            own = own if own.sum() >= _FEWEST_ROWS else which
            errors = measured[own] - combination.of(_at(logarithms, own))
            low, high = _bands(errors, band[own])
            found[regime(kind_index, mode_index)] = Choice(combination, low, high)
    return found


def _at(logarithms: Mapping[str, Floats], which: Booleans) -> dict[str, Floats]:
    return {name: each[which] for name, each in logarithms.items()}


def _best(logarithms: Mapping[str, Floats], measured: Floats, *, is_seen: bool) -> Combination:
    """The combination of least MAPE; where nothing was measured the lean learner has a part."""
    candidates = (each for each in COMBINATIONS if is_seen or LEAN in each.learners)
    return min(
        candidates,
        key=lambda each: float(np.mean(np.abs(np.expm1(each.of(logarithms) - measured)))),
    )


def _bands(errors: Floats, band: Ints) -> tuple[tuple[float, ...], tuple[float, ...]]:
    bounds = []
    for index in range(len(NEARBY_STEPS) + 1):
        own = errors[band == index]
        bounds.append(_bounds(own if len(own) >= _FEWEST_ROWS else errors))
    low, high = zip(*bounds, strict=True)
    return low, high


def _bounds(errors: Floats) -> tuple[float, float]:
    """Split conformal: the quantiles that hold for one more row like these."""
    tail = (1 - COVERAGE) / 2
    level = min(1.0, (1 - tail) * (1 + 1 / len(errors)))
    low, high = np.quantile(errors, [1 - level, level])
    return min(float(low), -0.01), max(float(high), 0.01)


def write(trained: Trained, path: Path = PATH) -> None:
    """Write it as JSON, whole or not at all."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    fresh.write_text(to_json(trained), encoding="utf-8")
    fresh.replace(path)


def read(path: Path = PATH) -> Trained:
    """What `write` wrote.

    Raises:
        FileNotFoundError: Nothing was trained; `bud simulator train` does.
    """
    return from_json(path.read_text(encoding="utf-8"))


def to_json(trained: Trained) -> str:
    """A trained model as text; the same model is the same text."""
    document = {
        "about": asdict(trained.about),
        "coefficients": calibration.describe(trained.coefficients),
        "choices": describe_choices(trained.choices),
        "support": trained.support.document(),
        "learners": {
            head: {name: each.document() for name, each in by_name.items()}
            for head, by_name in trained.learners.items()
        },
    }
    return json.dumps(document, separators=(",", ":"))


def from_json(text: str) -> Trained:
    """What `to_json` wrote."""
    document = json.loads(text)
    return Trained(
        calibration.from_description(document["coefficients"]),
        {
            head: {name: Learner.read(name, each) for name, each in by_name.items()}
            for head, by_name in document["learners"].items()
        },
        choices_from(document["choices"]),
        Support.read(document["support"]),
        About(**document["about"]),
    )


def describe_choices(choices: Choices) -> dict[str, dict[str, Any]]:
    """As `choices_from` reads them, in what JSON can hold."""
    return {
        head: {
            name: {
                "learners": each.combination.learners,
                "lowest": each.combination.lowest,
                "low": each.low,
                "high": each.high,
            }
            for name, each in by_regime.items()
        }
        for head, by_regime in choices.items()
    }


def choices_from(document: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Choice]]:
    """The choices that `describe_choices` described."""
    return {
        head: {
            name: Choice(
                Combination(tuple(each["learners"]), each["lowest"]),
                tuple(each["low"]),
                tuple(each["high"]),
            )
            for name, each in by_regime.items()
        }
        for head, by_regime in document.items()
    }
