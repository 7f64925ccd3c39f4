"""`/v1/realtime`: a WebSocket passed through to a replica, or to an OpenAI-compatible provider.

The replica is reached first, so that what is refused is refused by an answer of HTTP. What goes on
from then on is in `gateway.surface.session`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
from aiohttp import ClientWebSocketResponse

from core.contracts.route_table import ApiKey, Route
from core.kernel import clock
from gateway import models, split
from gateway.balancer import Backend, choose
from gateway.body import Parsed
from gateway.errors import GatewayError, from_upstream
from gateway.guardrails.guard import Guard
from gateway.guardrails.rules import Rails
from gateway.http_request import Request, Response
from gateway.limits.gate import DEFAULT_OUTPUT_TOKENS, LimitGate
from gateway.limits.limiter import Reservation
from gateway.limits.spending import Spending
from gateway.patience import Patience
from gateway.providers.openai_compatible import OpenAICompatible
from gateway.proxy import MAX_ATTEMPTS, not_ready
from gateway.relay import Exchange
from gateway.surface.session import CLOSE_S, HEARTBEAT_S, MAX_MESSAGE_BYTES, Session
from gateway.surface.worker import Places, Worker
from gateway.table import Target
from gateway.tls import tls_context
from gateway.tracing import traceparent
from gateway.usage import Usage, cost_usd

PATH = "/v1/realtime"
PROTOCOL_HEADER = "Sec-WebSocket-Protocol"
_VERSION, _NONCE_BYTES = "13", 16  # RFC 6455, 4.1
# What browsers, which can send no header, say in the list of protocols; none of it is passed on.
_PRIVATE = ("openai-insecure-api-key.", "openai-organization.", "openai-project.")
_MOST_SESSIONS = 256
# What may go on elsewhere before the caller has heard anything.
_ELSEWHERE = frozenset({429, 500, 502, 503, 504})
_OVER_A_LIMIT = frozenset({"rate_limited", "budget_exceeded"})
# Its tokens are counted as they come.
_NO_TOKENS = Parsed(b"", "", stream=True, stream_options=None)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One that may take a session; `models` are the names whose own limits hold there."""

    target: Target
    models: tuple[str, ...] = ()
    fallback: str = ""


class _Holds:
    """What a session holds of limits, beside itself: of its tokens, and of models behind its own.

    Args:
        limits: The limits.
        key: Whose session it is.
        models: Whose limits hold: what is called, then what answers for it.
        route: How it answers.
    """

    def __init__(
        self, limits: LimitGate, key: ApiKey, models: tuple[str, ...], route: Route
    ) -> None:
        self._limits, self._key, self._models, self._route = limits, key, models, route
        self._held: list[Reservation] = []
        self.spending = Spending(limits, key, models, route)

    async def begin(self) -> None:
        """Hold it, for one session. Raises GatewayError: a limit is reached."""
        if self._limits.limits_models_of(self._key.project_id):
            for name in self._models[1:]:
                held = await self._limits.admit_model(name, self._route, _NO_TOKENS)
                if held is not None:
                    self._held.append(held)
        await self.spending.begin()

    def end(self, tokens: int = 0, cost_usd: float = 0.0) -> None:
        """Give it back, but for what was spent last."""
        self.spending.end(tokens, cost_usd)
        while self._held:
            self._limits.settle_unused(self._held.pop())


@dataclass(frozen=True, slots=True)
class _Reached:
    """A replica that took a session."""

    target: Target
    backend: Backend
    upstream: ClientWebSocketResponse
    holds: _Holds


