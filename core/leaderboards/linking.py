"""Puts boards on one scale, from the order in which each ranks its models.

Numbers of different boards cannot be averaged: one counts wins, another passed tests, and each
lists other models. Of every board only the order of its models is kept, as normal scores (the
values that a normal distribution would show at these ranks; Blom 1958). Models on several boards
link them: a board that lists strong models only is recognised as one. The model is factor analysis
with one factor and missing values,

    score[i, b] = slope[b] * ability[i] + offset[b] + noise[b],    ability ~ N(0, 1),

fitted by expectation maximisation (Rubin & Thayer 1982). That models are missing from boards by
their ability (old or weak models are not run on new boards) does not bias it: given the ability,
what is missing says nothing more. A board that lists only models that do well on it, given their
ability, would bias it; that is why reports of vendors about themselves never enter.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_ROUNDS = 400
_START_ROUNDS = 200
_TOLERANCE = 1e-4
# What a board is taken to be like before its models say more, and how many models that counts as.
_PRIOR_SLOPE = 1.0
_PRIOR_NOISE = 0.25
_PRIOR_MODELS = 3.0
_LEAST_SLOPE = 0.4
_LEAST_NOISE = 0.05


@dataclass(frozen=True)
class Linked:
    """Boards on one scale, on which abilities have mean 0 and standard deviation 1.

    Attributes:
        slope: For each board, how much its order follows the ability.
        offset: For each board, the normal score of a model of ability 0 on it.
        noise: For each board, the variance of its normal scores about the line.
        offset_variance: For each board, the variance of `offset`, in normal scores.
        ability: For each model, the mean given all its boards.
        variance: For each model, the variance of its ability.
    """

    slope: Floats
    offset: Floats
    noise: Floats
    offset_variance: Floats
    ability: Floats
    variance: Floats


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
    on_board = np.bincount(board, minlength=boards).astype(float)
    # A slope and an offset are fitted to each board: two of its models say nothing of its noise.
    weight = np.maximum(on_board + _PRIOR_MODELS - 2, 1.0)
    score_mean = np.bincount(board, score, boards) / np.maximum(on_board, 1)
    slope, offset = _start(model, board, score, models, boards)
    noise = np.full(boards, _PRIOR_NOISE)
    ability, variance = np.zeros(models), np.ones(models)
    for _ in range(_ROUNDS):
        pull = slope / noise
        known = np.bincount(model, (slope * pull)[board], models)
        variance = np.asarray(1.0 / (1.0 + known))
        apart = pull[board] * (score - offset[board])
        ability = variance * np.bincount(model, apart, models)
        mean = np.bincount(board, ability[model], boards) / np.maximum(on_board, 1)
        beyond = ability[model] - mean[board]
        spread = np.bincount(board, beyond**2 + variance[model], boards)
        shared = np.bincount(board, beyond * score, boards)
        new_slope = np.maximum(
            (shared + _PRIOR_MODELS * _PRIOR_SLOPE) / (spread + _PRIOR_MODELS), _LEAST_SLOPE
        )
        new_offset = score_mean - new_slope * mean
        left = (score - new_offset[board] - new_slope[board] * ability[model]) ** 2
        unsure = new_slope**2 * np.bincount(board, variance[model], boards)
        total = np.bincount(board, left, boards) + unsure + _PRIOR_MODELS * _PRIOR_NOISE
        noise = np.maximum(total / weight, _LEAST_NOISE)
        moved = np.abs(np.r_[new_slope - slope, new_offset - offset]).max(initial=0.0)
        slope, offset = new_slope, new_offset
        if moved < _TOLERANCE:
            break
    unsure_offset = _offset_variance(model, board, slope, noise, models)
    return Linked(slope, offset, noise, unsure_offset, ability, variance)


def _start(
    model: Indices, board: Indices, score: Floats, models: int, boards: int
) -> tuple[Floats, Floats]:
    """Slopes and offsets to begin from: every board has the same slope, and no prior.

    Expectation maximisation climbs to the nearest peak only; from offsets of zero that can be one
    where a board of weak models is taken for one of bad measurements.
    """
    on_board = np.maximum(np.bincount(board, minlength=boards), 1)
    of_model = np.maximum(np.bincount(model, minlength=models), 1)
    offset = np.zeros(boards)
    for _ in range(_START_ROUNDS):
        ability = np.bincount(model, score - offset[board], models) / of_model
        moved = np.bincount(board, score - ability[model], boards) / on_board - offset
        offset += moved
        if np.abs(moved).max(initial=0.0) < _TOLERANCE:
            break
    return np.full(boards, max(float(ability.std()), _LEAST_SLOPE)), offset + ability.mean()


def _offset_variance(
    model: Indices, board: Indices, slope: Floats, noise: Floats, models: int
) -> Floats:
    """How unsure each board's place on the scale is: the fewer models it shares, the more.

    A shared model says where the board stands with the variance of the board's noise and of what
    the other boards know of its ability. Without one only the prior says it.
    """
    boards = len(slope)
    information = slope**2 / noise
    of_others = np.bincount(model, information[board], models)[model] - information[board]
    known = np.where(of_others > 1e-9, 1.0 / (1.0 + of_others), np.inf)
    weight = 1.0 / (noise[board] + slope[board] ** 2 * known)
    says = np.bincount(board, weight, boards)
    return np.asarray(1.0 / (says + 1.0 / slope**2))
