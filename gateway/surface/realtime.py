"""`/v1/realtime`: a WebSocket passed through to a replica, or to an OpenAI-compatible provider.

The replica is reached first, so that what is refused is refused by an answer of HTTP. Each message
is handed on when the one before it has been taken: who does not read holds the other side up, and
nothing is piled up here.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec
from aiohttp import ClientWebSocketResponse, WSMsgType, web

from core.contracts.route_table import ApiKey
from core.kernel import clock
from gateway import models, split
from gateway.balancer import Backend, choose
from gateway.body import Parsed
from gateway.cold import ColdCaller
from gateway.errors import GatewayError, from_upstream
from gateway.http_request import Request, Response
from gateway.patience import Patience
from gateway.providers.openai_compatible import OpenAICompatible
from gateway.proxy import MAX_ATTEMPTS, not_ready
from gateway.relay import Exchange
from gateway.surface.worker import Worker
from gateway.table import Target
from gateway.tracing import traceparent
from gateway.upstream import tls_context
from gateway.usage import PromptDetails, Tokens, Usage

PATH = "/v1/realtime"
PROTOCOL_HEADER = "Sec-WebSocket-Protocol"
# What browsers, which can send no header, say in the list of protocols; none of it is passed on.
_PRIVATE = ("openai-insecure-api-key.", "openai-organization.", "openai-project.")
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_HEARTBEAT_S = 30.0
_CLOSE_S = 5.0
_MOST_SESSIONS = 256
# What may go on elsewhere before the caller has heard anything.
_ELSEWHERE = frozenset({429, 500, 502, 503, 504})
_GOING_AWAY, _BROKE, _NORMAL = 1001, 1011, 1000
# Codes that say that there was none: they are never sent.
_UNSENT = frozenset({1004, 1005, 1006, 1015})

_Socket = web.WebSocketResponse | ClientWebSocketResponse


class _Details(msgspec.Struct):
    cached_tokens: Tokens | None = None


class _Tokens(msgspec.Struct):
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    input_token_details: _Details | None = None


class _Done(msgspec.Struct):
    usage: _Tokens | None = None


class _Event(msgspec.Struct):
    type: str = ""
    usage: _Tokens | None = None
    response: _Done | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_COUNTED = frozenset({"response.done", "conversation.item.input_audio_transcription.completed"})


@dataclass(frozen=True, slots=True)
class _End:
    """How a session ends: what both sides are told, and what the fact says."""

    code: int
    reason: str = ""
    error_class: str = ""
    message: str = ""


class Realtime:
    """The sessions of one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._client: aiohttp.ClientSession | None = None
        self._sessions = 0

    async def close(self) -> None:
        """Close what was opened; sessions have ended by then."""
        if self._client is not None:
            await self._client.close()

    async def serve(self, exchange: Exchange) -> Response | None:
        """One session, from its request to its last message."""
        worker, fact, request = self._worker, exchange.fact, exchange.request
        key = await worker.access.admit(request, fact)
        model = request.query.get("model", "")
        if request.headers.get("upgrade").lower() != "websocket":
            raise GatewayError(
                "invalid_request",
                "This route is a WebSocket: send Upgrade: websocket.",
                status=426,
            )
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
            # By the session; its tokens are counted when it has ended.
            body = Parsed(b"", model, stream=True, stream_options=None)
            exchange.held = await worker.limits.admit(key, target.route, body)
        if self._sessions >= _MOST_SESSIONS:
            raise GatewayError(
                "rate_limited",
                f"This worker has {_MOST_SESSIONS} realtime sessions. Try again soon.",
                param="realtime_sessions",
                retry_after_s=5,
            )
        self._sessions += 1
        try:
            await self._session(exchange, key, target)
        finally:
            self._sessions -= 1
        return None

    def _find(self, key: ApiKey, model: str, exchange: Exchange) -> Target:
        table = self._worker.tables.current
        return models.target(table, key, model, "realtime", asked=exchange.fact.model)

    async def _session(self, exchange: Exchange, key: ApiKey, target: Target) -> None:
        patience = Patience(target.timeouts)
        reached, backend, upstream = await self._reached(exchange, key, target, patience)
        session = _Session(exchange, upstream, self._worker.config.timeouts.session_idle_s)
        try:
            total_s = min(patience.left_s, self._worker.config.timeouts.session_total_s)
            await session.run(total_s)
        finally:
            backend.ended()
            exchange.count(
                session.usage, reached.route.price, reached.route.model, self._worker.stats
            )

    # -- the way to a replica

    async def _reached(
        self, exchange: Exchange, key: ApiKey, target: Target, patience: Patience
    ) -> tuple[Target, Backend, ClientWebSocketResponse]:
        """The first replica that takes the session: of the route, its targets, its fallbacks."""
        last: GatewayError | None = None
        for candidate in self._candidates(exchange, key, target):
            exchange.fact.deployment_id = candidate.route.deployment_id
            tried: list[Backend] = []
            for _ in range(MAX_ATTEMPTS):
                backend = choose(candidate.own, tried, candidate.pick)
                if backend is None or backend in tried or patience.is_over:
                    break
                tried.append(backend)
                try:
                    upstream = await self._attempt(exchange, candidate, backend, patience)
                except _Retryable as failed:
                    last = failed.error
                    self._worker.stats.retries.add("realtime")
                    continue
                return candidate, backend, upstream
        raise last or not_ready(target)

    def _candidates(self, exchange: Exchange, key: ApiKey, target: Target) -> Iterator[Target]:
        caller = (key.id or key.user_id) if target.route.split_by == "key" else ""
        yield from split.order(target.shares, caller) if target.shares else [target]
        for model in target.route.fallbacks:
            with suppress(GatewayError):
                found = self._find(key, model, exchange)
                exchange.fact.answered_by = model
                yield from split.order(found.shares, caller) if found.shares else [found]

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
            raise _Retryable(refused) from None
        except (aiohttp.ClientError, OSError, TimeoutError):
            target.traffic.failures += 1
            backend.failed(began_s, away=True)
            raise _Retryable(
                GatewayError(
                    "connect",
                    f"No replica of {fact.model!r} can be reached now. Try again soon.",
                    retry_after_s=2,
                )
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
            self._client = aiohttp.ClientSession(
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
                heartbeat=_HEARTBEAT_S,
                max_msg_size=_MAX_MESSAGE_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_S),
                ssl=tls_context() if scheme == "wss" else False,
            )