class Realtime:
    """The sessions of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._client: aiohttp.ClientSession | None = None
        self._places = Places("realtime_sessions", _MOST_SESSIONS)

    async def close(self) -> None:
        """Close what was opened; sessions have ended by then."""
        if self._client is not None:
            await self._client.close()

    async def serve(self, exchange: Exchange) -> Response | None:
        """One session, from its request to its last message."""
        worker, fact, request = self._worker, exchange.fact, exchange.request
        key = await worker.access.admit(request, fact)
        model = request.query.get("model", "")
        _require_handshake(request)
        if not model:
            raise GatewayError(
                "invalid_request",
                "The URL names no model: /v1/realtime?model=… See GET /v1/models.",
                param="model",
            )
        fact.model, fact.stream = model, True
        target = self._find(key, model, exchange)
        fact.deployment_id = target.route.deployment_id
        if worker.limits.on:
            exchange.held = await worker.limits.admit(key, target.route, _NO_TOKENS)
        watched = _Watched(worker, exchange, key)
        watched.look()
        try:
            with self._places.one(key.project_id):
                await self._session(exchange, key, target, watched)
        finally:
            if exchange.held is not None:
                # What was spent has been settled, answer by answer.
                worker.limits.settle_unused(exchange.held)
                exchange.held = None
        return None

    def _find(self, key: ApiKey, model: str, exchange: Exchange) -> Target:
        table = self._worker.tables.current
        return models.target(table, key, model, "realtime", asked=exchange.fact.model)

    async def _session(
        self, exchange: Exchange, key: ApiKey, target: Target, watched: _Watched
    ) -> None:
        worker, fact = self._worker, exchange.fact
        patience = Patience(target.timeouts)
        reached = await self._reached(exchange, key, target, patience)
        route, holds = reached.target.route, reached.holds

        async def check() -> None:
            """Raises GatewayError: whoever opened it would not be let in any more."""
            self._find(await worker.access.admit(exchange.request, fact), fact.model, exchange)
            watched.look()

        def spent(took: Usage) -> None:
            tokens = (took.prompt_tokens or 0) + (took.completion_tokens or 0)
            holds.spending.end(tokens, cost_usd(route.price, took) or 0.0)

        session = Session(
            exchange,
            reached.upstream,
            worker.config.timeouts.session_idle_s,
            check,
            spent,
            holds.spending.begin,
        )
        try:
            await session.run(min(patience.left_s, worker.config.timeouts.session_total_s))
        finally:
            reached.backend.ended()
            # What was begun has been made, whether its caller waited for its end or not.
            broken = Usage(0, session.begun * DEFAULT_OUTPUT_TOKENS)
            holds.end(broken.completion_tokens or 0, cost_usd(route.price, broken) or 0.0)
            exchange.count(session.usage, route.price, route.model, worker.stats)

    # -- the way to a replica

    async def _reached(
        self, exchange: Exchange, key: ApiKey, target: Target, patience: Patience
    ) -> _Reached:
        """The first replica that takes the session: of the route, its targets, its fallbacks."""
        last: GatewayError | None = None
        fact = exchange.fact
        for candidate in self._candidates(exchange, key, target):
            route = candidate.target.route
            fact.deployment_id = route.deployment_id
            holds = _Holds(self._worker.limits, key, (fact.model, *candidate.models), route)
            reached: _Reached | None = None
            try:
                await holds.begin()
                reached = await self._tried(exchange, candidate.target, patience, holds)
                fact.answered_by = candidate.fallback
                return reached
            except _Retryable as failed:
                last = failed.error
            except GatewayError as error:
                if error.error_class not in _OVER_A_LIMIT:
                    raise
                last = error
            finally:
                if reached is None:
                    holds.end()
        raise last or not_ready(target)

    async def _tried(
        self, exchange: Exchange, target: Target, patience: Patience, holds: _Holds
    ) -> _Reached:
        """One of the target's replicas. Raises GatewayError, or _Retryable: another target may."""
        tried = list[Backend]()
        target.budget.requests += 1
        last = _Retryable(not_ready(target), unsent=True)
        for _ in range(MAX_ATTEMPTS):
            backend = choose(target.own, tried, target.pick)
            if backend is None or backend in tried or patience.is_over:
                break
            if tried:
                if not last.unsent and not target.budget.take():
                    break
                self._worker.stats.retries.add("realtime")
            tried.append(backend)
            try:
                upstream = await self._attempt(exchange, target, backend, patience)
            except _Retryable as failed:
                last = failed
                continue
            return _Reached(target, backend, upstream, holds)
        raise last

    def _candidates(self, exchange: Exchange, key: ApiKey, target: Target) -> Iterator[_Candidate]:
        yield from _parts(key, _Candidate(target))
        for model in target.route.fallbacks:
            with suppress(GatewayError):
                found = self._find(key, model, exchange)
                yield from _parts(key, _Candidate(found, (model,), model))

    async def _attempt(
        self, exchange: Exchange, target: Target, backend: Backend, patience: Patience
    ) -> ClientWebSocketResponse:
        fact, began_s = exchange.fact, clock.monotonic_s()
        fact.attempts += 1
        fact.replica_id = backend.replica.id
        backend.began()
        target.traffic.requests += 1
        upstream: ClientWebSocketResponse | None = None
        try:
            upstream = await self._connected(exchange, target, backend, patience)
        except aiohttp.WSServerHandshakeError as error:
            target.traffic.failures += 1
            if backend.provider is None:
                refused = from_upstream(error.status, b"", fact.model)
            else:
                refused = backend.provider.error(error.status, b"", fact.model)
            if error.status not in _ELSEWHERE:
                raise refused from None
            backend.failed(began_s, away=error.status == 503)
            raise _Retryable(refused, unsent=error.status == 503) from None
        except _Redirected:
            target.traffic.failures += 1
            raise GatewayError(
                "upstream_error",
                f"The server of {fact.model!r} sends sessions elsewhere, which is not followed. "
                "Correct its address.",
            ) from None
        except (aiohttp.ClientError, OSError, TimeoutError):
            target.traffic.failures += 1
            backend.failed(began_s, away=True)
            raise _Retryable(
                GatewayError(
                    "connect",
                    f"No replica of {fact.model!r} can be reached now. Try again soon.",
                    retry_after_s=2,
                ),
                unsent=True,
            ) from None
        finally:
            if upstream is None:
                backend.ended()
        fact.connect_ms = (clock.monotonic_s() - began_s) * 1000
        backend.connected()
        backend.succeeded(fact.connect_ms)
        return upstream

    async def _connected(
        self, exchange: Exchange, target: Target, backend: Backend, patience: Patience
    ) -> ClientWebSocketResponse:
        fact, request = exchange.fact, exchange.request
        parts = urlsplit(backend.replica.base_url)
        path, model = PATH, target.route.upstream_model
        if backend.provider is None:
            headers = {**backend.pool.authorization, "X-Request-Id": fact.request_id}
            if fact.trace_id:
                headers["traceparent"] = traceparent(fact)
        else:
            if not isinstance(backend.provider, OpenAICompatible):
                kind = backend.provider.account.kind
                raise GatewayError("capability", f"{kind} has no realtime.", param="model")
            await backend.provider.ready(patience.connect_s)
            outgoing = backend.provider.request(PATH, Parsed(b"{}", model, False, None))
            path, model = outgoing.path, backend.provider.account.model
            headers = {
                name: value
                for name, value in outgoing.headers.items()
                if name.lower() not in ("content-type", "accept", "accept-encoding")
            }
        if "openai-beta" in request.headers:
            headers["OpenAI-Beta"] = request.headers.get("openai-beta")
        query = urlencode({**request.query, "model": model}, quote_via=quote)
        scheme = "wss" if parts.scheme == "https" else "ws"
        joint = "&" if "?" in path else "?"
        if self._client is None:
            tracing = aiohttp.TraceConfig()
            tracing.on_request_redirect.append(_not_followed)
            self._client = aiohttp.ClientSession(
                trace_configs=[tracing],
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        async with asyncio.timeout(patience.connect_s):
            return await self._client.ws_connect(
                f"{scheme}://{parts.netloc}{path}{joint}{query}",
                headers=headers,
                protocols=_offered(request),
                autoclose=False,
                heartbeat=HEARTBEAT_S,
                max_msg_size=MAX_MESSAGE_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_S),
                ssl=tls_context() if scheme == "wss" else False,
            )


