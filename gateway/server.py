"""The routes of the gateway, and the life of one worker."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from core.contracts import route_table
from core.contracts.request_fact import RequestFact
from core.contracts.route_table import ApiKey, Route
from core.kernel import clock, ids
from gateway import models, responses, status, tokens
from gateway.access import AccessGate
from gateway.body import parse
from gateway.cache.response_cache import ResponseCache
from gateway.capture import CaptureWriter
from gateway.carrier import Carrier
from gateway.config import GatewayConfig
from gateway.cors import Cors
from gateway.dialects import Translation, anthropic_answers
from gateway.dialects.anthropic_messages import Messages, to_count
from gateway.dialects.responses import Responses
from gateway.errors import CLASSES, GatewayError
from gateway.facts import FactWriter
from gateway.front import Front
from gateway.guardrails.guard import Guard
from gateway.health import HealthChecks
from gateway.hedge import HedgingProxy
from gateway.http_request import BadRequest, Request, Response
from gateway.limits.beyond import Beyond
from gateway.limits.gate import LimitGate
from gateway.live_state import LiveState
from gateway.relay import Exchange
from gateway.request_id import request_id
from gateway.response_store import ResponseStore
from gateway.responses import KeptResponses
from gateway.shadow import Shadows
from gateway.short_stream import ShortStream
from gateway.short_way import ShortWay
from gateway.stats import Stats
from gateway.table import TableHolder, Target
from gateway.tracing import Tracer
from gateway.upstream import Stopped
from gateway.workers import Workers

if TYPE_CHECKING:
    from gateway.surface.serving import Surface

log = logging.getLogger(__name__)

_TICK_S = 0.25
_SWEEP_TICKS = 4
_BACKLOG = 1024
_MAX_MESSAGE = 500
_OVER_A_LIMIT = frozenset({"rate_limited", "budget_exceeded"})

# path → (name in facts and metrics, capability a route must have, whether it can stream)
ENDPOINTS: dict[str, tuple[str, str, bool]] = {
    "/v1/chat/completions": ("chat.completions", "chat", True),
    "/v1/completions": ("completions", "completion", True),
    "/v1/embeddings": ("embeddings", "embedding", False),
    # These speak another dialect: `gateway.dialects`.
    "/v1/messages": ("messages", "chat", True),
    "/v1/responses": ("responses", "chat", True),
}
_TRANSLATED = frozenset({"/v1/messages", responses.PATH})
_CHAT = "/v1/chat/completions"
_MESSAGES = "/v1/messages"
_COUNT_TOKENS = "/v1/messages/count_tokens"
_INPUT_TOKENS = responses.PATH + "/input_tokens"
_MODELS = "/v1/models"
# Requests that aiohttp is not loaded for: what callers and whoever watches the gateway always ask.
_HOT = (*(f"POST {path}" for path in ENDPOINTS), "GET /health", "GET /metrics", f"GET {_MODELS}")

# Endpoints that ask no model anything: only what went wrong is worth a fact.
_READ = frozenset({"models", "responses.kept", "files.kept", "batches.kept"})

# Gives back what is still to be sent.
_Handler = Callable[[Exchange], Awaitable[Response | None]]


class Gateway:
    """One worker: listens, answers, and stops cleanly."""

    def __init__(self, config: GatewayConfig) -> None:
        self.config = config
        self.stats = Stats()
        self.table = TableHolder(
            config.data_dir / "routes" / route_table.FILE_NAME, config.keys_dir, config.timeouts
        )
        self.facts = FactWriter(config.data_dir, config.facts_max_bytes)
        self.access = AccessGate(config.access, self.table)
        self.limits = LimitGate(config.data_dir, config.valkey_url)
        self._responses = KeptResponses(
            ResponseStore(config.data_dir, config.responses_max_bytes, config.responses_ttl_s)
        )
        self.port = config.port
        self._proxy = HedgingProxy(self.stats)
        self._cache = ResponseCache(config.data_dir, config.valkey_url, self.stats)
        self._health = HealthChecks(self.table, config.health_interval_s)
        self._live = LiveState(config.data_dir, self.facts.worker_id, self.table, self._load)
        self._started_s = clock.monotonic_s()
        self._exchanges: set[Exchange] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._cors = Cors(config.access) if config.access.cors_origins else None
        self._front = Front(self._answer, _HOT, config.max_body_bytes, config.timeouts, self._cors)
        short_way = ShortWay(
            {path: each for path, each in ENDPOINTS.items() if path not in _TRANSLATED},
            *(self.table, self.access, self.limits, self.stats, self.facts.worker_id),
            *(self._begun, self._ended_short, ShortStream),
        )
        self._front.short = short_way.take
        self._surface: Surface | None = None
        self._captures = CaptureWriter(config.data_dir, self.facts.worker_id)
        self._tracer = (
            Tracer(config.tracing, self.facts.worker_id) if config.tracing.endpoint else None
        )
        self._shadows = Shadows(self.table, self.stats, self.facts, self._tracer)
        self._carrier = Carrier(self.table, self._proxy, self._cache, self._shadows, self.stats)
        self._workers = (
            Workers(config.data_dir, self.facts.worker_id, self._counted, status.of_process)
            if config.is_one_of_many
            else None
        )
        self._server: asyncio.Server | None = None
        self._ticker: asyncio.Task[None] | None = None

    # -- life

    async def start(self) -> None:
        """Read the table, begin to write facts, then listen. Raises OSError: port taken."""
        await self._refresh()
        self.facts.start()
        if self._tracer is not None:
            self._tracer.start()
        loop = asyncio.get_running_loop()
        if self._workers is not None:
            self._workers.start()
        if self.config.listen_fd is None:
            where: dict[str, Any] = {"host": self.config.host, "port": self.config.port}
        else:
            where = {"sock": socket.socket(fileno=self.config.listen_fd)}
        self._server = await loop.create_server(self._front.listening(), **where, backlog=_BACKLOG)
        self.port = self._server.sockets[0].getsockname()[1]
        self._ticker = asyncio.create_task(self._tick())
        self._health.start()
        self._live.start()
        log.info("listening on %s port %d", self.config.host, self.port)

    async def hand_over(self, until: asyncio.Event) -> None:
        """Accept nothing more, and answer until every caller has gone to another worker.

        Each connection is closed with its next answer, or when it was idle for too long: never
        while a caller may just be sending its next request. What is in the queue of a listening
        socket that another process has too stays there for that one.

        Args:
            until: Ends it at once; `handover_s` does, too.
        """
        assert self._server is not None
        self._server.close()
        self._front.stop(close_idle=False)
        log.info("handing over")
        deadline_s = clock.monotonic_s() + self.config.timeouts.handover_s
        while self._front.connections or self._exchanges:
            if until.is_set() or clock.monotonic_s() > deadline_s:
                return
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Stop accepting, let requests finish for a while, end the rest, write the facts."""
        assert self._server is not None
        self._stopping = True
        self._front.short = None
        self._server.close()
        self._front.stop(close_idle=True)
        await self._emptied(self.config.timeouts.drain_s)
        if self._exchanges:
            log.warning("%d requests are ended by the stop", len(self._exchanges))
        for exchange in list(self._exchanges):
            exchange.stop()
        await self._shadows.close()
        await self._emptied(1.0)
        self._front.stop(close_idle=True)  # what they were told last goes out
        self._front.abort()
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker
        await self._health.stop()
        await self._live.stop()
        if self._workers is not None:
            await self._workers.stop()
        if self._surface is not None:
            await self._surface.close()
        await self._responses.close()
        await self._cache.close()
        await self.limits.close()
        await asyncio.to_thread(self.facts.stop)
        await asyncio.to_thread(self._captures.stop)
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.stop)
        log.info("stopped")

    def _load(self) -> tuple[int, int]:
        """Requests in flight, and those that wait for a replica."""
        return len(self._exchanges), int(self.stats.waiting.values[()])

    async def _emptied(self, within_s: float) -> None:
        deadline_s = clock.monotonic_s() + within_s
        while (self._exchanges or self._front.is_busy) and clock.monotonic_s() < deadline_s:
            await asyncio.sleep(0.02)

    async def _tick(self) -> None:
        ticks = 0
        while True:
            before_s = clock.monotonic_s()
            await asyncio.sleep(_TICK_S)
            self.stats.loop_lag.observe(max(clock.monotonic_s() - before_s - _TICK_S, 0.0))
            await self._refresh()
            ticks += 1
            if ticks % _SWEEP_TICKS == 0:
                self.limits.sweep()
                self._front.sweep()

    async def _refresh(self) -> None:
        await self.table.refresh()
        self.limits.use(self.table.current.limits)
        self._cache.use(self.table.current.caches)

    # -- one request

    async def _answer(self, request: Request) -> Response | None:
        """Errors in OpenAI's shape, one fact a request, whatever happens."""
        path = request.path
        if path == "/health":
            return status.health(
                self.table,
                self.facts,
                stopping=self._stopping,
                uptime_s=clock.monotonic_s() - self._started_s,
                in_flight=len(self._exchanges),
                workers=1 if self._workers is None else await self._workers.living(),
            )
        if path == "/metrics":
            return await self._metrics()
        if self._cors is not None and (told := self._cors.preflight(request)) is not None:
            return told
        if request.begun is not None:
            return await self._worked_on(request.begun.exchange, self._go_on)
        endpoint, handler = self._route(request.method, path)
        fact = self._new_fact(request, endpoint)
        exchange = Exchange(request, fact)
        if self._tracer is not None:
            exchange.trace = self._tracer.begin(request, fact)
        return await self._worked_on(exchange, handler)

    async def _metrics(self) -> Response:
        if self._workers is None:
            text = self._counted() + await asyncio.to_thread(status.of_process)
        else:
            text = await self._workers.metrics()
        return Response(
            text.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    def _counted(self) -> str:
        return status.metrics(
            self.stats,
            self.table,
            self._front,
            in_flight=len(self._exchanges),
            facts_dropped=self.facts.dropped,
            traces_dropped=0 if self._tracer is None else self._tracer.dropped,
            captures_dropped=self._captures.dropped,
            cache_dropped=self._cache.dropped,
            limits_hosts=self.limits.hosts,
        )

    async def _worked_on(self, exchange: Exchange, handler: _Handler) -> Response | None:
        fact = exchange.fact
        self._exchanges.add(exchange)
        try:
            response = await handler(exchange)
            if response is not None:
                fact.status = response.status
                if exchange.recorder is not None:
                    exchange.recorder.write(response.body)
            return response
        except GatewayError as error:
            return self._refused(exchange, error)
        except asyncio.CancelledError:
            if exchange.stopping and (task := asyncio.current_task()) is not None:
                task.uncancel()
                return self._refused(
                    exchange,
                    GatewayError("gateway_stopped", "The gateway is stopping. Send it again."),
                )
            exchange.caller_left()
            raise
        except BadRequest as error:
            return self._refused(
                exchange, GatewayError("invalid_request", str(error), status=error.status)
            )
        except ConnectionError:
            exchange.caller_left()
            raise ConnectionResetError("the caller is gone") from None
        except Exception:  # the caller gets an answer, and the log the traceback
            log.exception("request %s failed", fact.request_id)
            message = f"A fault in the gateway; its log names request {fact.request_id}."
            return self._refused(exchange, GatewayError("internal", message))
        finally:
            if exchange.guard is not None and exchange.guard.end():
                self._end_later(exchange, exchange.guard)
            else:
                self._ended(exchange)

    def _end_later(self, exchange: Exchange, guard: Guard) -> None:
        """When its guardrails have told all; its caller has the answer, and waits for nothing."""
        duration_ms = exchange.elapsed_ms()
        # Nor does the next request wait, for what this one holds.
        if exchange.held is not None:
            self.limits.settle(exchange.held, exchange.fact)
            exchange.held = None
        if exchange.beyond is not None:
            exchange.beyond.settle(exchange.fact)

        async def end() -> None:
            try:
                await guard.told()
            finally:
                self._ended(exchange, duration_ms)

        task = asyncio.create_task(end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _ended(self, exchange: Exchange, duration_ms: float | None = None) -> None:
        fact = exchange.fact
        self._exchanges.discard(exchange)
        fact.duration_ms = exchange.elapsed_ms() if duration_ms is None else duration_ms
        if exchange.guard is not None:
            exchange.guard.write_down(fact, self.stats)
        if exchange.held is not None:
            self.limits.settle(exchange.held, fact)
        if exchange.beyond is not None:
            exchange.beyond.settle(fact)
        self.stats.ended(fact)
        if fact.endpoint not in _READ or fact.error_class:
            self.facts.add(fact)
        if exchange.recorder is not None:
            self._captures.add(fact, exchange.recorder)
        if self._tracer is not None and exchange.trace is not None:
            answer = exchange.answer
            self._tracer.add(exchange.trace, fact, answer.provider_kind if answer else "")

    def _ended_short(self, exchange: Exchange) -> None:
        """`_ended` for what came all the short way: it has nothing that is not looked at here."""
        fact = exchange.fact
        self._exchanges.discard(exchange)
        if exchange.held is not None:
            self.limits.settle(exchange.held, fact)
        self.stats.ended(fact)
        self.facts.add(fact)
        if exchange.trace is not None and self._tracer is not None:
            self._tracer.add(exchange.trace, fact, "")

    def _new_fact(self, request: Request, endpoint: str) -> RequestFact:
        return RequestFact(
            request_id=request_id(request.headers),
            started_unix_s=clock.unix_s(),
            endpoint=endpoint,
            worker_id=self.facts.worker_id,
        )

    def _begun(self, exchange: Exchange) -> None:
        self._exchanges.add(exchange)
        if self._tracer is not None:
            exchange.trace = self._tracer.begin(exchange.request, exchange.fact)

    async def _go_on(self, exchange: Exchange) -> Response | None:
        """With a request that was sent to a replica, and is not answered by that alone."""
        begun, path = exchange.request.begun, exchange.request.path
        assert begun is not None
        exchange.task = asyncio.current_task()
        key, asked, capability = begun.key, exchange.fact.model, ENDPOINTS[path][1]

        def find(model: str) -> Target:
            return models.target(self.table.current, key, model, capability, asked=asked)

        self._limit_beyond(exchange, key, begun.target.route)
        try:
            return await self._carrier.carry(exchange, find, path, begun.body, "")
        except Stopped:
            message = "The gateway is stopping. Send it again."
            raise GatewayError("gateway_stopped", message) from None

    def _limit_beyond(self, exchange: Exchange, key: ApiKey, route: Route) -> None:
        if (route.targets or route.fallbacks) and self.limits.limits_models_of(key.project_id):
            exchange.beyond = Beyond(self.limits)

    def _route(self, method: str, path: str) -> tuple[str, _Handler]:
        found = ENDPOINTS.get(path)
        if found is not None and method == "POST":
            return found[0], self._infer
        if method == "POST" and path == _COUNT_TOKENS:
            return "messages.count_tokens", self._count_tokens
        if path.startswith(responses.PATH + "/"):
            return "responses.kept", self._kept_response
        if method == "GET" and path == _MODELS:
            return "models", self._list_models
        if method == "GET" and path.startswith(_MODELS + "/"):
            return "models", self._show_model
        if (found_there := self._surface_in_use().route(method, path)) is not None:
            return found_there
        return "unknown", self._unknown

    def _surface_in_use(self) -> Surface:
        if self._surface is None:
            # It takes aiohttp: `gateway.front`.
            from gateway.surface.serving import Surface
            from gateway.surface.worker import Worker

            worker = Worker(self.config, self.table, self.access, self.limits, self.stats)
            self._surface = Surface(worker)
        return self._surface

    async def _infer(self, exchange: Exchange) -> Response | None:
        fact, path = exchange.fact, exchange.request.path
        key = await self.access.admit(exchange.request, exchange.fact)
        _, capability, can_stream = ENDPOINTS[path]
        raw = await exchange.read_body(self.config.max_body_bytes)
        if (capture := self.table.current.captures.get(key.project_id)) is not None:
            exchange.record(capture, raw)
        if path in _TRANSLATED:
            exchange.translation = await self._translation(exchange, key, raw)
            body, path = exchange.translation.chat, _CHAT
        else:
            body = parse(raw, can_stream=can_stream)
        fact.model, fact.stream = body.model, body.stream

        def find(model: str) -> Target:
            return models.target(self.table.current, key, model, capability, asked=fact.model)

        route = find(fact.model).route
        fact.deployment_id = route.deployment_id
        if self.limits.on:
            exchange.held = await self.limits.admit(key, route, body)
            self._limit_beyond(exchange, key, route)
        if (rails := self.table.current.guardrails.get(key.project_id)) is not None:
            exchange.guard = Guard(rails, path)
            body = await exchange.guard.admit(body)
        session = exchange.request.headers.get("X-Session-Id", "")
        if exchange.translation is not None and exchange.translation.background:
            carry = partial(self._carrier.carry, find=find, path=path, body=body, session=session)
            return await self._in_background(exchange, key, carry)
        carried = self._carrier.carry(exchange, find, path, body, session)
        del raw, body  # up to 32 MB, not needed while the answer runs
        return await carried

    def _headers(self, fact: RequestFact) -> dict[str, str]:
        return {"X-Request-Id": fact.request_id}

    def _refused(self, exchange: Exchange, error: GatewayError) -> Response:
        fact, request = exchange.fact, exchange.request
        fact.status, fact.error_class = error.status, error.error_class
        fact.error_message = error.message[:_MAX_MESSAGE]
        if error.error_class in _OVER_A_LIMIT and error.param:
            self.stats.limit_refusals.add(error.param)
        if error.status >= 500:
            log.warning(
                "request %s to %s: %d %s", fact.request_id, fact.deployment_id or fact.endpoint,
                error.status, error.error_class,
            )  # fmt: skip
        headers = self._headers(fact) | {"Content-Type": "application/json"}
        if error.retry_after_s is not None:
            headers["Retry-After"] = str(error.retry_after_s)
        body = error.body()
        if request.path.startswith(_MESSAGES) or "anthropic-version" in request.headers:
            fact.status = anthropic_answers.status_of(error)
            body = anthropic_answers.error_body(error, fact.request_id)
            headers["request-id"] = fact.request_id
        return Response(body, fact.status, headers)

    # -- other dialects than OpenAI's chat

    async def _translation(self, exchange: Exchange, key: ApiKey, raw: bytes) -> Translation:
        request_id = exchange.fact.request_id
        if exchange.request.path == _MESSAGES:
            return Messages(raw, request_id)
        # Not the request's id: the caller may send the same one twice, and responses are kept.
        translation = await self._responses.open(raw, key.project_id, ids.new_id("req"))
        if not translation.background:
            exchange.keep = partial(self._responses.keep, translation, key.project_id)
        return translation

    async def _in_background(
        self, exchange: Exchange, key: ApiKey, carry: _Handler
    ) -> Response | None:
        """Answer at once; the work has a fact of its own, and goes on when the caller is gone."""
        translation = exchange.translation
        assert isinstance(translation, Responses)
        asked = exchange.fact

        async def work() -> None:
            fact = msgspec.structs.replace(
                asked, request_id=ids.new_id("req"), endpoint="responses.background"
            )
            own = Exchange(exchange.request, fact)
            own.translation, own.held, own.recorder = translation, held, recorder
            own.beyond, own.guard = beyond, guard
            own.task = asyncio.current_task()
            if self._tracer is not None and exchange.trace is not None:
                own.trace = self._tracer.follow(exchange.trace, fact)
            with suppress(asyncio.CancelledError, ConnectionError):
                await self._worked_on(own, carry)
            if fact.error_class in CLASSES:
                translation.fail(GatewayError(fact.error_class, fact.error_message))

        begun = await self._responses.start(translation, key.project_id, work)
        # What it holds goes over to the work, which has not taken its first step yet.
        held, exchange.held = exchange.held, None
        beyond, exchange.beyond = exchange.beyond, None
        recorder, exchange.recorder = exchange.recorder, None
        guard, exchange.guard = exchange.guard, None
        return self._json(begun, asked)

    async def _kept_response(self, exchange: Exchange) -> Response | None:
        request = exchange.request
        if request.method == "POST" and request.path == _INPUT_TOKENS:
            return await self._count_tokens(exchange)
        operation = self._responses.operation(request.method, request.path)
        if operation is None:
            return await self._unknown(exchange)
        key = await self.access.admit(exchange.request, exchange.fact)
        return self._json(await operation(key.project_id, request.query), exchange.fact)

    async def _count_tokens(self, exchange: Exchange) -> Response | None:
        """The prompt's tokens as the replica counts them; never an estimate."""
        fact = exchange.fact
        key = await self.access.admit(exchange.request, exchange.fact)
        raw = await exchange.read_body(self.config.max_body_bytes)
        if exchange.request.path == _COUNT_TOKENS:
            body, kind = to_count(raw), {}
        else:
            body = await self._responses.to_count(raw, key.project_id)
            kind = {"object": "response.input_tokens"}
        fact.model = body.model

        def find(model: str) -> Target:
            return models.target(self.table.current, key, model, "chat", asked=fact.model)

        fact.deployment_id = find(fact.model).route.deployment_id
        count = await tokens.count(self._proxy, find, body, fact)
        return self._json({**kind, "input_tokens": count}, fact)

    # -- the other routes

    async def _list_models(self, exchange: Exchange) -> Response | None:
        key = await self.access.admit(exchange.request, exchange.fact)
        return self._json(models.listed(self.table.current, key), exchange.fact)

    async def _show_model(self, exchange: Exchange) -> Response | None:
        key = await self.access.admit(exchange.request, exchange.fact)
        model = exchange.request.path.removeprefix(_MODELS + "/")
        return self._json(models.shown(self.table.current, key, model), exchange.fact)

    async def _unknown(self, exchange: Exchange) -> Response | None:
        request = exchange.request
        self.access.check(request, exchange.fact)
        posted = request.path in ENDPOINTS or request.path == _COUNT_TOKENS
        known = posted or request.path == _MODELS
        allowed = "POST" if posted else "GET"
        hint = f"Use {allowed}." if known else "See GET /v1/models and POST /v1/chat/completions."
        raise GatewayError(
            "not_found",
            f"{request.method} {request.path[:200]} is not a route of this gateway. {hint}",
            code="unknown_url",
            status=405 if known else 404,
        )

    def _json(self, document: object, fact: RequestFact) -> Response:
        headers = self._headers(fact) | {"Content-Type": "application/json"}
        body = document if isinstance(document, bytes) else msgspec.json.encode(document)
        return Response(body, headers=headers)
