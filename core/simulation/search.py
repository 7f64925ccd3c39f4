"""The best configurations under targets: NSGA-II over whole populations at once.

Three objectives are minimised (`objectives.Scores`). What cannot run is treated by Deb's rules
(NSGA-II, 2002): what is feasible comes before what is not, and of two that are not, the one
that lacks less comes first.

DEAP ranks the population, measures its crowding and selects; NumPy does what concerns every
individual alike: variation, decoding, prediction. Nothing is evaluated twice, every non-dominated
configuration that was ever seen is kept, and of equals the population holds one. Half of each
generation are plain neighbours, because in a space of choices the good ones hang together by
single changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import moocore
import numpy as np
from deap import base, creator, tools

from core.kernel.errors import InvalidInput
from core.simulation.encoding import Encoding
from core.simulation.objectives import Scores, Slo, scores
from core.simulation.options import SearchResult, options
from core.simulation.predictor import Booleans, Predictor
from core.simulation.scenarios import Floats, Ints
from core.simulation.space import GENES, Load, Space
from core.simulation.topology import REASONS

DEFAULT_BUDGET = 20_000
MOST_BUDGET = 1_000_000
# Settings were chosen on other spaces than those of the tests, with the analytic predictor and
# with random interactions between choices on top of it.
_POPULATION = 100
_GENERATIONS = 40
_FEWEST_CHILDREN = 40
_NEIGHBOURS_SHARE = 0.5
_SECOND_CHANGE_SHARE = 0.5
_FIRST_SHARE = 0.1
_SETTLING_SHARE = 0.05
# A space is gone through whole when it has at most so many points for each evaluation allowed.
_POINTS_AN_EVALUATION = 4
_BLOCK = 16_384
# Draws for each genome that is wanted; many at first, when nothing is known that may run.
_PATIENCE, _FIRST_PATIENCE = 8, 4_096
_FEWEST_DRAWN, _MOST_DRAWN, _MOST_DRAWN_IN_ALL = 64, 32_768, 524_288
# Worse than any objective: all three of a configuration that cannot run are this and more.
_INFEASIBLE = 1e9

Progress = Callable[[int, int], None]
Cancelled = Callable[[], bool]

creator.create("SearchFitness", base.Fitness, weights=(-1.0, -1.0, -1.0))


def run(
    predictor: Predictor,
    space: Space,
    load: Load,
    slo: Slo,
    *,
    budget: int = DEFAULT_BUDGET,
    seed: int = 0,
    progress: Progress | None = None,
    cancelled: Cancelled | None = None,
) -> SearchResult:
    """Search `space` for what serves `load` within `slo` at the least cost, and the trade-offs.

    The same seed gives the same result. A space that is small for the budget is gone through
    whole, and the result is then exact.

    Args:
        predictor: Answers for whole populations.
        space: What may be chosen.
        load: What is to be served.
        slo: What is to be met; `Slo()` asks for nothing.
        budget: Most configurations to predict.
        seed: Of the random choices.
        progress: Called with how many of how many are done.
        cancelled: Asked between generations; when true, what was found so far is the result.

    Raises:
        NotFound: A model or system is not in the predictor's tables.
        InvalidInput: The budget is out of range, or the space too large to be numbered.
    """
    if not 1 <= budget <= MOST_BUDGET:
        raise InvalidInput(
            f"The budget must be 1 to {MOST_BUDGET:,} evaluations.",
            value=budget,
            remedy=f"Leave it out for {DEFAULT_BUDGET:,}.",
        )
    search = _Search(Encoding(space, predictor, load), predictor, slo, budget, seed)
    rounds = search.exhaustive() or search.genetic()
    was_cancelled = False
    for done, total in rounds:
        if progress is not None:
            progress(done, total)
        if cancelled is not None and cancelled():
            was_cancelled = True
            break
    return search.result(was_cancelled)


class _Search:
    """One run: what was seen, the population, and the non-dominated configurations so far."""

    def __init__(
        self, encoding: Encoding, predictor: Predictor, slo: Slo, budget: int, seed: int
    ) -> None:
        self._encoding, self._predictor, self._slo = encoding, predictor, slo
        self._budget, self._random = budget, np.random.default_rng(seed)
        self._seen: set[int] = set()
        self._ruled_out = np.zeros(len(REASONS) + 1, dtype=np.int64)
        self._evaluated = self._feasible = 0
        self._is_exhaustive = False
        none = np.empty((0, len(GENES)), dtype=np.int64)
        self._front, self._front_values = none, np.empty((0, 3))
        self._population, self._values, self._crowding = none, np.empty((0, 3)), np.empty(0)

    # -- both ways to search ---------------------------------------------------------------

    def _evaluate(self, genomes: Ints) -> Scores:
        """Predict and score genomes that were not seen before; keeps the non-dominated."""
        decoded = self._encoding.decode(genomes)
        found = scores(decoded, self._predictor.predict(decoded.rows), self._slo)
        self._evaluated += len(genomes)
        self._feasible += int(found.is_feasible.sum())
        self._ruled_out += np.bincount(found.reason, minlength=len(self._ruled_out))
        self._keep(genomes[found.is_feasible], found.values[found.is_feasible])
        return found

    def _keep(self, genomes: Ints, values: Floats) -> None:
        genomes = np.concatenate([self._front, genomes])
        values = np.concatenate([self._front_values, values])
        # Of equals the first is kept: the one whose options come earlier in the space.
        order = np.argsort(self._encoding.keys(genomes), kind="stable")
        genomes, values = genomes[order], values[order]
        if len(genomes):
            is_best = moocore.is_nondominated(values)
            genomes, values = genomes[is_best], values[is_best]
        self._front, self._front_values = genomes, values

    def result(self, was_cancelled: bool) -> SearchResult:
        """What was found."""
        counts = zip(REASONS, self._ruled_out[1:].tolist(), strict=True)
        return SearchResult(
            front=options(self._encoding, self._predictor, self._slo, self._front),
            points=self._encoding.points,
            evaluated=self._evaluated,
            feasible=self._feasible,
            ruled_out={name: count for name, count in counts if count},
            is_exhaustive=self._is_exhaustive and not was_cancelled,
            was_cancelled=was_cancelled,
        )

    # -- everything ------------------------------------------------------------------------

    def exhaustive(self) -> Iterator[tuple[int, int]] | None:
        """Go through the whole space; None where that takes more than the budget."""
        encoding = self._encoding
        if encoding.points > self._budget * _POINTS_AN_EVALUATION:
            return None
        blocks, counts = [], np.zeros_like(self._ruled_out)
        for genomes in encoding.all_genomes(_BLOCK):
            reason = encoding.ruled_out(genomes)
            counts += np.bincount(reason, minlength=len(counts))
            blocks.append(genomes[reason == 0])
        if counts[0] > self._budget:
            return None
        self._is_exhaustive = True
        self._ruled_out += counts
        return self._blocks(np.concatenate(blocks))

    def _blocks(self, genomes: Ints) -> Iterator[tuple[int, int]]:
        for first in range(0, len(genomes), _BLOCK):
            self._evaluate(genomes[first : first + _BLOCK])
            yield self._evaluated, len(genomes)

    # -- NSGA-II ---------------------------------------------------------------------------

    def genetic(self) -> Iterator[tuple[int, int]]:
        """Generations, until the budget is spent or nothing new is found."""
        budget = self._budget
        genomes = self._fresh(
            self._spread, min(budget, max(_POPULATION, int(budget * _FIRST_SHARE))), _FIRST_PATIENCE
        )
        if len(genomes):
            self._select(genomes, self._evaluate(genomes))
            yield self._evaluated, budget
            yield from self._generations(budget - int(budget * _SETTLING_SHARE))
            yield from self._settle()
            yield from self._generations(budget)

    def _generations(self, until: int) -> Iterator[tuple[int, int]]:
        """New generations, until so many are evaluated in all."""
        children = max(_FEWEST_CHILDREN, self._budget // _GENERATIONS)
        while self._evaluated < until:
            genomes = self._offspring(min(children, until - self._evaluated))
            if not len(genomes):
                break
            self._select(genomes, self._evaluate(genomes))
            yield self._evaluated, self._budget

    def _offspring(self, count: int) -> Ints:
        neighbours = self._fresh(self._neighbours, int(count * _NEIGHBOURS_SHARE))
        children = self._fresh(self._children, count - len(neighbours))
        others = self._fresh(self._spread, count - len(neighbours) - len(children))
        return np.concatenate([neighbours, children, others])

    def _settle(self) -> Iterator[tuple[int, int]]:
        """Try the first option of each choice, so that the others stand only where they count."""
        for gene in range(len(GENES)):
            genomes = self._front.copy()
            genomes[:, gene] = 0
            genomes = self._new(genomes, self._budget - self._evaluated)
            if len(genomes):
                self._evaluate(genomes)
                yield self._evaluated, self._budget

    def _select(self, genomes: Ints, found: Scores) -> None:
        """The best of the population and its offspring, by DEAP's NSGA-II."""
        lacks = _INFEASIBLE + found.shortfall[:, np.newaxis]
        values = np.where(found.is_feasible[:, np.newaxis], found.values, lacks)
        genomes = np.concatenate([self._population, genomes])
        values = np.concatenate([self._values, values])
        # Choices without effect make many equals; one of each leaves room for others.
        firsts = np.sort(np.unique(values, axis=0, return_index=True)[1])
        genomes, values = genomes[firsts], values[firsts]
        # DEAP's sort is Python: it gets the leading fronts only, which give the same selection.
        ranks = moocore.pareto_rank(values)
        last = np.sort(ranks)[:_POPULATION][-1]
        rows = np.flatnonzero(ranks <= last).tolist()
        individuals = [_Individual(row, values[row].tolist()) for row in rows]
        chosen = tools.selNSGA2(individuals, min(_POPULATION, len(individuals)), nd="log")
        rows = [each.row for each in chosen]
        self._population, self._values = genomes[rows], values[rows]
        self._crowding = np.array([each.fitness.crowding_dist for each in chosen])

    # -- new genomes -----------------------------------------------------------------------

    def _fresh(self, draw: Callable[[int], Ints], count: int, patience: int = _PATIENCE) -> Ints:
        """Up to `count` genomes of `draw` that were not seen before and may run.

        Gives up after `patience` draws for each.
        """
        found = [np.empty((0, len(GENES)), dtype=np.int64)]
        missing, left = count, min(count * patience, _MOST_DRAWN_IN_ALL)
        while missing > 0 and left > 0:
            size = min(left, _MOST_DRAWN, max(_FEWEST_DRAWN, 3 * missing))
            new = self._new(draw(size), missing)
            found.append(new)
            missing, left = missing - len(new), left - size
        return np.concatenate(found)

    def _new(self, genomes: Ints, most: int) -> Ints:
        """The first `most` of `genomes` that were not seen before and may run."""
        genomes = self._encoding.canonical(genomes)
        keys = self._encoding.keys(genomes)
        firsts = np.sort(np.unique(keys, return_index=True)[1])
        unseen = [index for index in firsts.tolist() if int(keys[index]) not in self._seen]
        genomes, keys = genomes[unseen], keys[unseen]
        reason = self._encoding.ruled_out(genomes)
        may_run = np.flatnonzero(reason == 0)[:most]
        self._seen.update(keys[reason > 0].tolist(), keys[may_run].tolist())
        counts = np.bincount(reason, minlength=len(self._ruled_out))
        counts[0] = 0
        self._ruled_out += counts
        return genomes[may_run]

    def _spread(self, count: int) -> Ints:
        """A space-filling design: of each gene every option equally often, in random order."""
        return np.stack(
            [self._random.permutation(np.arange(count) % size) for size in self._encoding.sizes],
            axis=1,
        )

    def _neighbours(self, count: int) -> Ints:
        """One or two changes to configurations of the population."""
        genomes: Ints = self._population[self._random.integers(len(self._population), size=count)]
        return self._changed(genomes, 1 + (self._random.random(count) < _SECOND_CHANGE_SHARE))

    def _children(self, count: int) -> Ints:
        """Each gene from one of two parents, and mostly a change or two."""
        first, second = self._parents(count), self._parents(count)
        genomes = np.where(self._random.random(first.shape) < 0.5, first, second)
        return self._changed(genomes, self._random.binomial(3, 0.4, size=count))

    def _parents(self, count: int) -> Ints:
        """Binary tournaments: the dominating one wins, else the one in the emptier place."""
        first, second = self._random.integers(len(self._population), size=(2, count))
        better = self._crowding[first] > self._crowding[second]
        better = (better | self._dominates(first, second)) & ~self._dominates(second, first)
        winners: Ints = self._population[np.where(better, first, second)]
        return winners

    def _dominates(self, first: Ints, second: Ints) -> Booleans:
        ours, theirs = self._values[first], self._values[second]
        found: Booleans = np.all(ours <= theirs, axis=1) & np.any(ours < theirs, axis=1)
        return found

    def _changed(self, genomes: Ints, changes: Ints) -> Ints:
        """So many genes of each to another option: the next one or any, equally often."""
        genomes = genomes.copy()
        free = self._encoding.free_genes(genomes)
        order = np.argsort(-(free * self._random.random(free.shape)), axis=1)
        changes = np.minimum(changes, free.sum(axis=1))
        for turn in range(int(changes.max(initial=0))):
            rows = np.flatnonzero(changes > turn)
            genes = order[rows, turn]
            genomes[rows, genes] = self._other(genomes[rows, genes], self._encoding.sizes[genes])
        return genomes

    def _other(self, option: Ints, size: Ints) -> Ints:
        step = self._random.choice([-1, 1], size=len(option))
        is_inside = (option + step >= 0) & (option + step < size)
        adjacent = np.where(is_inside, option + step, option - step)
        anywhere = (option + self._random.integers(1, size)) % size
        return np.where(self._random.random(len(option)) < 0.5, adjacent, anywhere)


class _Individual:
    """A row of the population as DEAP sees it."""

    __slots__ = ("fitness", "row")

    def __init__(self, row: int, values: list[float]) -> None:
        self.row, self.fitness = row, creator.SearchFitness(values)
