"""What metrics are asked for, and what they answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal, Self

import msgspec
from pydantic import BaseModel, ConfigDict

from core.contracts.request_fact import RequestFact
from core.kernel import clock
from core.kernel.errors import InvalidInput
from core.prices.schemas import THIS_MACHINE, PriceSpan

GroupBy = Literal["none", "model", "deployment", "key"]
# "unanswered" is every outcome but "ok".
Outcome = Literal["all", "ok", "failed", "refused", "cancelled", "unanswered"]
# Whose requests: callers', or copies of them that went to another model unseen.
Traffic = Literal["callers", "shadow", "all"]
CostBasis = Literal["token price", "machine time", "not set", "not known yet"]

PRESETS: dict[str, timedelta] = {
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "6h": timedelta(hours=6),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
}


class StoredFact(RequestFact, kw_only=True):
    """A request fact with what the store adds: the cluster whose machine worked on it."""

    cluster_id: str = THIS_MACHINE


class _View(BaseModel):
    model_config = ConfigDict(frozen=True, protected_namespaces=())


class Window(_View):
    """From `start` to `end` (exclusive), both in UTC."""

    start: datetime
    end: datetime

    @classmethod
    def preset(cls, name: str, end: datetime | None = None) -> Self:
        """The last 15m, 1h, 6h, 24h, 7d or 30d. InvalidInput for another name."""
        if name not in PRESETS:
            raise InvalidInput(
                "There is no such time window.", value=name, remedy=f"Use one of: {_NAMES}."
            )
        # The present second is not over: a request that has just ended must be inside.
        end = end or clock.now() + timedelta(seconds=1)
        return cls(start=end - PRESETS[name], end=end)

    @classmethod
    def today(cls) -> Self:
        """From midnight (UTC) until now."""
        end = clock.now() + timedelta(seconds=1)
        return cls(start=end.replace(hour=0, minute=0, second=0, microsecond=0), end=end)

    @classmethod
    def between(cls, start: datetime, end: datetime) -> Self:
        """A window of one's own. InvalidInput when it is empty; a moment without zone is UTC."""
        start, end = _utc(start), _utc(end)
        if start >= end:
            raise InvalidInput(
                "The time window is empty.", value=f"{start} to {end}", remedy="Start before end."
            )
        return cls(start=start, end=end)

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.end - self.start).total_seconds()


_NAMES = ", ".join(PRESETS)


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Filters(_View):
    """Which requests of a project; empty means all. `error_class` is one of the request fact's."""

    model: str = ""
    deployment_id: str = ""
    key_id: str = ""
    user_id: str = ""
    request_id: str = ""
    error_class: str = ""
    outcome: Outcome = "all"
    traffic: Traffic = "callers"


class Scope(_View):
    """What a store query covers: always one project, one window; prices to cost it with."""

    project_id: str
    window: Window
    filters: Filters = Filters()
    prices: list[PriceSpan] = []


class Percentiles(_View):
    """Milliseconds; None when there was nothing to measure."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class Numbers(_View):
    """What a set of requests comes to.

    `errors` are those that failed: neither `refused` by the gateway (no right, a limit, a request
    that makes no sense) nor `cancelled` (the caller hung up). Durations are those of requests that
    succeeded. `generation_tokens_per_s` is the median over requests of output tokens by the time
    from the first token to the last. `cost_usd` is None when no request has a price;
    `unpriced_requests` are those that succeeded on a replica but have none.
    """

    requests: int = 0
    errors: int = 0
    refused: int = 0
    cancelled: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    ttft: Percentiles = Percentiles()
    latency: Percentiles = Percentiles()
    generation_tokens_per_s: float | None = None
    cost_usd: float | None = None
    unpriced_requests: int = 0

    @property
    def error_rate(self) -> float | None:
        """The share that failed of the requests that were admitted, 0 to 1."""
        admitted = self.requests - self.refused
        return self.errors / admitted if admitted else None


class Summary(Numbers):
    """The numbers of a window; `output_tokens_per_s` is averaged over the whole window."""

    window: Window

    @property
    def requests_per_minute(self) -> float:
        """Averaged over the window."""
        return self.requests / self.window.seconds * 60

    @property
    def output_tokens_per_s(self) -> float:
        """Averaged over the window, idle times included."""
        return self.output_tokens / self.window.seconds


class SeriesPoint(Numbers):
    """One time bucket of one group; `at` is the bucket's start."""

    at: datetime
    group: str = ""


