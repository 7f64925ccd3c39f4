"""Puts boards on one scale, from the order in which each ranks its models.

Numbers of different boards cannot be averaged: one counts wins, another passed tests, and each
lists other models. Of every board only the order of its models is kept, as normal scores (the
values that a normal distribution would show at these ranks; Blom 1958). Models on several boards
link them: a board that lists strong models only is recognised as one, because the models that it
shares with others stand low on it. The model is factor analysis with one factor,

    score[i, b] = slope[b] * ability[i] + offset[b] + noise[b],

fitted by expectation maximisation (Rubin & Thayer 1982) to the models that stand on two boards or
more, as test equating fits common items. Models of one board say nothing of how boards relate:
boards do not pick their models at random (new boards list new, strong models), and a fit that took
all models for draws of one population would sooner call such a board noise. That a board lists
models by their ability does not bias the fit; that it lists only models which do well on it for
their ability would, which is why reports of vendors about themselves never enter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_ROUNDS = 300
_START_ROUNDS = 200
_TOLERANCE = 1e-4
# What a board is taken to be like before its models say more, and how many models that counts as.
_PRIOR_SLOPE, _SLOPE_MODELS = 1.0, 12.0
_PRIOR_NOISE, _NOISE_MODELS = 0.3, 4.0
_SLOPES = (0.4, 2.5)
_LEAST_NOISE = 0.05
# Wide enough to hold shared models where their boards put them.
_SHARED_VARIANCE = 4.0
_LEAST_VARIANCE = 0.1


@dataclass(frozen=True)
class Linked:
    """Boards on one scale, on which the listed models have mean 0 and standard deviation 1.

    Attributes:
        slope: For each board, how much its normal scores follow the ability.
        offset: For each board, the normal score of a model of ability 0 on it.
        noise: For each board, the variance of its normal scores about the line.
        offset_variance: For each board, the variance of `offset`, in normal scores: the fewer
            models it shares, the larger.
        expected: For each model, the mean ability of the models on its boards.
        spread: The variance of abilities about `expected`.
        shared: For each board, how many of its models stand on another one.
    """

    slope: Floats
    offset: Floats
    noise: Floats
    offset_variance: Floats
    expected: Floats
    spread: float
    shared: Indices


def normal_scores(values: Floats, board: Indices) -> Floats:
    """The normal score of each value among those of its board; ties share their mean rank.

    Args:
        values: Scores, more is better.
        board: The board of each, numbered from 0.
    """
    order = np.lexsort((values, board))
    sorted_board, sorted_values = board[order], values[order]
    new_board = np.r_[True, sorted_board[1:] != sorted_board[:-1]]
    new_tie = new_board | np.r_[True, sorted_values[1:] != sorted_values[:-1]]
    starts = np.flatnonzero(new_board)
    size = np.diff(np.r_[starts, len(values)])
    position = np.arange(len(values)) - np.repeat(starts, size)
    tie = np.cumsum(new_tie) - 1
    rank = (np.bincount(tie, position) / np.bincount(tie))[tie] + 1.0
    found = np.empty(len(values))
    found[order] = ndtri((rank - 0.375) / (np.repeat(size, size) + 0.25))
    return found


def link(model: Indices, board: Indices, score: Floats, models: int, boards: int) -> Linked:
    """Fit the boards' lines.

    Args:
        model: The model of each entry, from 0 to `models` - 1.
        board: The board of each entry, from 0 to `boards` - 1.
        score: The normal score of each entry within its board.
        models: How many models there are.
        boards: How many boards there are.
    """
    on_boards = np.bincount(model, minlength=models)
    is_shared = on_boards[model] > 1
    shared = np.bincount(board[is_shared], minlength=boards)
    slope, offset, noise = _fit(
        model[is_shared], board[is_shared], score[is_shared], models, boards
    )
    offset_variance = _offset_variance(model, board, slope, noise, models)
    precision = (slope**2 / (noise + offset_variance))[board]
    ability = (score - offset[board]) / slope[board]
    known = np.bincount(model, precision, models)
    listed = known > 0
    mean = np.bincount(model, precision * ability, models) / np.where(listed, known, 1.0)
    of_board = np.bincount(board, mean[model], boards) / np.bincount(board, minlength=boards)
    expected = np.bincount(model, of_board[board], models) / np.maximum(on_boards, 1)
    error = float((1.0 / known[listed]).mean())
    middle, variance = float(mean[listed].mean()), float(mean[listed].var())
    deviation = float(np.sqrt(max(variance - error, variance / 4, _LEAST_VARIANCE)))
    apart = float(((mean - expected)[listed] ** 2).mean())
    return Linked(
        slope=slope * deviation,
        offset=offset + slope * middle,
        noise=noise,
        offset_variance=offset_variance,
        expected=np.where(listed, (expected - middle) / deviation, 0.0),
        spread=max((apart - error) / deviation**2, _LEAST_VARIANCE),
        shared=shared.astype(np.int64),
    )


def _fit(
    model: Indices, board: Indices, score: Floats, models: int, boards: int
) -> tuple[Floats, Floats, Floats]:
    """Slopes, offsets and noise from the entries of shared models; priors where there is none."""
    on_board = np.bincount(board, minlength=boards).astype(float)
    some = np.maximum(on_board, 1)
    score_mean = np.bincount(board, score, boards) / some
    offset = _start(model, board, score, models, boards)
    slope, noise = np.full(boards, _PRIOR_SLOPE), np.full(boards, _PRIOR_NOISE)
    # A slope and an offset are fitted to each board: two of its models say nothing of its noise.
    freedom = np.maximum(on_board + _NOISE_MODELS - 2, 1.0)
    for _ in range(_ROUNDS):
        pull = slope / noise
        known = np.bincount(model, (slope * pull)[board], models)
        variance = 1.0 / (1.0 / _SHARED_VARIANCE + known)
        apart = pull[board] * (score - offset[board])
        ability = variance * np.bincount(model, apart, models)
        mean = np.bincount(board, ability[model], boards) / some
        beyond = ability[model] - mean[board]
        spread = np.bincount(board, beyond**2 + variance[model], boards) + _SLOPE_MODELS
        follows = np.bincount(board, beyond * score, boards) + _SLOPE_MODELS * _PRIOR_SLOPE
        new_slope = np.clip(follows / spread, *_SLOPES)
        new_offset = score_mean - new_slope * mean
        left = (score - new_offset[board] - new_slope[board] * ability[model]) ** 2
        unsure = new_slope**2 * np.bincount(board, variance[model], boards)
        total = np.bincount(board, left, boards) + unsure + _NOISE_MODELS * _PRIOR_NOISE
        noise = np.maximum(total / freedom, _LEAST_NOISE)
        moved = np.abs(np.r_[new_slope - slope, new_offset - offset]).max(initial=0.0)
        slope, offset = new_slope, new_offset
        if moved < _TOLERANCE:
            break
    return slope, offset, noise


def _start(model: Indices, board: Indices, score: Floats, models: int, boards: int) -> Floats:
    """Offsets to begin from, by least squares with equal slopes.

    Expectation maximisation climbs to the nearest peak only; begun from offsets of zero, that is
    one where a board of strong models is taken for one of bad measurements.
    """
    on_board = np.maximum(np.bincount(board, minlength=boards), 1)
    of_model = np.maximum(np.bincount(model, minlength=models), 1)
    offset: Floats = np.zeros(boards)
    for _ in range(_START_ROUNDS):
        ability = np.bincount(model, score - offset[board], models) / of_model
        own = np.bincount(board, score - ability[model], boards) / on_board
        moved = float(np.abs(own - offset).max(initial=0.0))
        offset = own
        if moved < _TOLERANCE:
            break
    return offset


def _offset_variance(
    model: Indices, board: Indices, slope: Floats, noise: Floats, models: int
) -> Floats:
    """How unsure each board's place on the scale is: the fewer models it shares, the more.

    A shared model says where the board stands with the variance of the board's noise and of what
    the other boards know of its ability. Without one, only that boards lie about one standard
    deviation apart. A single board has no place to be unsure of.
    """
    boards = len(slope)
    if boards == 1:
        return np.zeros(1)
    information = slope**2 / noise
    of_others = np.bincount(model, information[board], models)[model] - information[board]
    is_shared = of_others > 1e-9
    others = 1.0 / np.where(is_shared, of_others, 1.0)
    weight = is_shared / (noise[board] + slope[board] ** 2 * others)
    return np.asarray(1.0 / (np.bincount(board, weight, boards) + 1.0 / slope**2))
