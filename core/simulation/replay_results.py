"""What a replay says: percentiles, attainment, GPU-hours, cost and a timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.kernel.errors import InvalidInput
from core.simulation.replay_engine import Lifetime
from core.simulation.scenarios import Floats, Ints
from core.simulation.traces import Trace

BINS = 240
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LatencyTargets:
    """What one request must meet, in milliseconds; None asks for nothing."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None

    def __post_init__(self) -> None:
        for name in ("ttft_ms", "tpot_ms", "e2e_ms"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidInput(f"{name} must be over 0.", value=value, remedy="Leave it out.")


@dataclass(frozen=True)
class Outcomes:
    """When the requests that were accepted were admitted, answered first, and done, in seconds.

    `accepted` are their places in the trace; all columns have equal length.
    """

    accepted: Ints
    arrival_s: Floats
    output_tokens: Ints
    admitted_s: Floats
    first_token_s: Floats
    finished_s: Floats

    @property
    def queue_ms(self) -> Floats:
        """From arrival to admission to a batch."""
        return 1e3 * np.maximum(0.0, self.admitted_s - self.arrival_s)

    @property
    def ttft_ms(self) -> Floats:
        """From arrival to the first token."""
        return 1e3 * (self.first_token_s - self.arrival_s)

    @property
    def tpot_ms(self) -> Floats:
        """Of each token after the first; NaN where there is none."""
        after_first = np.where(self.output_tokens > 1, self.output_tokens - 1.0, np.nan)
        return 1e3 * (self.finished_s - self.first_token_s) / after_first

    @property
    def e2e_ms(self) -> Floats:
        """From arrival to the last token."""
        return 1e3 * (self.finished_s - self.arrival_s)


@dataclass(frozen=True, slots=True)
class Spread:
    """The mean and percentiles of one quantity over all requests, in the unit of its name."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """The replay in bins of equal width; every column has one entry a bin.

    Attributes:
        start_s: Where each bin begins, in seconds of the trace.
        bin_s: Width of a bin.
        arrivals_per_s: Requests that arrived, refused ones included.
        running: Requests in a batch, averaged over the bin.
        queued: Requests that wait for one, averaged.
        replicas: Replicas that are paid for, averaged; those that start and drain included.
        output_tokens_per_s: Tokens generated.
        attainment: Share of the bin's arrivals that met all targets; None without arrivals.
    """

    start_s: tuple[float, ...]
    bin_s: float
    arrivals_per_s: tuple[float, ...]
    running: tuple[float, ...]
    queued: tuple[float, ...]
    replicas: tuple[float, ...]
    output_tokens_per_s: tuple[float, ...]
    attainment: tuple[float | None, ...]


@dataclass(frozen=True)
class ReplayResult:
    """What came of a trace.

    Attributes:
        trace_name: The trace.
        requests: All of them.
        answered: Those that were not refused.
        refused: How many were refused, by reason.
        ttft_ms: Time to first token, queue included.
        tpot_ms: Time per output token after the first, of answers with two or more.
        e2e_ms: The whole request.
        queue_ms: Wait for admission to a batch.
        attainment: Share of all requests, refused ones included, that met every target.
        attained: The same for each target alone, by its name.
        duration_s: Until the last answer was complete.
        requests_per_s: Answered, over the duration.
        output_tokens_per_s: Generated, over the duration.
        device_hours: Of all replicas from their start to their end.
        cost_usd: Of the device hours; None where no price is set.
        usd_per_million_output_tokens: The cost over what was generated.
        mean_replicas: Over the duration.
        peak_replicas: Most at once.
        timeline: The replay in bins.
    """

    trace_name: str
    requests: int
    answered: int
    refused: Mapping[str, int]
    ttft_ms: Spread
    tpot_ms: Spread | None
    e2e_ms: Spread
    queue_ms: Spread
    attainment: float
    attained: Mapping[str, float]
    duration_s: float
    requests_per_s: float
    output_tokens_per_s: float
    device_hours: float
    cost_usd: float | None
    usd_per_million_output_tokens: float | None
    mean_replicas: float
    peak_replicas: int
    timeline: Timeline


def summarise(
    trace: Trace,
    outcomes: Outcomes,
    lifetimes: Sequence[Lifetime],
    refused: Mapping[str, int],
    targets: LatencyTargets,
    *,
    devices_per_replica: int,
    usd_per_device_hour: float | None,
) -> ReplayResult:
    """Figures of one replay; all replicas are paid for until they end or the last answer is."""
    duration_s = max(float(outcomes.finished_s.max()), trace.duration_s)
    launched = np.array([each.launched_s for each in lifetimes])
    ended = np.minimum([each.ended_s for each in lifetimes], duration_s)
    replica_s = float((ended - launched).sum())
    device_hours = replica_s / 3600 * devices_per_replica
    cost_usd = None if usd_per_device_hour is None else device_hours * usd_per_device_hour
    output_tokens = int(outcomes.output_tokens.sum())
    met = _met(outcomes, targets)
    has_met_all = np.logical_and.reduce([np.ones(len(outcomes.accepted), bool), *met.values()])
    several = outcomes.output_tokens > 1
    return ReplayResult(
        trace_name=trace.name,
        requests=len(trace),
        answered=len(outcomes.accepted),
        refused={reason: count for reason, count in refused.items() if count},
        ttft_ms=spread(outcomes.ttft_ms),
        tpot_ms=spread(outcomes.tpot_ms[several]) if several.any() else None,
        e2e_ms=spread(outcomes.e2e_ms),
        queue_ms=spread(outcomes.queue_ms),
        attainment=float(has_met_all.sum() / len(trace)),
        attained={name: float(each.sum() / len(trace)) for name, each in met.items()},
        duration_s=duration_s,
        requests_per_s=len(outcomes.accepted) / duration_s,
        output_tokens_per_s=output_tokens / duration_s,
        device_hours=device_hours,
        cost_usd=cost_usd,
        usd_per_million_output_tokens=(
            None if cost_usd is None else cost_usd / output_tokens * 1e6
        ),
        mean_replicas=replica_s / duration_s,
        peak_replicas=_peak(launched, ended),
        timeline=_timeline(trace, outcomes, launched, ended, has_met_all, duration_s),
    )


def spread(values: Floats) -> Spread:
    """Mean and percentiles."""
    p50, p90, p95, p99 = np.percentile(values, (50, 90, 95, 99))
    return Spread(float(values.mean()), float(p50), float(p90), float(p95), float(p99))


def _met(outcomes: Outcomes, targets: LatencyTargets) -> dict[str, Booleans]:
    met = {}
    for name in ("ttft_ms", "tpot_ms", "e2e_ms"):
        limit = getattr(targets, name)
        if limit is not None:
            # An answer of one token has no time per token to miss.
            met[name] = ~(getattr(outcomes, name) > limit)
    return met


def _peak(launched: Floats, ended: Floats) -> int:
    times = np.concatenate([launched, ended])
    changes = np.concatenate([np.ones(len(launched), int), -np.ones(len(ended), int)])
    # One that ends makes room for one that starts at the same time.
    order = np.lexsort((changes, times))
    return int(np.cumsum(changes[order]).max())


def _timeline(
    trace: Trace,
    outcomes: Outcomes,
    launched: Floats,
    ended: Floats,
    has_met_all: Booleans,
    duration_s: float,
) -> Timeline:
    bin_s = _round_up(duration_s / BINS)
    count = max(1, int(np.ceil(duration_s / bin_s)))
    edges: Floats = np.arange(count + 1, dtype=np.float64) * bin_s

    def mean_between(begun: Floats, done: Floats) -> tuple[float, ...]:
        # Rounding leaves tiny negative means where there is nothing.
        between = _area(edges, begun) - _area(edges, done)
        return tuple(np.maximum(0.0, np.diff(between) / bin_s).tolist())

    def bins(times: Floats) -> Ints:
        return np.bincount(np.minimum((times / bin_s).astype(np.int64), count - 1), minlength=count)

    arrivals = bins(trace.arrival_s).tolist()
    met = bins(outcomes.arrival_s[has_met_all]).tolist()
    return Timeline(
        start_s=tuple(edges[:-1].tolist()),
        bin_s=bin_s,
        arrivals_per_s=tuple(count / bin_s for count in arrivals),
        running=mean_between(outcomes.admitted_s, outcomes.finished_s),
        queued=mean_between(outcomes.arrival_s, outcomes.admitted_s),
        replicas=mean_between(launched, ended),
        output_tokens_per_s=tuple((np.diff(_tokens_until(edges, outcomes)) / bin_s).tolist()),
        attainment=tuple(
            good / all_ if all_ else None for good, all_ in zip(met, arrivals, strict=True)
        ),
    )


def _round_up(seconds: float) -> float:
    """The next of 1, 2, 5, 10, 15, 30 s, whole minutes … up; finer below a second."""
    steps = (0.001, 0.01, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0)
    for each in steps:
        if seconds <= each:
            return each
    return float(np.ceil(seconds / 900) * 900)


def _area(edges: Floats, since: Floats, weight: Floats | None = None) -> Floats:
    """For each edge t the sum of weight·max(0, t − since) over all entries."""
    order = np.argsort(since, kind="stable")
    weight = np.ones(len(since)) if weight is None else weight[order]
    since = since[order]
    weights = np.concatenate([[0.0], np.cumsum(weight)])
    moments = np.concatenate([[0.0], np.cumsum(weight * since)])
    place = np.searchsorted(since, edges)
    area: Floats = weights[place] * edges - moments[place]
    return area


def _tokens_until(edges: Floats, outcomes: Outcomes) -> Floats:
    """Tokens generated until each edge: the first of an answer, then the others evenly."""
    firsts = np.searchsorted(np.sort(outcomes.first_token_s), edges, side="right")
    several = outcomes.output_tokens > 1
    begun, done = outcomes.first_token_s[several], outcomes.finished_s[several]
    rate = (outcomes.output_tokens[several] - 1) / np.maximum(1e-9, done - begun)
    return firsts + _area(edges, begun, rate) - _area(edges, done, rate)