class Series(_View):
    """Numbers over time; every group has every bucket, empty ones with `requests` 0.

    `labels` gives each group's name for people, in order of size; small groups are summed
    up in the group "other" (whose percentiles are left empty).
    """

    bucket_s: int
    labels: dict[str, str]
    points: list[SeriesPoint]


class GroupNumbers(Numbers):
    """The numbers of one model, deployment or key."""

    group: str
    label: str = ""
    last_at: datetime


class ErrorCount(_View):
    """How often one kind of error came, with its newest message."""

    error_class: str
    requests: int
    last_message: str
    last_at: datetime


class ErrorPoint(_View):
    """Errors of one class in one time bucket."""

    at: datetime
    error_class: str
    requests: int


class GuardrailCount(_View):
    """How often a guardrail did something with one side of requests, and its mean time, in ms."""

    rule: str
    side: str
    outcome: str
    requests: int
    mean_ms: float
    last_at: datetime


class CacheNumbers(_View):
    """What the response cache did with a project's requests, and what hits did not take."""

    hits: int = 0
    misses: int = 0
    bypassed: int = 0
    saved_tokens: int = 0
    saved_usd: float | None = None

    @property
    def hit_rate(self) -> float | None:
        """The share of hits of the requests that were looked up, 0 to 1."""
        looked_up = self.hits + self.misses
        return self.hits / looked_up if looked_up else None


class RequestRow(_View):
    """One request; `started_at` is in UTC, `error_class` "" means it succeeded.

    `blocked_by` is the blocking rule or guardrail that refused it, `guardrails` what each guardrail
    did (JSON, as in the fact), `answered_by` the fallback that answered. `cache`, `hedge` and
    `shadow_of` are the fact's.
    """

    request_id: str
    started_at: datetime
    endpoint: str
    model: str
    deployment_id: str
    replica_id: str
    key_id: str
    key_name: str = ""
    user_id: str
    stream: bool
    status: int
    error_class: str
    error_message: str
    blocked_by: str = ""
    answered_by: str = ""
    guardrails: str = ""
    cache: str = ""
    hedge: str = ""
    shadow_of: str = ""
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    connect_ms: float | None
    ttft_ms: float | None
    duration_ms: float
    attempts: int
    cost_usd: float | None
    cost_basis: CostBasis = "not set"


class RequestCost(_View):
    """What a request cost, and where the figure comes from.

    With basis "machine time" it is an estimate: the request's share of the machine's busy time.
    """

    cost_usd: float | None
    basis: CostBasis


class MachineTime(_View):
    """Time of a machine in a window, in seconds, and what it cost; None: no price was set."""

    cluster_id: str
    up_s: float
    busy_s: float
    busy_usd: float | None
    idle_usd: float | None

    @property
    def idle_s(self) -> float:
        """Time in which Bud ran and no request was worked on."""
        return max(self.up_s - self.busy_s, 0.0)

    @property
    def total_usd(self) -> float | None:
        """Busy and idle together."""
        if self.busy_usd is None or self.idle_usd is None:
            return None
        return self.busy_usd + self.idle_usd


class Costs(_View):
    """What a project's requests cost in a window, and the machines they shared.

    `machines` covers every project of the tenant, so only its admins see it; else it is empty.
    """

    window: Window
    requests_usd: float | None
    by_model: list[GroupNumbers]
    unpriced_requests: int
    machines: list[MachineTime]


class IngestState(_View):
    """How far the store is behind, and what was lost on the way."""

    waiting_segments: int
    waiting_bytes: int
    oldest_waiting_s: float | None
    damaged_segments: int
    dropped_facts: int
    last_ingested_at: datetime | None


class Segment(msgspec.Struct, frozen=True):
    """A sealed segment, read: its rows and how many of its lines were damaged."""

    id: str
    facts: list[StoredFact]
    damaged_lines: int
