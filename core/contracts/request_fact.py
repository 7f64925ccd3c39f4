"""Request facts: one row a request, from the gateway to the metrics store.

Each gateway worker appends rows as JSON lines to a segment on disk, in `<data folder>/facts`; what
has its default value is left out.
A segment being written is named `<segment id>.open`; sealed, it is renamed to
`<segment id>.ndjson` and never changes again. A last line that a crash tore is dropped when
the segment is sealed. `core.metrics` ingests each sealed segment once, by its id, and deletes
it. What a full disk or `facts_max_mb` drops is counted in the gateway's metrics, and over all
workers and restarts in `dropped.json`.
"""

from __future__ import annotations

import msgspec

FOLDER_NAME = "facts"
OPEN_SUFFIX = ".open"
SEALED_SUFFIX = ".ndjson"
DROPPED_FILE_NAME = "dropped.json"


# Whose doing it was that a request got no answer, by `error_class`. The gateway refused these: no
# right, a rule, a limit, or a request that makes no sense.
REFUSED = frozenset(
    {
        *("invalid_request", "context_length", "capability", "not_found", "too_large"),
        *("authentication", "permission", "blocked", "guardrail"),
        *("rate_limited", "budget_exceeded", "limits_unavailable"),
    }
)
# What the response cache did: gave a kept answer; looked and found none; was not asked.
CACHE_RESULTS = ("hit", "miss", "bypass")
# The caller hung up. Everything else failed: it was admitted, and no server answered to the end.
CALLER_LEFT = "client_closed"


class RequestFact(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What happened to one request, as the gateway saw it.

    Durations are in milliseconds on a monotonic clock, from the moment the request's head was
    read; `queue_ms` is what it waited for a replica that was away. Token counts are the upstream's
    own `usage`, else None. `error_class` is "" on success, else one of `REFUSED`, `CALLER_LEFT`, or
    no_replica, connect, upstream_error, upstream_broke, timeout, gateway_stopped, internal.
    `blocked_by` is the name of the blocking rule or guardrail that refused it. `guardrails` is what
    each guardrail did: a JSON array of `GuardrailResult`, "" without any. `answered_by` is the
    model that answered in the place of `model`: a fallback. `trace_id` and `span_id` (that of the
    call to the replica) are there when the request is traced.

    `cache` is one of `CACHE_RESULTS`, "" where the project keeps no answers; a hit used no tokens,
    and `saved_tokens` and `saved_usd` are what the kept answer had used and cost. `hedge` is "lost"
    when a second replica was asked too and the first one answered, "won" when the second one did;
    `hedge_cost_usd`, a part of `cost_usd`, is then about what the one that was cancelled costs. A
    copy of a request that went to another model unseen has the request's id in `shadow_of`, and
    counts in no total. `response_bytes` has the frames of those chunks of a stream that were passed
    on as they came.
    """

    request_id: str
    started_unix_s: float
    endpoint: str
    model: str = ""
    project_id: str = ""
    deployment_id: str = ""
    replica_id: str = ""
    key_id: str = ""
    user_id: str = ""
    stream: bool = False
    status: int = 0
    error_class: str = ""
    error_message: str = ""
    blocked_by: str = ""
    guardrails: str = ""
    answered_by: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    queue_ms: float = 0.0
    connect_ms: float | None = None
    ttft_ms: float | None = None
    duration_ms: float = 0.0
    attempts: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    cost_usd: float | None = None
    worker_id: str = ""
    trace_id: str = ""
    span_id: str = ""
    cache: str = ""
    saved_tokens: int | None = None
    saved_usd: float | None = None
    hedge: str = ""
    hedge_cost_usd: float | None = None
    shadow_of: str = ""


class DroppedFacts(msgspec.Struct, kw_only=True):
    """The content of `dropped.json`: how many facts were not kept since the data folder exists."""

    dropped: int = 0
