"""Traces of requests by OTLP over HTTP, in OpenTelemetry's names for generative AI.

Spans are made of request facts in a thread of their own, and sent as OTLP's JSON: see
docs/decisions/0018. A request that is not sampled costs a look at one header.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from core.contracts.request_fact import RequestFact
from core.kernel import clock
from gateway.access_config import TracingConfig
from gateway.http_request import Headers, Request

log = logging.getLogger(__name__)

_PARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_SAMPLED = 1
_MAX_QUEUED = 4096
_MAX_BATCH = 512
_BATCH_S = 1.0
_ANSWER_S = 5.0
_MAX_ANSWER_BYTES = 64 * 1024
_LAST_ANSWER_S = 2.0
_BACK_OFF_S = 1.0
_TRIES = 5
_RETRY_STATUSES = frozenset({429, 502, 503, 504})
_LOG_EVERY_S = 60.0

_SERVER, _CLIENT = 2, 3
_ERROR = 2
_OPERATIONS = {
    "chat.completions": "chat",
    "messages": "chat",
    "responses": "chat",
    "responses.background": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
# Our kinds of providers in OpenTelemetry's names; others are called as we call them.
_PROVIDERS = {
    "azure_openai": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "vertex": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
}
_OWN = "bud"


@dataclass(slots=True)
class Trace:
    """Where the spans of one request belong; ids in hexadecimal.

    `span_id` is the request's, `call_id` that of its call to a replica. `is_asked` says that the
    caller wants it, and no draw of ours.
    """

    trace_id: str
    parent_id: str
    span_id: str
    call_id: str
    method: str
    path: str
    is_asked: bool = False


@dataclass(frozen=True, slots=True)
class _Ended:
    trace: Trace
    fact: RequestFact
    provider: str


@dataclass(frozen=True, slots=True)
class _Failure:
    why: str
    may_pass: bool


class Tracer:
    """Samples requests, and sends their spans.

    Args:
        config: With an endpoint.
        worker_id: As in facts.
    """

    def __init__(self, config: TracingConfig, worker_id: str) -> None:
        self.dropped = 0
        self._url = _traces_url(config.endpoint)
        self._headers = {name: value.reveal() for name, value in config.headers.items()}
        self._ratio = config.ratio
        self._resource = {
            "attributes": _attributes(
                {"service.name": "bud-gateway", "service.instance.id": worker_id}
            )
        }
        self._queue: deque[_Ended] = deque()
        self._something = threading.Event()
        self._stopping = threading.Event()
        self._logged_s = float("-inf")
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send what is left, once."""
        self._stopping.set()
        self._something.set()
        self._thread.join(timeout=_LAST_ANSWER_S + 1)

    def begin(self, request: Request, fact: RequestFact) -> Trace | None:
        """The trace of a request, whose ids go into its fact; None when it is not sampled.

        A caller that says whether it is traced itself is followed; `add` asks whether it may.
        """
        found = request.headers.once(_parent)
        if found is None:
            if random.random() >= self._ratio:  # noqa: S311 (not cryptography)
                return None
            return _placed(os.urandom(16).hex(), "", request.method, request.path[:200], fact)
        if not int(found[3], 16) & _SAMPLED:
            return None
        trace = _placed(found[1], found[2], request.method, request.path[:200], fact)
        trace.is_asked = True
        return trace

    def follow(self, trace: Trace, fact: RequestFact) -> Trace:
        """The trace of work that goes on when the request of `trace` has been answered."""
        return _placed(trace.trace_id, trace.span_id, trace.method, trace.path, fact)

    def add(self, trace: Trace, fact: RequestFact, provider: str) -> None:
        """Keep a request that has ended.

        What a caller without a valid key wants to be traced is drawn like any other request:
        nobody else can fill the collector.

        Args:
            trace: As `begin` gave it.
            fact: The request's.
            provider: The kind of provider that answered; "" for a replica of our own.
        """
        if trace.is_asked and not fact.project_id and random.random() >= self._ratio:  # noqa: S311
            return
        if len(self._queue) >= _MAX_QUEUED:
            self._drop(1, "they are made faster than they can be sent")
            return
        self._queue.append(_Ended(trace, fact, provider))
        if not self._something.is_set():
            self._something.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._something.wait()
            self._stopping.wait(_BATCH_S)
            self._something.clear()
            while self._queue and not self._stopping.is_set():
                self._send(self._taken())
        if self._queue:
            self._post(self._encoded(self._taken()), _LAST_ANSWER_S)

    def _taken(self) -> list[_Ended]:
        return [self._queue.popleft() for _ in range(min(len(self._queue), _MAX_BATCH))]

    def _encoded(self, ended: list[_Ended]) -> bytes:
        spans = [span for each in ended for span in _spans(each)]
        scope = {"scope": {"name": "bud.gateway"}, "spans": spans}
        resource = {"resource": self._resource, "scopeSpans": [scope]}
        return msgspec.json.encode({"resourceSpans": [resource]})

    def _send(self, ended: list[_Ended]) -> None:
        batch, why = self._encoded(ended), ""
        for attempt in range(_TRIES):
            failure = self._post(batch, _ANSWER_S)
            if failure is None:
                return
            why = failure.why
            back_off_s = _BACK_OFF_S * 2**attempt * random.uniform(0.5, 1.0)  # noqa: S311
            if not failure.may_pass or self._stopping.wait(back_off_s):
                break
        self._drop(len(ended), why)

    def _post(self, batch: bytes, answer_s: float) -> _Failure | None:
        # Loaded in this thread, and only where traces are sent.
        import http.client
        import urllib.error
        import urllib.request

        class Unfollowed(urllib.request.HTTPRedirectHandler):
            # The headers hold the collector's token, which is for nobody else.
            def redirect_request(self, *_given: Any) -> None:
                return None

        headers = {"Content-Type": "application/json", **self._headers}
        post = urllib.request.Request(self._url, batch, headers, method="POST")  # noqa: S310
        try:
            with urllib.request.build_opener(Unfollowed).open(post, timeout=answer_s) as answer:
                answer.read(_MAX_ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            with error:
                return _Failure(f"status {error.code}", error.code in _RETRY_STATUSES)
        except (OSError, ValueError, http.client.HTTPException) as error:
            return _Failure(str(getattr(error, "reason", error)), may_pass=True)
        return None

    def _drop(self, number: int, why: str) -> None:
        self.dropped += number
        now_s = clock.monotonic_s()
        if now_s - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = now_s
            log.error("%d traces were dropped so far: %s", self.dropped, why)


def _parent(headers: Headers) -> re.Match[str] | None:
    """What the caller says of its own trace; None when it says nothing valid."""
    found = _PARENT.fullmatch(headers.get("traceparent"))
    return None if found is None or found[1] == _NO_TRACE or found[2] == _NO_SPAN else found


def traceparent(fact: RequestFact) -> str:
    """The header that tells a replica of the call; "" when the request is not traced."""
    return f"00-{fact.trace_id}-{fact.span_id}-01" if fact.trace_id else ""


def _placed(trace_id: str, parent_id: str, method: str, path: str, fact: RequestFact) -> Trace:
    ids = os.urandom(16).hex()
    fact.trace_id, fact.span_id = trace_id, ids[16:]
    return Trace(trace_id, parent_id, ids[:16], ids[16:], method, path)


def _traces_url(endpoint: str) -> str:
    """The address for traces: OTLP's own path stands behind the endpoint's."""
    path = urlsplit(endpoint).path
    return endpoint if path.endswith("/v1/traces") else f"{endpoint.rstrip('/')}/v1/traces"


def _spans(ended: _Ended) -> list[dict[str, object]]:
    """The request's span, and that of its call to a replica when there was one."""
    trace, fact = ended.trace, ended.fact
    began_ns = int(fact.started_unix_s * 1e9)
    ended_ns = began_ns + int(fact.duration_ms * 1e6)
    request = _span(
        trace,
        trace.span_id,
        trace.parent_id,
        f"{trace.method} {fact.endpoint}",
        _SERVER,
        (began_ns, ended_ns),
        {
            "http.request.method": trace.method,
            "url.path": trace.path,
            "http.response.status_code": fact.status,
            "error.type": fact.error_class or None,
            "bud.request.id": fact.request_id,
            "bud.project.id": fact.project_id or None,
            "bud.key.id": fact.key_id or None,
            "bud.cost_usd": fact.cost_usd,
            "bud.blocked_by": fact.blocked_by or None,
            "bud.guardrails": fact.guardrails or None,
            "bud.cache": fact.cache or None,
            "bud.cache.saved_tokens": fact.saved_tokens,
            "bud.shadow_of": fact.shadow_of or None,
        },
    )
    # The caller's own fault is no error of the server's.
    if fact.status >= 500 or (fact.error_class and fact.status == 200):
        request["status"] = {"code": _ERROR, "message": fact.error_class}
    if not fact.attempts:
        return [request]
    return [request, _call(ended, began_ns + int(fact.queue_ms * 1e6), ended_ns)]


def _call(ended: _Ended, began_ns: int, ended_ns: int) -> dict[str, object]:
    trace, fact = ended.trace, ended.fact
    operation = _OPERATIONS.get(fact.endpoint, fact.endpoint)
    first_s = None if fact.ttft_ms is None else (fact.ttft_ms - fact.queue_ms) / 1000
    call = _span(
        trace,
        trace.call_id,
        trace.span_id,
        f"{operation} {fact.model}",
        _CLIENT,
        (began_ns, ended_ns),
        {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": _PROVIDERS.get(ended.provider, ended.provider) or _OWN,
            "gen_ai.request.model": fact.model,
            "gen_ai.request.stream": fact.stream,
            "gen_ai.response.model": (fact.answered_by or fact.model)
            if fact.status == 200
            else None,
            "gen_ai.response.time_to_first_chunk": first_s,
            "gen_ai.usage.input_tokens": fact.input_tokens,
            "gen_ai.usage.output_tokens": fact.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": fact.cached_tokens,
            "error.type": fact.error_class or None,
            "bud.deployment.id": fact.deployment_id or None,
            "bud.replica.id": fact.replica_id or None,
            "bud.attempts": fact.attempts,
            "bud.hedge": fact.hedge or None,
            "bud.queue_ms": fact.queue_ms,
            "bud.connect_ms": fact.connect_ms,
        },
    )
    if fact.error_class:
        call["status"] = {"code": _ERROR, "message": fact.error_class}
    return call


def _span(
    trace: Trace,
    span_id: str,
    parent_id: str,
    name: str,
    kind: int,
    times_ns: tuple[int, int],
    attributes: dict[str, object],
) -> dict[str, object]:
    began_ns, ended_ns = times_ns
    return {
        "traceId": trace.trace_id,
        "spanId": span_id,
        "parentSpanId": parent_id,
        "flags": _SAMPLED,
        "name": name,
        "kind": kind,
        "startTimeUnixNano": str(began_ns),
        "endTimeUnixNano": str(max(ended_ns, began_ns)),
        "attributes": _attributes(attributes),
    }


def _attributes(given: dict[str, object]) -> list[dict[str, object]]:
    """OTLP's form of attributes; those that are None are left out."""
    return [
        {"key": name, "value": _value(value)} for name, value in given.items() if value is not None
    ]


def _value(value: object) -> dict[str, object]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}  # 64 bits are a text in protobuf's JSON
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"stringValue": str(value)}
