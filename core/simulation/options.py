"""What a search finds, in words: configurations with what they do and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from core.simulation.encoding import Decoded, Encoding
from core.simulation.objectives import Costs, Slo, costs, scores
from core.simulation.predictor import Band, Prediction, Predictor
from core.simulation.scenarios import Ints
from core.simulation.schemas import Value
from core.simulation.space import GENES, ONLY_AGGREGATED, ONLY_DISAGGREGATED, Machine
from core.simulation.topology import REASONS

_METRICS = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "e2e_ms": "end-to-end latency"}


@dataclass(frozen=True, slots=True)
class Configuration:
    """One choice of everything; units and meaning as in `Space`.

    What has no meaning in its mode is 1 (`tp`, `pp`, `replicas`) or 0 (workers and their TP).
    `precision` is empty for the checkpoint's own.
    """

    model: str
    machine: Machine
    engine: str
    precision: str
    mode: str
    tp: int
    pp: int
    ep: int
    dp: int
    replicas: int
    prefill_workers: int
    prefill_tp: int
    decode_workers: int
    decode_tp: int
    max_sequences: int
    chunk_tokens: int
    block_tokens: int
    chunked_prefill: bool
    prefix_caching: bool

    @property
    def layout(self) -> str:
        """How the devices are used, such as `TP 4 × 2` or `prefill 1 × TP 4, decode 2 × TP 8`."""
        if self.mode == "disagg":
            prefill = f"prefill {self.prefill_workers} × TP {self.prefill_tp}"
            return f"{prefill}, decode {self.decode_workers} × TP {self.decode_tp}"
        parts = [f"TP {self.tp}"]
        parts += [
            f"{name.upper()} {count}"
            for name, count in (("pp", self.pp), ("ep", self.ep), ("dp", self.dp))
            if count > 1
        ]
        return f"{' '.join(parts)} × {self.replicas}"


@dataclass(frozen=True, slots=True)
class Miss:
    """A target that is not met."""

    metric: str
    value_ms: float
    target_ms: float

    @property
    def share(self) -> float:
        """By how much, as a share of the target."""
        return self.value_ms / self.target_ms - 1

    def __str__(self) -> str:
        name = _METRICS[self.metric]
        return f"{name} by {self.share:.0%} ({self.value_ms:,.0f} ms for {self.target_ms:,g} ms)"


@dataclass(frozen=True, slots=True)
class Option:
    """A configuration, what it does and what it costs.

    Attributes:
        devices: Used.
        instances: Rented whole; single devices where they are one's own.
        rented_devices: Paid for; more than `devices` where some stay idle.
        usd_per_hour: None where no price is known, as with the two below.
        usd_per_million_tokens: Of input and output together.
        tokens_per_s: Output tokens of the whole deployment.
        most_concurrency: Requests in flight that fit in the KV cache.
        nearby: Measured rows near it; 0 means extrapolated.
        misses: Targets that are not met.
    """

    configuration: Configuration
    devices: int
    instances: int
    rented_devices: int
    usd_per_hour: float | None
    usd_per_million_tokens: float | None
    usd_per_million_output_tokens: float | None
    ttft_ms: Value
    tpot_ms: Value
    e2e_ms: Value
    tokens_per_s: float
    tokens_per_s_per_gpu: Value
    requests_per_s: float
    memory_gb_per_gpu: float
    most_concurrency: int
    nearby: int
    misses: tuple[Miss, ...]

    @property
    def meets_slo(self) -> bool:
        """Whether every target is met."""
        return not self.misses


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        front: The Pareto front, best first: those that meet the targets from the cheapest on,
            then those that miss them, from the least missed on. Of configurations that are equal
            in everything that counts, the one whose options come first in the space.
        points: Distinct configurations of the space.
        evaluated: Configurations that were predicted.
        feasible: How many of them can run.
        ruled_out: How many cannot, by reason (a key of `topology.REASONS`), among those looked at.
        is_exhaustive: The whole space was gone through, so that nothing better exists.
        was_cancelled: It was stopped early; the front is what had been found.
    """

    front: tuple[Option, ...]
    points: int
    evaluated: int
    feasible: int
    ruled_out: Mapping[str, int]
    is_exhaustive: bool
    was_cancelled: bool

    @property
    def best(self) -> Option | None:
        """The cheapest that meets the targets, or else the nearest to them; None if none runs."""
        return self.front[0] if self.front else None

    @property
    def verdict(self) -> str:
        """One sentence: whether the targets are met, by how much they are missed, or why not."""
        if self.best is None:
            if not self.ruled_out:
                return "Nothing was looked at."
            most = max(self.ruled_out, key=lambda reason: self.ruled_out[reason])
            return f"Nothing can run: mostly, {REASONS[most]}."
        if self.best.meets_slo:
            return "The targets are met."
        misses = " and ".join(str(miss) for miss in self.best.misses)
        return f"Nothing meets the targets; the nearest misses {misses}."


def options(
    encoding: Encoding, predictor: Predictor, slo: Slo, genomes: Ints
) -> tuple[Option, ...]:
    """What genomes mean, best first."""
    if not len(genomes):
        return ()
    decoded = encoding.decode(genomes)
    prediction = predictor.predict(decoded.rows)
    values = scores(decoded, prediction, slo).values
    order = np.lexsort((values[:, 2], values[:, 1], values[:, 0]))
    cost = costs(decoded, prediction)
    return tuple(
        _option(row, _configuration(encoding, genomes[row]), decoded, prediction, cost, slo)
        for row in order.tolist()
    )


def _configuration(encoding: Encoding, genome: Ints) -> Configuration:
    chosen = {gene: encoding.option(genome, gene) for gene in GENES}
    if chosen["mode"] == "disagg":
        return Configuration(**chosen | dict.fromkeys(ONLY_AGGREGATED, 1))
    return Configuration(**chosen | dict.fromkeys(ONLY_DISAGGREGATED, 0))


def _option(
    row: int,
    configuration: Configuration,
    decoded: Decoded,
    prediction: Prediction,
    cost: Costs,
    slo: Slo,
) -> Option:
    requests_per_s = float(prediction.requests_per_s[row])
    misses = {name: shares[row] for name, shares in slo.misses(prediction).items()}
    return Option(
        configuration=configuration,
        devices=int(prediction.devices[row]),
        instances=int(decoded.instances[row]),
        rented_devices=int(decoded.rented_devices[row]),
        usd_per_hour=_known(decoded.usd_per_hour[row]),
        usd_per_million_tokens=_known(cost.usd[row]),
        usd_per_million_output_tokens=_known(cost.usd_output[row]),
        ttft_ms=_value(prediction.ttft_ms, row),
        tpot_ms=_value(prediction.tpot_ms, row),
        e2e_ms=_value(prediction.e2e_ms, row),
        tokens_per_s=requests_per_s * float(decoded.rows.osl[row]),
        tokens_per_s_per_gpu=_value(prediction.tokens_per_s_per_gpu, row),
        requests_per_s=requests_per_s,
        memory_gb_per_gpu=float(prediction.memory.needed[row]) / 1e9,
        most_concurrency=int(prediction.most_concurrency[row]),
        nearby=int(prediction.nearby[row]),
        misses=tuple(
            Miss(name, float((1 + share) * slo.targets[name]), slo.targets[name])
            for name, share in misses.items()
            if share > 0
        ),
    )


def _value(band: Band, row: int) -> Value:
    return Value(float(band.mean[row]), float(band.low[row]), float(band.high[row]))


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
