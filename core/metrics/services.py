"""Use cases of metrics: every question a page, the command line or another domain may ask.

They work in any process: see `store.remote_or_local`. Percentiles are over raw rows, never over
averages. How cost is split is in docs/prices.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from core.accounts import api_keys
from core.deployments import services as deployments
from core.kernel import audit, clock, database
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput
from core.kernel.settings import settings
from core.metrics import segments, store
from core.metrics.schemas import (
    CacheNumbers,
    Costs,
    ErrorCount,
    ErrorPoint,
    Filters,
    GroupBy,
    GroupNumbers,
    GuardrailCount,
    IngestState,
    RequestCost,
    RequestRow,
    Scope,
    Series,
    SeriesPoint,
    Summary,
    Window,
)
from core.prices import services as prices
from core.prices.schemas import THIS_MACHINE

OTHER = "other"
_MAX_GROUPS = 7
_MAX_BUCKETS = 120
_MAX_CHOICES = 50
_MAX_ROWS = 100_000
_BUCKETS_S = (5, 10, 15, 30, 60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


def summary(
    actor: Actor, project_id: str, window: Window, filters: Filters | None = None
) -> Summary:
    """Requests, errors, tokens, TTFT and latency percentiles and cost of a window."""
    scope = _scope(actor, project_id, window, filters)
    with store.remote_or_local() as metrics:
        numbers = metrics.summary(scope)
    return Summary(window=window, **dict(numbers))


def bucket_s(window: Window) -> int:
    """The bucket that cuts a window into at most 120 parts, in seconds."""
    for seconds in _BUCKETS_S:
        if window.seconds / seconds <= _MAX_BUCKETS:
            return seconds
    return int(window.seconds / _MAX_BUCKETS / 86400 + 1) * 86400


def series(
    actor: Actor,
    project_id: str,
    window: Window,
    filters: Filters | None = None,
    *,
    group_by: GroupBy = "none",
    bucket: int | None = None,
) -> Series:
    """The same numbers over time, by model, deployment, key, or all together.

    Args:
        actor: Who asks.
        project_id: The project.
        window: From when to when.
        filters: Which requests; default all.
        group_by: The seven largest groups come by name, the rest as "other".
        bucket: Length of a bucket in seconds; default: see `bucket_s`.
    """
    scope = _scope(actor, project_id, window, filters)
    seconds = bucket or bucket_s(window)
    if not seconds >= 1 or window.seconds / seconds > 2000:
        raise InvalidInput("The bucket does not fit the window.", value=seconds)
    with store.remote_or_local() as metrics:
        labels = {"": "all"}
        if group_by != "none":
            largest = metrics.groups(scope, group_by, _MAX_GROUPS)
            labels = _labels(actor, project_id, group_by, largest)
        points = metrics.series(scope, group_by, seconds, list(labels))
    if any(point.group == OTHER for point in points):
        labels[OTHER] = OTHER
    return Series(bucket_s=seconds, labels=labels, points=_filled(points, labels, window, seconds))


def _filled(
    points: Sequence[SeriesPoint], labels: dict[str, str], window: Window, seconds: int
) -> list[SeriesPoint]:
    found = {(point.group, int(point.at.timestamp())): point for point in points}
    first = int(window.start.timestamp()) // seconds * seconds
    starts = range(first, int(window.end.timestamp()) + 1, seconds)
    return [
        found.get((group, at)) or SeriesPoint(at=datetime.fromtimestamp(at, UTC), group=group)
        for group in labels
        for at in starts
        if at < window.end.timestamp()
    ]


def top(
    actor: Actor,
    project_id: str,
    window: Window,
    filters: Filters | None = None,
    *,
    group_by: GroupBy = "model",
    limit: int = 20,
) -> list[GroupNumbers]:
    """The models, deployments or keys with the most requests, each with its numbers."""
    scope = _scope(actor, project_id, window, filters)
    with store.remote_or_local() as metrics:
        groups = metrics.groups(scope, group_by, limit)
    labels = _labels(actor, project_id, group_by, groups)
    return [group.model_copy(update={"label": labels[group.group]}) for group in groups]


def choices(actor: Actor, project_id: str, window: Window, group_by: GroupBy) -> dict[str, str]:
    """What the requests of a window can be filtered by: the group of each label.

    Those with the most requests come first, then the deployments and keys there are besides.
    """
    rows = top(actor, project_id, window, group_by=group_by, limit=_MAX_CHOICES)
    known: dict[str, str] = {}
    if group_by == "key":
        known = {label: key_id for key_id, label in _key_names(actor, project_id).items()}
    elif actor.may("deployment:read", project_id):
        views = deployments.list_deployments(actor, project_id)
        # Callers name a deployment as their model.
        known = {view.name: view.name if group_by == "model" else view.id for view in views}
    labels = {group: label for label, group in known.items()}
    seen = {}
    for row in rows:
        label = labels.get(row.group, row.label)
        if row.group and row.group not in labels and label in known:
            # Of a deployment that is gone, whose name another one has now.
            label = f"{label} ({row.group[-6:]})"
        if row.group:
            seen[label] = row.group
    return seen | known


def errors(
    actor: Actor, project_id: str, window: Window, filters: Filters | None = None
) -> list[ErrorCount]:
    """Errors by class, the most frequent first, each with its newest message."""
    scope = _scope(actor, project_id, window, filters)
    with store.remote_or_local() as metrics:
        return metrics.errors(scope)


def guardrail_counts(actor: Actor, project_id: str, window: Window) -> list[GuardrailCount]:
    """What the guardrails of a project did, by name, side and outcome."""
    scope = _scope(actor, project_id, window, None)
    with store.remote_or_local() as metrics:
        return metrics.guardrails(scope)


def cache_numbers(actor: Actor, project_id: str, window: Window) -> CacheNumbers:
    """What the response cache of a project did, and what its hits saved."""
    scope = _scope(actor, project_id, window, None)
    with store.remote_or_local() as metrics:
        return metrics.cache(scope)


def errors_over_time(
    actor: Actor, project_id: str, window: Window, filters: Filters | None = None
) -> list[ErrorPoint]:
    """Errors by time bucket (see `bucket_s`) and class."""
    scope = _scope(actor, project_id, window, filters)
    with store.remote_or_local() as metrics:
        return metrics.errors_over_time(scope, bucket_s(window))


def requests(
    actor: Actor,
    project_id: str,
    window: Window,
    filters: Filters | None = None,
    *,
    limit: int = 100,
) -> list[RequestRow]:
    """The newest requests of a window, each with its error message and cost."""
    if not 1 <= limit <= _MAX_ROWS:
        raise InvalidInput(
            "That is too many requests at once.", value=limit, remedy=f"At most {_MAX_ROWS:,}."
        )
    scope = _scope(actor, project_id, window, filters)
    with store.remote_or_local() as metrics:
        rows = metrics.requests(scope, limit)
    names = _key_names(actor, project_id)
    return [
        row.model_copy(update={"key_name": names.get(row.key_id, row.key_id[-6:])}) for row in rows
    ]


def request_cost(actor: Actor, project_id: str, request_id: str) -> RequestCost:
    """What one request cost; "not known yet" until its fact has been ingested (about 2 s)."""
    actor.require("metrics:read", project_id)
    spans = prices.machine_price_spans(actor, datetime.fromtimestamp(0, UTC), clock.now())
    with store.remote_or_local() as metrics:
        row = metrics.request(project_id, request_id, spans)
    if row is None:
        return RequestCost(cost_usd=None, basis="not known yet")
    return RequestCost(cost_usd=row.cost_usd, basis=row.cost_basis)


def estimate_cost(
    actor: Actor,
    project_id: str,
    model: str,
    *,
    duration_ms: float,
    input_tokens: int | None,
    output_tokens: int | None,
    cached_tokens: int | None = None,
    began: bool = True,
    cluster_id: str = THIS_MACHINE,
) -> RequestCost:
    """What a request that has just ended costs, at once and without looking it up.

    At a token price it is exact. By machine time, which is also what an answer that broke off
    without token counts has, it is what the request costs when it had the machine for itself, so
    an upper bound: requests at the same time share that time.

    Args:
        actor: Who asks.
        project_id: In which project.
        model: The model name that was called.
        duration_ms: From the request to the end of its answer.
        input_tokens: As the server counted them; None when it did not say.
        output_tokens: The same, of the answer.
        cached_tokens: How many of the input tokens were in the server's cache.
        began: Whether an answer began. Of a request that failed before it is not known here
            whether any machine worked on it: its cost is "not known yet".
        cluster_id: The machine that worked on it.
    """
    price = prices.token_price(actor, project_id, model)
    if price is not None and input_tokens is not None:
        usd = price.cost_usd(input_tokens, output_tokens or 0, cached_tokens or 0)
        if usd is not None:
            return RequestCost(cost_usd=usd, basis="token price")
    machine = prices.machine_price(actor, cluster_id)
    if machine is None or machine.usd_per_hour is None:
        return RequestCost(cost_usd=None, basis="not set")
    if not began:
        return RequestCost(cost_usd=None, basis="not known yet")
    return RequestCost(
        cost_usd=duration_ms / 3_600_000 * machine.usd_per_hour, basis="machine time"
    )


def costs(actor: Actor, project_id: str, window: Window) -> Costs:
    """What the project's requests cost and, for admins, what the machines cost, idle apart."""
    scope = _scope(actor, project_id, window, None)
    with store.remote_or_local() as metrics:
        numbers = metrics.summary(scope)
        by_model = metrics.groups(scope, "model", 50)
        machines = metrics.machines(window, scope.prices) if actor.is_admin else []
    return Costs(
        window=window,
        requests_usd=numbers.cost_usd,
        by_model=[group.model_copy(update={"label": group.group}) for group in by_model],
        unpriced_requests=numbers.unpriced_requests,
        machines=machines,
    )


