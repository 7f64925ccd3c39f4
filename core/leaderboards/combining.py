"""The combined score of a view: linked boards, weighted by the reader.

Each board's line (see `linking`) turns its order into an estimate of a model's ability with a
variance. With weights `w` the ability of model i is

    (expected[i] / spread + sum_b w[b] * estimate[i, b] / variance[i, b])
    / (1 / spread + sum_b w[b] / variance[i, b]),

the mean of the posterior when every weight is 1. `expected` and `spread` are those of the models
on the same boards: they hold a model of few boards near its company. A weight of 2 counts a board
as two that agree, 0 leaves it out. The band is the error of this estimate, of which each weight
takes its part, so doubled weights do not look like doubled knowledge. Everything that does not
depend on the weights is computed once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import ndtri

from core.leaderboards.linking import Floats, Indices, link, normal_scores

# A scale that people know from tests (T-scores): 50 is the middle, 10 a standard deviation.
_MIDDLE, _DEVIATION = 50.0, 10.0
BAND = 0.9
_HALF_WIDTH = float(ndtri(0.5 + BAND / 2))


@dataclass(frozen=True)
class Combined:
    """For each model of a view; NaN and 0 where no board of a positive weight lists it.

    Attributes:
        score: 50 is the middle of the view's models, 10 is one standard deviation.
        low: The lower end of the 90% band.
        high: The upper end.
        boards: How many boards of a positive weight list it.
    """

    score: Floats
    low: Floats
    high: Floats
    boards: Indices


class Combiner:
    """The boards of a view, linked once and weighted as often as wanted.

    Args:
        model: The model of each entry, from 0 to `models` - 1.
        board: The board of each entry, from 0 to `boards` - 1.
        value: What the board says, more is better; only its order within the board counts.
        models: How many models there are.
        boards: How many boards there are.
        extra_variance: For each entry, what a board that is itself a mean of benchmarks does not
            know of the model; in units of ability squared.
    """

    def __init__(
        self,
        model: Indices,
        board: Indices,
        value: Floats,
        models: int,
        boards: int,
        extra_variance: Floats | None = None,
    ) -> None:
        score = normal_scores(value, board)
        self.linked = linked = link(model, board, score, models, boards)
        extra = np.zeros(len(score)) if extra_variance is None else extra_variance
        # The place of a board on the scale is unsure for all its models alike.
        own = (linked.noise + linked.offset_variance) / linked.slope**2
        precision = 1.0 / (own[board] + extra)
        estimate = (score - linked.offset[board]) / linked.slope[board]
        at, shape = (model, board), (models, boards)
        self._precision: csr_matrix = csr_matrix((precision, at), shape=shape)
        self._pulled: csr_matrix = csr_matrix((precision * estimate, at), shape=shape)
        self._listed: csr_matrix = csr_matrix((np.ones(len(score)), at), shape=shape)

    def combine(self, weights: Floats) -> Combined:
        """Scores and bands under these weights, one a board, 0 or more."""
        prior = 1.0 / self.linked.spread
        total = prior + self._precision @ weights
        ability = (prior * self.linked.expected + self._pulled @ weights) / total
        error = np.sqrt(prior + self._precision @ weights**2) / total
        boards = np.rint(self._listed @ (weights > 0)).astype(np.int64)
        score = np.where(boards > 0, _MIDDLE + _DEVIATION * ability, np.nan)
        half = _DEVIATION * _HALF_WIDTH * error
        return Combined(score, score - half, score + half, boards)

    def listed(self, models: Indices) -> Indices:
        """How many of these models each board lists."""
        chosen = np.zeros(self._listed.shape[0])
        chosen[models] = 1.0
        return np.asarray(np.rint(self._listed.T @ chosen), np.int64)


def rank_bounds(low: Floats, high: Floats) -> tuple[Indices, Indices]:
    """Between which ranks each of some models lies.

    Returns:
        One more than the models that are better beyond both bands, and the rank if every model
        whose band overlaps were better.
    """
    best = 1 + len(low) - np.searchsorted(np.sort(low), high, side="right")
    worst = len(low) - np.searchsorted(np.sort(high), low, side="left")
    return best, worst


def summed(
    model: Indices, benchmark: Indices, value: Floats, models: int, benchmarks: int
) -> tuple[Indices, Floats, Floats]:
    """One order out of the benchmarks of one board, some of which lack some models.

    Returns:
        The models, the ability of each on the board (more is better), and by how much its
        variance exceeds that of a model with every benchmark.
    """
    score = normal_scores(value, benchmark)
    linked = link(model, benchmark, score, models, benchmarks)
    information = linked.slope**2 / (linked.noise + linked.offset_variance)
    known = np.bincount(model, information[benchmark], models)
    listed = np.flatnonzero(known)
    estimate = (score - linked.offset[benchmark]) / linked.slope[benchmark]
    pulled = np.bincount(model, information[benchmark] * estimate, models)
    extra = 1.0 / known[listed] - 1.0 / float(information.sum())
    return listed.astype(np.int64), pulled[listed] / known[listed], np.asarray(extra)
