"""The gateway's own numbers, in Prometheus' text form (version 0.0.4).

Written here rather than with a client library: an increment on the request path is then one
dictionary access, and nothing is imported for it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

Labels = tuple[str, ...]


class Counter:
    """A number by labels that only grows."""

    kind = "counter"

    def __init__(self, name: str, help_text: str, *labels: str) -> None:
        self.name, self.help, self.labels = name, help_text, labels
        self.values: dict[Labels, float] = {} if labels else {(): 0}

    def add(self, *labels: str, value: float = 1) -> None:
        """Add `value`; labels in the order they were declared."""
        self.values[labels] = self.values.get(labels, 0) + value

    def lines(self) -> Iterator[str]:
        """The samples."""
        for labels, value in self.values.items():
            yield f"{self.name}{_labels(self.labels, labels)} {_number(value)}"


class Gauge(Counter):
    """A number that goes up and down."""

    kind = "gauge"

    def set(self, value: float) -> None:
        """Set the only sample."""
        self.values[()] = value


class Histogram:
    """How often a duration in seconds fell into each bucket, by labels."""

    kind = "histogram"

    def __init__(
        self, name: str, help_text: str, *labels: str, buckets: tuple[float, ...] = _SECONDS
    ) -> None:
        self.name, self.help, self.labels = name, help_text, labels
        self._buckets = buckets
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, seconds: float, *labels: str) -> None:
        """Count one duration."""
        counts = self._counts.get(labels)
        if counts is None:
            counts = self._counts[labels] = [0] * (len(self._buckets) + 1)
        counts[bisect_left(self._buckets, seconds)] += 1
        self._sums[labels] = self._sums.get(labels, 0.0) + seconds

    def lines(self) -> Iterator[str]:
        """Cumulative buckets, sum and count."""
        names = (*self.labels, "le")
        for labels, counts in self._counts.items():
            total = 0
            for bound, count in zip((*self._buckets, "+Inf"), counts, strict=True):
                total += count
                yield f"{self.name}_bucket{_labels(names, (*labels, str(bound)))} {total}"
            yield f"{self.name}_sum{_labels(self.labels, labels)} {self._sums[labels]:.6f}"
            yield f"{self.name}_count{_labels(self.labels, labels)} {total}"


class Stats:
    """The metrics of one worker. Labels are names from the route table, never a caller's text."""

    def __init__(self) -> None:
        self.requests = Counter(
            "bud_requests_total",
            "Requests answered, by endpoint, model and HTTP status.",
            *("endpoint", "model", "status"),
        )
        self.tokens = Counter("bud_tokens_total", "Tokens, by model and kind.", "model", "kind")
        self.fallbacks = Counter(
            "bud_fallbacks_total", "Requests given to another model's route.", "model", "fallback"
        )
        self.retries = Counter(
            "bud_retries_total", "Attempts after the first one, by reason.", "reason"
        )
        self.ttft = Histogram(
            "bud_time_to_first_token_seconds", "Until the first event of a stream.", "model"
        )
        self.duration = Histogram(
            "bud_request_duration_seconds", "Until the last byte of an answer.", "model"
        )
        self.in_flight = Gauge("bud_requests_in_flight", "Requests being worked on.")
        self.waiting = Gauge(
            "bud_requests_waiting", "Requests that wait for a replica to come back."
        )
        self.replica_in_flight = Gauge(
            "bud_replica_requests_in_flight", "Requests at each replica.", "replica"
        )
        self.replica_up = Gauge(
            "bud_replica_up", "0 while a replica is away: unreachable or unhealthy.", "replica"
        )
        self.target_requests = Counter(
            "bud_target_requests_total",
            "What routes sent to their targets, retries included.",
            *("model", "target"),
        )
        self.target_failures = Counter(
            "bud_target_failures_total",
            "What targets of routes gave no answer to; another may have.",
            *("model", "target"),
        )
        self.facts_dropped = Gauge("bud_facts_dropped_total", "Request facts that were not kept.")
        self.facts_dropped.kind = "counter"
        self.loop_lag = Histogram(
            "bud_event_loop_lag_seconds", "How late the event loop woke up.", buckets=_LAG_SECONDS
        )
        self.table_version = Gauge("bud_route_table_version", "Version of the route table in use.")
        self.table_age = Gauge(
            "bud_route_table_age_seconds", "Time since the table in use was published."
        )

    def text(self) -> str:
        """Every metric in Prometheus' text form."""
        lines: list[str] = []
        for metric in vars(self).values():
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"]
            lines += metric.lines()
        return "\n".join(lines) + "\n"


def _labels(names: Labels, values: Labels) -> str:
    if not names:
        return ""
    pairs = [f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)]
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6f}"
