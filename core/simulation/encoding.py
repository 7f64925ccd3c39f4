"""Configurations as rows of small integers, decoded for a whole population at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.kernel.errors import InvalidInput
from core.simulation.predictor import Booleans, Predictor
from core.simulation.scenarios import (
    ENGINES,
    MODES,
    PRECISIONS,
    UNKNOWN,
    Floats,
    Ints,
    Scenarios,
    from_columns,
)
from core.simulation.space import (
    COUNTS,
    GENES,
    ONLY_AGGREGATED,
    ONLY_DISAGGREGATED,
    SWITCHES,
    Load,
    Space,
)
from core.simulation.topology import Population, Topology

_MOST_POINTS = 2**62
_GENE = {name: index for index, name in enumerate(GENES)}
_POSITIONS = ("model", "machine", "engine", "precision")
_SAME_COLUMNS = (
    *("model", "engine", "precision", "mode", "max_sequences", "chunk_tokens", "block_tokens"),
)


@dataclass(frozen=True)
class Decoded:
    """A population as the predictor reads it, and what is paid for; one entry a genome.

    Attributes:
        rows: For `Predictor.predict`.
        instances: Rented whole; single devices where they are one's own.
        rented_devices: What is paid for: the used ones and those that stay idle.
        usd_per_hour: NaN where no price is known.
        most_running: Most requests in flight at once that the KV cache is asked to hold.
    """

    rows: Scenarios
    instances: Floats
    rented_devices: Floats
    usd_per_hour: Floats
    most_running: Floats


class Encoding:
    """A space over the tables of a predictor, under one load.

    Genomes have the shape (rows, len(GENES)). Raises NotFound for a model or system that the
    tables lack, and InvalidInput when the combinations are too many to be numbered.
    """

    def __init__(self, space: Space, predictor: Predictor, load: Load) -> None:
        self.space, self.load = space, load
        self.topology = Topology(space, predictor)
        self.sizes = np.array([len(space.options(gene)) for gene in GENES])
        combinations = math.prod(self.sizes.tolist())
        if combinations > _MOST_POINTS:
            raise InvalidInput(
                "The space has too many combinations.",
                value=f"{combinations:.0e}",
                remedy="Give fewer options.",
            )
        self._strides = np.cumprod([1, *self.sizes[:0:-1]])[::-1]
        self._values = self._numbers()
        self._price = np.array(
            [
                math.nan if each.usd_per_device_hour is None else each.usd_per_device_hour
                for each in space.machines
            ]
        )
        self._idle = {
            mode: [_GENE[name] for name in names]
            for mode, names in (("agg", ONLY_DISAGGREGATED), ("disagg", ONLY_AGGREGATED))
        }

    def _numbers(self) -> tuple[Floats, ...]:
        """The number that stands for each option of each gene."""
        space = self.space
        numbers: dict[str, Sequence[float]] = {
            **{gene: space.options(gene) for gene in (*COUNTS, *SWITCHES)},
            "model": self.topology.model_rows.tolist(),
            "machine": self.topology.system_rows.tolist(),
            "engine": [ENGINES.index(name) for name in space.engines],
            "precision": [PRECISIONS.index(name) if name else UNKNOWN for name in space.precisions],
            "mode": [MODES.index(name) for name in space.modes],
        }
        return tuple(np.array(numbers[gene], dtype=np.float64) for gene in GENES)

    @property
    def points(self) -> int:
        """Distinct configurations, those that cannot run included."""
        return sum(math.prod(self._sizes_in(mode)) for mode in self.space.modes)

    def _sizes_in(self, mode: str) -> list[int]:
        fixed = {*self._idle[mode], _GENE["mode"]}
        return [1 if index in fixed else size for index, size in enumerate(self.sizes.tolist())]

    def all_genomes(self, block: int) -> Iterator[Ints]:
        """Every distinct configuration, at most `block` at a time."""
        for number, mode in enumerate(self.space.modes):
            sizes = self._sizes_in(mode)
            points = math.prod(sizes)
            for first in range(0, points, block):
                counted = np.arange(first, min(first + block, points))
                genomes = np.stack(np.unravel_index(counted, sizes), axis=1)
                genomes[:, _GENE["mode"]] = number
                yield genomes

    def canonical(self, genomes: Ints) -> Ints:
        """The same, with what has no meaning in a configuration's mode at its first option."""
        return np.where(self._matters(genomes), genomes, 0)

    def free_genes(self, genomes: Ints) -> Booleans:
        """Which genes have another option that would make a difference, by genome."""
        return self._matters(genomes) & (self.sizes > 1)

    def _matters(self, genomes: Ints) -> Booleans:
        matters = np.ones((len(self.space.modes), len(GENES)), dtype=np.bool_)
        for number, mode in enumerate(self.space.modes):
            matters[number, self._idle[mode]] = False
        return matters[genomes[:, _GENE["mode"]]]

    def keys(self, genomes: Ints) -> Ints:
        """One number a genome, smaller for options that come earlier in the space."""
        return genomes @ self._strides

    def option(self, genome: Ints, gene: str) -> Any:
        """The option of one genome, as the space gives it."""
        return self.space.options(gene)[int(genome[_GENE[gene]])]

    def ruled_out(self, genomes: Ints) -> Ints:
        """NUMBER of the first of REASONS why each cannot run; 0 where there is none."""
        return self.topology.ruled_out(self._population(genomes), self.load.isl + self.load.osl)

    def _population(self, genomes: Ints) -> Population:
        return Population(
            position={gene: genomes[:, _GENE[gene]] for gene in _POSITIONS},
            value={gene: self._values[index][genomes[:, index]] for gene, index in _GENE.items()},
        )

    def decode(self, genomes: Ints) -> Decoded:
        """What to predict and what to pay. At least one genome."""
        population = self._population(genomes)
        at, is_split = population.value, population.is_split
        instances = self.topology.instances(population)
        machine = population.position["machine"]
        rented = instances * self.topology.instance_devices[machine]
        copies = np.where(is_split, at["decode_workers"], at["replicas"])
        return Decoded(
            rows=self._scenarios(population),
            instances=instances,
            rented_devices=rented,
            usd_per_hour=rented * self._price[machine],
            most_running=np.minimum(self.load.concurrency, at["max_sequences"] * copies),
        )

    def _scenarios(self, population: Population) -> Scenarios:
        at, is_split = population.value, population.is_split
        columns = {name: at[name] for name in _SAME_COLUMNS}
        for name in ("tp", "pp", "ep", "dp", "replicas"):
            columns[name] = np.where(is_split, 1.0, at[name])
        for side in ("prefill", "decode"):
            tp = at[f"{side}_tp"]
            parts = {
                "workers": at[f"{side}_workers"],
                "tp": tp,
                "pp": np.ones(len(tp)),
                "ep": np.minimum(at["ep"], tp),
                "dp": np.minimum(at["dp"], tp),
            }
            for name, values in parts.items():
                columns[f"{side}_{name}"] = np.where(is_split, values, 0.0)
        columns["system"] = at["machine"]
        columns["prefix_hit_share"] = self.load.prefix_hit_share * at["prefix_caching"]
        for name in ("isl", "osl", "concurrency"):
            columns[name] = np.full(len(is_split), float(getattr(self.load, name)))
        return from_columns(columns)
