"""How far predictions are from a person's own rows: the shipped model, and the new one held out.

The error of a model on rows that it was trained on says nothing. Each own configuration, with its
whole concurrency curve, is predicted by learners that saw no row of it, combined as is best for
all other held-out rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.simulation import predictor, training
from core.simulation.dataset import Measured
from core.simulation.learners import ROOFLINE
from core.simulation.predictor import Predictor
from core.simulation.scenarios import MODES, Floats
from core.simulation.training import HEADS, Choice, HeldOut
from core.simulation.training_requests import OwnError


def measure(serving: Measured, held_out: Sequence[HeldOut]) -> dict[str, OwnError]:
    """The errors on own rows, by head; nothing of a head that was not measured.

    Args:
        serving: Rows of services, own ones among them.
        held_out: What `training.hold_out` gave for them.
    """
    shipped = Predictor(serving.models, serving.systems, predictor.trained())
    own = np.flatnonzero(serving.is_own)
    before = shipped.predict(serving.take(own).rows)
    after = _held_out_answers(serving, held_out)
    found = {}
    for head in HEADS:
        known = serving.has(head)[own]
        if known.any():
            actual = getattr(serving, head)[own][known]
            found[head] = OwnError(
                int(known.sum()),
                _mape(getattr(before, head).mean[known], actual),
                _mape(after[head][own][known], actual),
            )
    return found


def _mape(predicted: Floats, actual: Floats) -> float:
    """Mean absolute error in % of the measured value."""
    return 100 * float(np.mean(np.abs(predicted / actual - 1)))


def _held_out_answers(serving: Measured, held_out: Sequence[HeldOut]) -> dict[str, Floats]:
    """Milliseconds of each own row, by head, from the split that holds out its configuration."""
    answers = {head: np.full(len(serving), np.nan) for head in HEADS}
    splits = training.held_out_splits(serving)
    for (name, _, _), fold in zip(splits, held_out, strict=True):
        tested = fold.take(serving.is_own[fold.rows])
        if name != "configuration" or not len(tested.rows):
            continue
        others = [each.take(~np.isin(each.rows, tested.rows)) for each in held_out]
        choices = training.choose(serving, others)
        for head in HEADS:
            answers[head][tested.rows] = np.exp(_answer(serving, tested, head, choices[head]))
    return answers


def _answer(serving: Measured, tested: HeldOut, head: str, choices: dict[str, Choice]) -> Floats:
    """Logarithms of the time, put together as `Predictor` does."""
    rows = serving.rows.take(tested.rows)
    is_cpu = serving.systems.columns["is_cpu"][rows.system] > 0
    place, trust = predictor.trusted(tested.place, is_cpu)
    roofline = tested.logarithms[head][ROOFLINE]
    answer = roofline.copy()
    regimes = place.kind * len(MODES) + rows.mode
    for regime in np.unique(regimes):
        which = regimes == regime
        choice = choices[training.regime(*divmod(int(regime), len(MODES)))]
        answer[which] = choice.combination.of(
            {name: tested.logarithms[head][name][which] for name in choice.combination.learners}
        )
    return np.asarray(roofline + trust * (answer - roofline))