class _Watched:
    """The guardrails of a session's project, which cannot look at it."""

    def __init__(self, worker: Worker, exchange: Exchange, key: ApiKey) -> None:
        self._tables, self._exchange, self._project_id = worker.tables, exchange, key.project_id
        self._seen: Rails | None = None

    def look(self) -> None:
        """Take what they are now. Raises GatewayError: one refuses what it cannot check."""
        rails = self._tables.current.guardrails.get(self._project_id)
        if rails is None or rails is self._seen:
            return
        self._seen = rails
        self._exchange.guard = Guard(rails, PATH)
        self._exchange.guard.cannot_check("a realtime session goes through unread")


class _Retryable(Exception):
    """Another replica may take the session.

    Args:
        error: What the caller gets when none does.
        unsent: Trying another one costs nothing.
    """

    def __init__(self, error: GatewayError, *, unsent: bool) -> None:
        super().__init__(error.message)
        self.error = error
        self.unsent = unsent


class _Redirected(aiohttp.ClientError):
    pass


async def _not_followed(_session: object, _context: object, seen: Any) -> None:
    # It might lead anywhere, with the provider's key.
    seen.response.close()
    raise _Redirected


def _parts(key: ApiKey, whole: _Candidate) -> Iterator[_Candidate]:
    """The targets of a route in their order; a route with replicas is its own."""
    found = whole.target
    if not found.shares:
        yield whole
        return
    caller = (key.id or key.user_id) if found.route.split_by == "key" else ""
    for part in split.order(found.shares, caller):
        name = found.name_of(part.route.deployment_id)
        yield _Candidate(part, (*whole.models, name), whole.fallback)


def _require_handshake(request: Request) -> None:
    """Raises GatewayError: it asks for no WebSocket, before a replica is asked for one."""
    headers = request.headers
    if headers.get("upgrade").lower() != "websocket":
        says = "This route is a WebSocket: send Upgrade: websocket."
        raise GatewayError("invalid_request", says, status=426)
    if headers.get("Sec-WebSocket-Version") != _VERSION:
        says = f"This WebSocket is of version {_VERSION}: send Sec-WebSocket-Version: {_VERSION}."
        raise GatewayError("invalid_request", says, status=426)
    try:
        nonce = base64.b64decode(headers.get("Sec-WebSocket-Key"), validate=True)
    except ValueError:
        nonce = b""
    if len(nonce) != _NONCE_BYTES:
        says = f"Sec-WebSocket-Key must be {_NONCE_BYTES} bytes in base64."
        raise GatewayError("invalid_request", says)


def _offered(request: Request) -> list[str]:
    """The protocols that a caller offers, without what is meant for the gateway."""
    offered = map(str.strip, request.headers.get(PROTOCOL_HEADER).split(","))
    return [name for name in offered if name and not name.startswith(_PRIVATE)]
