"""What a worker says of itself: `/health` and `/metrics`."""

from __future__ import annotations

import msgspec

from core.kernel import clock
from gateway.facts import FactWriter
from gateway.http_request import Response
from gateway.stats import Stats
from gateway.table import TableHolder


def health(
    tables: TableHolder, facts: FactWriter, *, stopping: bool, uptime_s: float, in_flight: int
) -> Response:
    """How the worker is; 503 while it stops.

    Args:
        tables: With the route table in use.
        facts: Its writer of facts.
        stopping: It takes no new work.
        uptime_s: Since it started, in seconds.
        in_flight: Requests being worked on.
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
    }
    return Response(
        msgspec.json.encode(document),
        503 if stopping else 200,
        {"Content-Type": "application/json; charset=utf-8"},
    )


def metrics(stats: Stats, tables: TableHolder, *, in_flight: int, facts_dropped: int) -> Response:
    """Every number in Prometheus' text form."""
    table = tables.current
    stats.in_flight.set(in_flight)
    stats.facts_dropped.set(facts_dropped)
    stats.table_version.set(table.version)
    age_s = clock.unix_s() - table.published_unix_s if table.version else 0.0
    stats.table_age.set(max(age_s, 0.0))
    stats.replica_in_flight.values = {
        (backend.replica.id,): backend.in_flight for backend in tables.backends
    }
    stats.replica_up.values = {
        (backend.replica.id,): not backend.away for backend in tables.backends
    }
    for (_, model), target in table.routes.items():
        for share in target.shares:
            traffic = share.target.traffic
            stats.target_requests.values[model, share.name] = traffic.requests
            stats.target_failures.values[model, share.name] = traffic.failures
    return Response(
        stats.text().encode(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )
