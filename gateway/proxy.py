"""Carries one request to a replica and its answer back."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from core.contracts.request_fact import RequestFact
from core.contracts.route_table import ApiKey, Price
from core.kernel import clock
from gateway import sse
from gateway.balancer import Backend, choose
from gateway.errors import GatewayError, from_upstream
from gateway.table import Table, Target
from gateway.upstream import Broken, ConnectFailed, Connection, TimedOut

FIRST_BYTE_TIMEOUT_S = 300.0
BETWEEN_TOKENS_TIMEOUT_S = 60.0
MAX_ATTEMPTS = 4
_RETRY_STATUS = frozenset({502, 503, 504})
_MAX_ERROR_BYTES = 65536
# A model server that is started again answers within a second or two.
_RETRY_DELAYS_S = (0.0, 0.15, 0.6)


class Peek(msgspec.Struct):
    """What routing needs of a request's body."""

    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None


_decode_peek = msgspec.json.Decoder(Peek).decode

ENDPOINTS: dict[str, tuple[str, str]] = {
    "/v1/chat/completions": ("chat.completions", "chat"),
    "/v1/completions": ("completions", "completion"),
    "/v1/embeddings": ("embeddings", "embedding"),
}


def peek(body: bytes) -> Peek:
    """Read model and stream from a body.

    Raises:
        GatewayError: It is not JSON, or a field has the wrong type.
    """
    try:
        found = _decode_peek(body)
    except msgspec.ValidationError as error:
        raise GatewayError("invalid_request", f"The request body is not valid: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise GatewayError(
            "invalid_request", f"The request body is not valid JSON: {error}."
        ) from None
    if not found.model:
        raise GatewayError(
            "invalid_request",
            "The request names no model. List yours with GET /v1/models.",
            param="model",
        )
    return found


def find_target(table: Table, key: ApiKey, model: str, capability: str) -> Target:
    """The route for a model, when the key may use it and it can do what is asked.

    Raises:
        GatewayError: Unknown model, not allowed, or the capability is missing.
    """
    target = table.routes.get((key.project_id, model))
    if target is None:
        known = ", ".join(sorted(route.model for route in table.models(key))[:10]) or "none yet"
        raise GatewayError(
            "not_found", f"There is no model {model!r} in this project. It has: {known}.",
            param="model",
        )  # fmt: skip
    if key.models and model not in key.models:
        raise GatewayError("permission", f"This API key may not use {model!r}.", param="model")
    capabilities: list[str] = list(target.route.capabilities)
    if capability not in capabilities:
        raise GatewayError(
            "capability",
            f"{model!r} lacks the capability {capability!r}; it has: {', '.join(capabilities)}.",
            param="model",
        )
    return target


def upstream_body(body: bytes, request: Peek, upstream_model: str) -> bytes:
    """The body for the replica: its own model name, and usage asked for on a stream."""
    rename = request.model != upstream_model
    wants_usage = (request.stream_options or {}).get("include_usage") is True
    add_usage = bool(request.stream) and not wants_usage
    if not rename and not add_usage:
        return body
    if not rename and request.stream_options is None and b'"stream_options"' not in body:
        # The common case costs a splice, not a parse.
        cut = body.rstrip()
        return cut[:-1] + b',"stream_options":{"include_usage":true}}'
    document = msgspec.json.decode(body)
    document["model"] = upstream_model
    if add_usage:
        document["stream_options"] = {
            **(document.get("stream_options") or {}),
            "include_usage": True,
        }
    return msgspec.json.encode(document)