def ingest_state(actor: Actor) -> IngestState:
    """How many facts wait, were damaged or dropped; the same for every project."""
    with store.remote_or_local() as metrics:
        last_ingested_at = metrics.last_ingested_at()
    waiting = segments.sealed(settings().data_dir)
    oldest = min((segment.modified_unix_s for segment in waiting), default=None)
    return IngestState(
        waiting_segments=len(waiting),
        waiting_bytes=sum(segment.size_bytes for segment in waiting),
        oldest_waiting_s=None if oldest is None else max(clock.unix_s() - oldest, 0.0),
        damaged_segments=segments.damaged_count(settings().data_dir),
        dropped_facts=segments.dropped_facts(settings().data_dir),
        last_ingested_at=last_ingested_at,
    )


def forget_project(actor: Actor, project_id: str) -> int:
    """Delete every request of a project that goes away; how many there were."""
    actor.require("project:delete", project_id)
    with store.remote_or_local() as metrics:
        count = metrics.forget_project(project_id)
    with database.transaction() as tx:
        audit.record(
            tx,
            actor,
            "metrics.forgotten",
            f"project:{project_id}",
            project_id=project_id,
            requests=count,
        )
    return count


def prune(actor: Actor, before: datetime) -> int:
    """Delete every request from before a moment; how many there were. Admins only.

    Only in the process that owns the store: the app.
    """
    actor.require("metrics:delete")
    pruned = store.own().prune(before.timestamp())
    if pruned:
        with database.transaction() as tx:
            audit.record(
                tx, actor, "metrics.pruned", "metrics", before=before.isoformat(), requests=pruned
            )
    return pruned


