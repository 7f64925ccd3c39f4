"""What needs a person's attention, for Home: gathered from every domain, the worst first."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

from app import formats
from core import jobs
from core.clusters import services as clusters
from core.deployments import services as deployments
from core.jobs.schemas import JobView
from core.kernel import clock
from core.kernel.actor import Actor
from core.metrics import services as metrics
from core.metrics.schemas import Window
from core.prices import services as prices

Severity = Literal["error", "warning", "info"]

_FAILED_JOBS_FOR = timedelta(hours=24)
_LOW_DISK_BYTES = 5 * 1024**3
_LOW_MEMORY_SHARE = 0.08
# A spike is at least this many failures, at this share, and this much worse than the day.
_SPIKE_ERRORS, _SPIKE_RATE, _SPIKE_FACTOR = 5, 0.05, 2.0
_LATE_S = 30.0
_OF_LIMITS = ("rate_limited", "budget_exceeded")


@dataclass(frozen=True)
class Notice:
    """One thing to look at, and the page (with its query) where to do so."""

    severity: Severity
    text: str
    link: str = ""
    page: str = ""
    query: dict[str, str] = field(default_factory=dict)


def notices(actor: Actor, project_id: str) -> list[Notice]:
    """Everything that needs attention in a project; for admins, of the installation too."""
    found = [*_deployments(actor, project_id), *_jobs(actor, project_id)]
    found += [*_error_spike(actor, project_id), *_machine(), *_limited(actor, project_id)]
    if actor.is_admin:
        found += [*_facts(actor), *_prices(actor, project_id)]
    order = ("error", "warning", "info")
    return sorted(found, key=lambda notice: order.index(notice.severity))


def _deployments(actor: Actor, project_id: str) -> list[Notice]:
    return [
        Notice(
            "error" if view.state == "failed" else "warning",
            f"Deployment {view.name} is {view.state}: {view.reason or 'see its page'}",
            "Look at it",
            "deployment",
            {"id": view.id},
        )
        for view in deployments.list_deployments(actor, project_id)
        if view.state in ("failed", "degraded")
    ]


def _jobs(actor: Actor, project_id: str) -> list[Notice]:
    since = clock.now() - _FAILED_JOBS_FOR
    newest: dict[str, JobView] = {}
    for job in jobs.list_jobs(actor, project_id, limit=50):
        newest.setdefault(f"{job.kind} {job.subject}", job)  # a later try settles an earlier one
    return [
        Notice("error", f"Job “{job.title}” failed: {job.error}", "Jobs", "jobs", {"id": job.id})
        for job in newest.values()
        if job.state == "failed" and job.created_at > since
    ]


def _error_spike(actor: Actor, project_id: str) -> list[Notice]:
    now = metrics.summary(actor, project_id, Window.preset("15m"))
    if now.errors < _SPIKE_ERRORS or (now.error_rate or 0) < _SPIKE_RATE:
        return []
    day = metrics.summary(actor, project_id, Window.preset("24h"))
    all_is_new = now.requests >= day.requests
    if not all_is_new and (now.error_rate or 0) < (day.error_rate or 0) * _SPIKE_FACTOR:
        return []
    text = f"{formats.percent(now.error_rate)} of admitted requests failed in the last 15 minutes"
    return [Notice("error", text, "See which", "metrics", {"window": "15m", "outcome": "Failed"})]


def _limited(actor: Actor, project_id: str) -> list[Notice]:
    counts = metrics.errors(actor, project_id, Window.preset("24h"))
    refused = sum(row.requests for row in counts if row.error_class in _OF_LIMITS)
    if not refused:
        return []
    them = "1 request was" if refused == 1 else f"{refused:,} requests were"
    query = {"view": "Errors", "within": "24h"}
    return [Notice("info", f"{them} refused by a limit in 24 h.", "See which", "gateway", query)]


def _machine() -> list[Notice]:
    machine = clusters.this_machine()
    found = []
    if machine.disk_free_bytes < _LOW_DISK_BYTES:
        left = formats.size(machine.disk_free_bytes)
        found.append(Notice("warning", f"The disk is nearly full: {left} left."))
    if machine.memory_available_bytes < machine.memory_total_bytes * _LOW_MEMORY_SHARE:
        left = formats.size(machine.memory_available_bytes)
        text = f"Memory is nearly full: {left} left."
        found.append(Notice("warning", text, "Deployments", "deployments"))
    return found


def _facts(actor: Actor) -> list[Notice]:
    state = metrics.ingest_state(actor)
    found = []
    if state.dropped_facts:
        text = f"Requests that could not be written down for the metrics: {state.dropped_facts:,}."
        found.append(Notice("warning", text, "Metrics", "metrics"))
    if state.damaged_segments:
        text = f"Segments of request facts that were damaged: {state.damaged_segments:,}."
        found.append(Notice("warning", text, "Metrics", "metrics"))
    if state.oldest_waiting_s is not None and state.oldest_waiting_s > _LATE_S:
        late = formats.duration(state.oldest_waiting_s)
        found.append(Notice("warning", f"Metrics are {late} behind."))
    return found


def _prices(actor: Actor, project_id: str) -> list[Notice]:
    if prices.machine_price(actor) is not None:
        return []
    unpriced = metrics.summary(actor, project_id, Window.preset("30d")).unpriced_requests
    if not unpriced:
        return []
    them = "1 request has" if unpriced == 1 else f"{unpriced:,} requests have"
    text = f"{them} no cost: no price is set for this machine."
    return [Notice("info", text, "Set the price", "settings")]
