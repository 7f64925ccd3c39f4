"""What a worker says of itself: `/health` and `/metrics`."""

from __future__ import annotations

from collections import Counter

import msgspec

from core.contracts.gateway_state import Breaker
from core.kernel import clock
from gateway.facts import FactWriter
from gateway.front import Front
from gateway.http_request import Response
from gateway.process_stats import ProcessStats
from gateway.stats import Stats
from gateway.table import TableHolder

_BREAKER_STATES: dict[Breaker, int] = {"closed": 0, "half_open": 1, "open": 2}
# Reads the machine's files: for any thread.
of_process = ProcessStats().text


def health(
    tables: TableHolder,
    facts: FactWriter,
    *,
    stopping: bool,
    uptime_s: float,
    in_flight: int,
    workers: int,
) -> Response:
    """How the worker is; 503 while it stops.

    Args:
        tables: With the route table in use.
        facts: Its writer of facts.
        stopping: It takes no new work.
        uptime_s: Since it started, in seconds.
        in_flight: Requests being worked on.
        workers: How many there are of the same gateway, with this one.
    """
    table = tables.current
    age_s = round(clock.unix_s() - table.published_unix_s, 1) if table.version else None
    document = {
        "status": "stopping" if stopping else "ok",
        "worker_id": facts.worker_id,
        "route_table_version": table.version,
        "route_table_age_s": age_s,
        "routes": len(table.routes),
        "uptime_s": round(uptime_s, 1),
        "in_flight": in_flight,
        "facts_dropped": facts.dropped,
        "workers": workers,
    }
    return Response(
        msgspec.json.encode(document),
        503 if stopping else 200,
        {"Content-Type": "application/json; charset=utf-8"},
    )


def metrics(
    stats: Stats,
    tables: TableHolder,
    front: Front,
    *,
    in_flight: int,
    facts_dropped: int,
    captures_dropped: int,
    cache_dropped: int,
    traces_dropped: int,
    limits_hosts: int,
) -> str:
    """The numbers of one worker in Prometheus' text form, without those of its process."""
    table = tables.current
    stats.connections.set(len(front.connections))
    stats.not_http.values = {(str(status),): count for status, count in front.refused.items()}
    stats.captures_dropped.values[()] = captures_dropped
    stats.cache_dropped.values[()] = cache_dropped
    stats.traces_dropped.values[()] = traces_dropped
    stats.in_flight.set(in_flight)
    stats.facts_dropped.set(facts_dropped)
    stats.limits_hosts.set(limits_hosts)
    stats.table_version.set(table.version)
    age_s = clock.unix_s() - table.published_unix_s if table.version else 0.0
    stats.table_age.set(max(age_s, 0.0))
    _set_replicas(stats, tables)
    _set_targets(stats, tables)
    return stats.text()


def _set_replicas(stats: Stats, tables: TableHolder) -> None:
    backends = [((backend.replica.id,), backend) for backend in tables.backends]
    stats.replica_in_flight.values = {labels: backend.in_flight for labels, backend in backends}
    stats.replica_up.values = {labels: not backend.away for labels, backend in backends}
    stats.replica_breaker.values = {
        labels: _BREAKER_STATES[backend.breaker] for labels, backend in backends
    }
    stats.replica_requests.values = {labels: backend.requests for labels, backend in backends}
    stats.replica_failures.values = {labels: backend.failures for labels, backend in backends}


def _set_targets(stats: Stats, tables: TableHolder) -> None:
    sent: Counter[tuple[str, ...]] = Counter()
    failed: Counter[tuple[str, ...]] = Counter()
    # Routes of several projects may have the same names.
    for (_, model), target in tables.current.routes.items():
        for share in target.shares:
            sent[model, share.name] += share.target.traffic.requests
            failed[model, share.name] += share.target.traffic.failures
    stats.target_requests.values, stats.target_failures.values = dict(sent), dict(failed)