class RetryBudget:
    """Retries are at most a fifth of the requests of late, and a few; so they cannot pile up."""

    _RATIO = 0.2
    _MAX = 20.0

    def __init__(self) -> None:
        self._tokens = self._MAX / 2

    def request(self) -> None:
        """A request came."""
        self._tokens = min(self._tokens + self._RATIO, self._MAX)

    def take(self) -> bool:
        """Whether a retry may be made now."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass
class Attempt:
    """An answer that has begun: its first piece has come, nothing has been sent to the caller."""

    backend: Backend
    connection: Connection
    first: bytes
    events: sse.EventStream | None

    async def next(self) -> bytes:
        """What to forward next; b"" at the end.

        Raises:
            Broken, TimedOut: The replica broke off, or fell silent.
        """
        while True:
            chunk = await self.connection.read(BETWEEN_TOKENS_TIMEOUT_S)
            if self.events is None:
                return chunk
            if not chunk:
                rest = self.events.rest()
                if not rest and not self.events.done and not self.events.failed:
                    raise Broken("the stream ended before its last event")
                return rest
            forward = self.events.feed(chunk)
            if forward:
                return forward


class Proxy:
    """Finds a replica that answers, within the retry rules."""

    def __init__(self, sleep: Callable[[float], Any], on_retry: Callable[[str], None]) -> None:
        self._sleep = sleep
        self._on_retry = on_retry
        self._budgets: dict[str, RetryBudget] = {}

    async def begin(
        self,
        find: Callable[[], Target],
        path: str,
        body: bytes,
        request: Peek,
        fact: RequestFact,
    ) -> Attempt:
        """Send the request until a replica begins to answer.

        Args:
            find: Looks the route up again, since the table may change between attempts.
            path: The endpoint, the same at the replica.
            body: What the caller sent.
            request: What was read from it.
            fact: The request's fact; replica, attempts and connect time are filled in.

        Raises:
            GatewayError: No replica answers, or the request itself is refused.
        """
        budget = self._budgets.setdefault(str(request.model), RetryBudget())
        budget.request()
        tried: list[Backend] = []
        error = GatewayError("no_replica", "")
        while fact.attempts < MAX_ATTEMPTS:
            if fact.attempts:
                if not budget.take():
                    break
                self._on_retry(str(request.model))
                delay_s = _RETRY_DELAYS_S[min(fact.attempts, len(_RETRY_DELAYS_S)) - 1]
                await self._sleep(delay_s * random.uniform(0.7, 1.3))  # noqa: S311 (jitter)
            target = find()
            backend = choose(target.backends, tried)
            if backend is None:
                raise _not_ready(target)
            fact.attempts += 1
            fact.replica_id = backend.replica.id
            try:
                return await self._attempt(backend, target, path, body, request, fact)
            except GatewayError as refused:
                if refused.status not in _RETRY_STATUS:
                    raise
                error = refused
            tried.append(backend)
        raise error

    async def _attempt(
        self,
        backend: Backend,
        target: Target,
        path: str,
        body: bytes,
        request: Peek,
        fact: RequestFact,
    ) -> Attempt:
        backend.in_flight += 1
        connection: Connection | None = None
        started_s = clock.monotonic_s()
        try:
            outgoing = upstream_body(body, request, target.route.upstream_model)
            head = backend.pool.head(path, outgoing, fact.request_id)
            connection = await self._send(backend, head, outgoing)
            fact.connect_ms = (clock.monotonic_s() - started_s) * 1000
            attempt = await self._first_piece(backend, connection, request, str(request.model))
            backend.succeeded((clock.monotonic_s() - started_s) * 1000)
            return attempt
        except BaseException as error:
            backend.in_flight -= 1
            if connection is not None:
                connection.abort()
            raise _translated(error, backend, str(request.model)) from error

    async def _send(self, backend: Backend, head: bytes, body: bytes) -> Connection:
        """Send on a kept connection, or on a new one when the kept one turns out to be dead."""
        connection = await backend.pool.acquire()
        try:
            await connection.send(head, body)
            await connection.wait_head(FIRST_BYTE_TIMEOUT_S)
        except Broken:
            if not connection.reused or connection.answer_begun:
                raise
            connection = await backend.pool.acquire(fresh=True)
            await connection.send(head, body)
            await connection.wait_head(FIRST_BYTE_TIMEOUT_S)
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _first_piece(
        self, backend: Backend, connection: Connection, request: Peek, model: str
    ) -> Attempt:
        if connection.status != 200:
            answer = await _read_all(connection, _MAX_ERROR_BYTES)
            raise from_upstream(connection.status, answer, model)
        if not request.stream:
            answer = await _read_all(connection, None)
            return Attempt(backend, connection, answer, None)
        wants_usage = (request.stream_options or {}).get("include_usage") is True
        events = sse.EventStream(keep_usage=wants_usage)
        # Nothing goes to the caller before the first event: until then another replica can help.
        while True:
            chunk = await connection.read(FIRST_BYTE_TIMEOUT_S)
            if not chunk:
                raise Broken("the stream ended before its first event")
            forward = events.feed(chunk)
            if events.has_data and forward:
                return Attempt(backend, connection, forward, events)


async def _read_all(connection: Connection, limit: int | None) -> bytes:
    pieces = []
    size = 0
    while piece := await connection.read(FIRST_BYTE_TIMEOUT_S):
        pieces.append(piece)
        size += len(piece)
        if limit is not None and size > limit:
            break
    return b"".join(pieces)


def _not_ready(target: Target) -> GatewayError:
    route = target.route
    hint = {
        "stopped": "Start it on its page.",
        "failed": "Its page says why.",
        "planned": "It is being brought up.",
        "starting": "Try again soon.",
    }.get(route.state, "Try again soon.")
    return GatewayError(
        "no_replica",
        f"No replica of {route.model!r} answers now: it is {route.state}. {hint}",
        retry_after_s=2,
    )


def _translated(error: BaseException, backend: Backend, model: str) -> BaseException:
    """An error of the connection as one of the gateway; others stay what they are."""
    if isinstance(error, ConnectFailed):
        backend.failed()
        return GatewayError("connect", f"No replica of {model!r} can be reached now.")
    if isinstance(error, TimedOut):
        backend.failed()
        return GatewayError("timeout", f"{model!r} did not answer: {error}.")
    if isinstance(error, Broken):
        backend.failed()
        return GatewayError("upstream_broke", f"The replica of {model!r} broke off: {error}.")
    return error


def cost_usd(price: Price | None, usage: sse.Usage | None) -> float | None:
    """The cost of a request by token prices; None when a price or a count is missing."""
    if price is None or usage is None or price.input_usd_per_million_tokens is None:
        return None
    if price.output_usd_per_million_tokens is None:
        return None
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    cached = cached or 0
    cached_price = price.cached_usd_per_million_tokens
    if cached_price is None:
        cached_price = price.input_usd_per_million_tokens
    return (
        ((usage.prompt_tokens or 0) - cached) * price.input_usd_per_million_tokens
        + cached * cached_price
        + (usage.completion_tokens or 0) * price.output_usd_per_million_tokens
    ) / 1e6