class _Retryable(Exception):
    """Another replica may take the session; `error` is what the caller gets when none does."""

    def __init__(self, error: GatewayError) -> None:
        super().__init__(error.message)
        self.error = error


class _Session:
    """Both sides of one session.

    Attributes:
        usage: What the replica said that its responses took, added up; None without any.
    """

    def __init__(
        self, exchange: Exchange, upstream: ClientWebSocketResponse, idle_s: float
    ) -> None:
        self.usage: Usage | None = None
        self._exchange = exchange
        self._upstream = upstream
        self._idle_s = idle_s
        self._moved_s = clock.monotonic_s()

    async def run(self, total_s: float) -> None:
        """Take the caller in, and hand on until one side ends it, or a time is over."""
        exchange, fact = self._exchange, self._exchange.fact
        caller: web.WebSocketResponse | None = None
        end = _End(_GOING_AWAY)
        try:
            client = exchange.request.caller
            assert isinstance(client, ColdCaller)
            caller = await client.open_socket(
                [self._upstream.protocol] if self._upstream.protocol else [],
                {"X-Request-Id": fact.request_id},
                _MAX_MESSAGE_BYTES,
                _HEARTBEAT_S,
            )
            fact.status = 101
            end = await self._handed_on(caller, total_s)
            fact.error_class, fact.error_message = end.error_class, end.message
            if end.error_class == "client_closed":
                exchange.caller_left()
        except asyncio.CancelledError:
            reason = "The gateway is stopping." if exchange.stopping else "The caller left."
            end = _End(_GOING_AWAY, reason)
            raise
        finally:
            await self._close(caller, end)

    async def _close(self, caller: web.WebSocketResponse | None, end: _End) -> None:
        """Tell both sides that it has ended, and why."""
        closing = asyncio.gather(
            *(_closed(each, end) for each in (self._upstream, caller) if each is not None)
        )
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            # The caller's connection ends with its last word, and this task with the connection:
            # the session has ended well all the same.
            await closing
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()

    async def _handed_on(self, caller: web.WebSocketResponse, total_s: float) -> _End:
        ends_s = clock.monotonic_s() + total_s
        pumps = {
            asyncio.create_task(self._pump(caller, self._upstream, is_caller=True)),
            asyncio.create_task(self._pump(self._upstream, caller, is_caller=False)),
        }
        try:
            while True:
                now_s = clock.monotonic_s()
                idle_s = self._moved_s + self._idle_s - now_s
                if now_s >= ends_s:
                    return _End(_GOING_AWAY, f"A session lasts {total_s / 60:.0f} min at most.")
                if idle_s <= 0:
                    says = f"Nothing came for {self._idle_s:.0f} s."
                    return _End(_GOING_AWAY, says, "timeout", says)
                wait_s = min(ends_s - now_s, idle_s)
                done, _ = await asyncio.wait(
                    pumps,
                    timeout=None if wait_s == math.inf else wait_s,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if done:
                    return done.pop().result()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, source: _Socket, sink: _Socket, *, is_caller: bool) -> _End:
        """Hand on what comes from one side, until it closes or breaks off."""
        fact = self._exchange.fact
        while True:
            message = await source.receive()
            try:
                match message.type:
                    case WSMsgType.TEXT:
                        text: str = message.data
                        size_bytes = len(text)
                        if not is_caller and '"usage"' in text:
                            self._count(text)
                        await sink.send_str(text)
                    case WSMsgType.BINARY:
                        size_bytes = len(message.data)
                        await sink.send_bytes(message.data)
                    case WSMsgType.CLOSE:
                        return _End(_code(message.data), message.extra or "")
                    case _:
                        return self._broken(source, is_caller=is_caller)
            except (ConnectionError, aiohttp.ClientError):
                return self._broken(sink, is_caller=not is_caller)
            self._moved_s = clock.monotonic_s()
            if is_caller:
                fact.request_bytes += size_bytes
            else:
                fact.response_bytes += size_bytes

    def _broken(self, socket: _Socket, *, is_caller: bool) -> _End:
        """What it means that a side is gone without a word, or spoke no WebSocket."""
        code = socket.close_code
        if code is not None and code not in _UNSENT:
            # aiohttp has told that side what is wrong, such as a message that is too large.
            return _End(code, error_class="invalid_request" if is_caller else "upstream_broke")
        if is_caller:
            return _End(_GOING_AWAY, "The caller left.", "client_closed")
        says = f"The replica of {self._exchange.fact.model!r} broke the session off."
        return _End(_BROKE, says, "upstream_broke", says)

    def _count(self, text: str) -> None:
        try:
            event = _decode_event(text)
        except msgspec.DecodeError:
            return
        found = event.response.usage if event.response else event.usage
        if event.type not in _COUNTED or found is None:
            return
        before = self.usage or Usage(0, 0, 0, PromptDetails(0))
        cached = found.input_token_details and found.input_token_details.cached_tokens
        self.usage = Usage(
            prompt_tokens=(before.prompt_tokens or 0) + (found.input_tokens or 0),
            completion_tokens=(before.completion_tokens or 0) + (found.output_tokens or 0),
            prompt_tokens_details=PromptDetails((before.cached_tokens or 0) + (cached or 0)),
        )


def _offered(request: Request) -> list[str]:
    """The protocols that a caller offers, without what is meant for the gateway."""
    offered = map(str.strip, request.headers.get(PROTOCOL_HEADER).split(","))
    return [name for name in offered if name and not name.startswith(_PRIVATE)]


def _code(code: int) -> int:
    return _NORMAL if code in _UNSENT or not 1000 <= code < 5000 else code


async def _closed(socket: _Socket, end: _End) -> None:
    if socket.closed:
        return
    with suppress(TimeoutError, ConnectionError, aiohttp.ClientError):
        async with asyncio.timeout(_CLOSE_S):
            # 125 bytes is what a closing frame holds, with its code.
            await socket.close(code=end.code, message=end.reason.encode()[:120])