def _scope(actor: Actor, project_id: str, window: Window, filters: Filters | None) -> Scope:
    actor.require("metrics:read", project_id)
    return Scope(
        project_id=project_id,
        window=window,
        filters=filters or Filters(),
        prices=prices.machine_price_spans(actor, window.start, window.end),
    )


def _labels(
    actor: Actor, project_id: str, group_by: GroupBy, groups: Sequence[GroupNumbers]
) -> dict[str, str]:
    if group_by == "key":
        names = _key_names(actor, project_id)
        return {row.group: names.get(row.group, row.group[-6:] or "no key") for row in groups}
    if group_by == "deployment":
        return _deployment_labels(groups)
    return {row.group: row.group or "no model" for row in groups}


def _deployment_labels(groups: Sequence[GroupNumbers]) -> dict[str, str]:
    # The store gives the model name last seen; two deployments may have had the same one.
    seen = [row.label for row in groups]
    labels = {}
    for row in groups:
        clash = seen.count(row.label) > 1
        labels[row.group] = f"{row.label} ({row.group[-6:]})" if clash else row.label
    return {group: label or "no deployment" for group, label in labels.items()}


def _key_names(actor: Actor, project_id: str) -> dict[str, str]:
    if not actor.may("key:read", project_id):
        return {}
    return {key.id: f"{key.name} …{key.last_four}" for key in api_keys.list_keys(actor, project_id)}
