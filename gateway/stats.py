"""The gateway's own numbers, in Prometheus' text form (version 0.0.4).

Written here rather than with a client library: an increment on the request path is then one
dictionary access, and nothing is imported for it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from core.contracts.request_fact import RequestFact

_SECONDS = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
    *(300.0, 600.0),
)
_TOKEN_SECONDS = (
    *(0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0),
    2.5,
)
_CONNECT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_CHECK_SECONDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
_LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)

# So many requests are counted behind one another: as the last part of some other request's time.
_AT_ONCE = 64

Labels = tuple[str, ...]


class Counter:
    """A number by labels that only grows."""

    kind = "counter"

    def __init__(self, name: str, help_text: str, *labels: str) -> None:
        self.name, self.help, self.labels = name, help_text, labels
        self.values: dict[Labels, float] = {} if labels else {(): 0}

    def add(self, *labels: str, value: float = 1) -> None:
        """Add `value`; labels in the order they were declared."""
        self.count(labels, value)

    def count(self, labels: Labels, value: float) -> None:
        """`add` for what is counted with each request."""
        try:
            self.values[labels] += value
        except KeyError:
            self.values[labels] = value

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
        # For each the counts by bucket, and behind them the sum.
        self._series: dict[Labels, list[float]] = {}

    def observe(self, seconds: float, *labels: str) -> None:
        """Count one duration."""
        self.count(seconds, labels)

    def count(self, seconds: float, labels: Labels) -> None:
        """`observe` for what is counted with each request."""
        try:
            series = self._series[labels]
        except KeyError:
            series = self._series[labels] = [0] * (len(self._buckets) + 1) + [0.0]
        series[bisect_left(self._buckets, seconds)] += 1
        series[-1] += seconds

    def lines(self) -> Iterator[str]:
        """Cumulative buckets, sum and count."""
        names = (*self.labels, "le")
        for labels, (*counts, seconds) in self._series.items():
            total = 0.0
            for bound, count in zip((*self._buckets, "+Inf"), counts, strict=True):
                total += count
                yield f"{self.name}_bucket{_labels(names, (*labels, str(bound)))} {total:.0f}"
            yield f"{self.name}_sum{_labels(self.labels, labels)} {seconds:.6f}"
            yield f"{self.name}_count{_labels(self.labels, labels)} {total:.0f}"


class Stats:
    """The metrics of one worker. Labels are names from the route table, never a caller's text."""

    def __init__(self) -> None:
        self._ended: list[RequestFact] = []
        self.requests = Counter(
            "bud_requests_total",
            "Requests answered, by endpoint, model and HTTP status.",
            *("endpoint", "model", "status"),
        )
        self.tokens = Counter("bud_tokens_total", "Tokens, by model and kind.", "model", "kind")
        self.cost = Counter("bud_cost_usd_total", "Cost by token prices, by model.", "model")
        self.errors = Counter(
            "bud_request_errors_total",
            "Requests that failed or were refused, by model and kind of error.",
            *("model", "error"),
        )
        self.limit_refusals = Counter(
            "bud_limit_refusals_total", "Requests over a limit, by the limit's name.", "limit"
        )
        self.blocked = Counter(
            "bud_blocked_requests_total", "Requests that a blocking rule refused.", "rule"
        )
        self.guardrail_checks = Counter(
            "bud_guardrail_checks_total",
            "What guardrails did with requests (input) and answers (output).",
            *("rule", "side", "outcome"),
        )
        self.guardrail_seconds = Histogram(
            "bud_guardrail_seconds", "Work of a guardrail on one side of a request.", "rule",
            buckets=_CHECK_SECONDS,
        )  # fmt: skip
        self.cache_requests = Counter(
            "bud_cache_requests_total",
            "Requests of projects that keep answers, by what the cache did: hit, miss or bypass.",
            *("model", "result"),
        )
        self.cache_saved_tokens = Counter(
            "bud_cache_saved_tokens_total", "Tokens that hits did not take.", "model"
        )
        self.cache_saved_usd = Counter(
            "bud_cache_saved_usd_total", "What hits did not cost, by token prices.", "model"
        )
        self.cache_seconds = Histogram(
            "bud_cache_lookup_seconds", "Looking for a kept answer.", buckets=_CHECK_SECONDS
        )
        self.cache_failures = Counter(
            "bud_cache_failures_total", "Lookups that the cache's store did not answer."
        )
        self.cache_dropped = Counter("bud_cache_dropped_total", "Answers that could not be kept.")
        self.hedges = Counter(
            "bud_hedges_total",
            "Requests sent to a second replica too, by whether its answer was the first: won, "
            "lost, or failed when there was none.",
            *("model", "result"),
        )
        self.shadow_requests = Counter(
            "bud_shadow_requests_total",
            "Copies of a model's requests that another one got unseen, by HTTP status.",
            *("model", "shadow", "status"),
        )
        self.shadow_errors = Counter(
            "bud_shadow_errors_total",
            "Copies that failed, by kind of error.",
            *("model", "shadow", "error"),
        )
        self.shadow_dropped = Counter(
            "bud_shadow_dropped_total", "Copies that were not sent.", "model", "shadow", "reason"
        )
        self.shadow_tokens = Counter(
            "bud_shadow_tokens_total", "Tokens of copies, by kind.", "model", "shadow", "kind"
        )
        self.shadow_ttft = Histogram(
            "bud_shadow_time_to_first_token_seconds",
            "Until the first event of a copy's stream.",
            *("model", "shadow"),
        )
        self.shadow_duration = Histogram(
            "bud_shadow_request_duration_seconds",
            "Until the last byte of a copy's answer.",
            *("model", "shadow"),
        )
        self.fallbacks = Counter(
            "bud_fallbacks_total", "Requests given to another model's route.", "model", "fallback"
        )
        self.retries = Counter(
            "bud_retries_total", "Attempts after the first one, by reason.", "reason"
        )
        self.queue = Histogram(
            "bud_request_queue_seconds", "Waiting for a replica that was away.", "model"
        )
        self.connect = Histogram(
            "bud_connect_seconds",
            "Making a connection to a replica, where none was kept.",
            "model",
            buckets=_CONNECT_SECONDS,
        )
        self.ttft = Histogram(
            "bud_time_to_first_token_seconds", "Until the first event of a stream.", "model"
        )
        self.time_per_token = Histogram(
            "bud_time_per_output_token_seconds",
            "From one token of a stream to the next: the mean of each request.",
            "model",
            buckets=_TOKEN_SECONDS,
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
        self.replica_breaker = Gauge(
            "bud_replica_breaker_state",
            "Circuit breaker: 0 closed, 1 half-open, 2 open.",
            "replica",
        )
        self.replica_requests = Counter(
            "bud_replica_requests_total", "Attempts at each replica.", "replica"
        )
        self.replica_failures = Counter(
            "bud_replica_failures_total", "Attempts that failed, at each replica.", "replica"
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
        self.captures_dropped = Counter(
            "bud_captures_dropped_total", "Prompts with their answers that were not kept."
        )
        self.traces_dropped = Counter("bud_traces_dropped_total", "Traces that were not sent.")
        self.connections = Gauge("bud_open_connections", "Connections of callers.")
        self.not_http = Counter(
            "bud_not_http_requests_total",
            "What callers sent that is no valid HTTP request, by the status it got.",
            "status",
        )
        self.loop_lag = Histogram(
            "bud_event_loop_lag_seconds", "How late the event loop woke up.", buckets=_LAG_SECONDS
        )
        self.limits_hosts = Gauge(
            "bud_limits_hosts", "Hosts that keep limits together; 0 when they do not agree."
        )
        self.table_version = Gauge("bud_route_table_version", "Version of the route table in use.")
        self.table_age = Gauge(
            "bud_route_table_age_seconds", "Time since the table in use was published."
        )

    def ended(self, fact: RequestFact) -> None:
        """Count a request that has been answered, soon: many behind one another take less time."""
        self._ended.append(fact)
        if len(self._ended) >= _AT_ONCE:
            self._count_ended()

    def _count_ended(self) -> None:
        ended, self._ended = self._ended, []
        for fact in ended:
            self._count(fact)

    def _count(self, fact: RequestFact) -> None:
        # A model name nobody has is not made a label: callers could fill the memory with them.
        model = fact.model if fact.deployment_id else ""
        self.requests.count((fact.endpoint, model, str(fact.status)), 1)
        if fact.error_class:
            self.errors.add(model, fact.error_class)
            if fact.blocked_by and fact.error_class == "blocked":
                self.blocked.add(fact.blocked_by)
        if not model:
            return
        labels, duration_ms = (model,), fact.duration_ms
        self.duration.count(duration_ms / 1000, labels)
        if fact.attempts:
            self.queue.count(fact.queue_ms / 1000, labels)
        if fact.connect_ms is not None:
            self.connect.count(fact.connect_ms / 1000, labels)
        if fact.cost_usd is not None:
            self.cost.count(labels, fact.cost_usd)
        if fact.ttft_ms is not None and (tokens := fact.output_tokens) and tokens > 1:
            streamed_s = (duration_ms - fact.ttft_ms) / 1000
            self.time_per_token.count(streamed_s / (tokens - 1), labels)

    def shadow_ended(self, fact: RequestFact, model: str) -> None:
        """Count a copy of a request to `model` that has ended; it is in no other metric."""
        labels = (model, fact.model)
        self.shadow_requests.add(*labels, str(fact.status))
        if fact.error_class:
            self.shadow_errors.add(*labels, fact.error_class)
        self.shadow_duration.observe(fact.duration_ms / 1000, *labels)
        if fact.ttft_ms is not None:
            self.shadow_ttft.observe(fact.ttft_ms / 1000, *labels)
        self.shadow_tokens.add(*labels, "input", value=fact.input_tokens or 0)
        self.shadow_tokens.add(*labels, "output", value=fact.output_tokens or 0)

    def text(self) -> str:
        """Every metric in Prometheus' text form."""
        self._count_ended()
        return text(each for each in vars(self).values() if isinstance(each, Counter | Histogram))


def text(metrics: Iterable[Counter | Histogram]) -> str:
    """Metrics in Prometheus' text form."""
    lines: list[str] = []
    for metric in metrics:
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
