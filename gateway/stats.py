"""The gateway's own numbers, in Prometheus' form."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Stats:
    """Counters of one worker, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "bud_requests",
            "Requests answered, by endpoint, model and HTTP status.",
            ["endpoint", "model", "status"],
            registry=self.registry,
        )
        self.tokens = Counter(
            "bud_tokens", "Tokens, by model and direction.", ["model", "kind"],
            registry=self.registry,
        )  # fmt: skip
        self.retries = Counter(
            "bud_retries", "Attempts after the first one, by model.", ["model"],
            registry=self.registry,
        )  # fmt: skip
        self.ttft = Histogram(
            "bud_time_to_first_token_seconds", "Until the first token of a stream.", ["model"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.duration = Histogram(
            "bud_request_duration_seconds", "Until the last byte.", ["model"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.in_flight = Gauge(
            "bud_requests_in_flight", "Requests being worked on.", registry=self.registry
        )
        self.table_version = Gauge(
            "bud_route_table_version", "Version of the route table in use.", registry=self.registry
        )
        self.facts_dropped = Gauge(
            "bud_facts_dropped_total", "Request facts that could not be kept.",
            registry=self.registry,
        )  # fmt: skip
        self.loop_lag = Gauge(
            "bud_event_loop_lag_seconds", "How late the event loop woke up last.",
            registry=self.registry,
        )  # fmt: skip
