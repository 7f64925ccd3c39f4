"""The routes of the gateway, on aiohttp."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from aiohttp import web
from prometheus_client import generate_latest

from core.contracts.request_fact import RequestFact
from core.contracts.route_table import ApiKey, Route
from core.kernel import clock, ids
from gateway import sse
from gateway.errors import GatewayError
from gateway.facts import FactWriter
from gateway.proxy import ENDPOINTS, Attempt, Proxy, cost_usd, find_target, peek
from gateway.stats import Stats
from gateway.table import TableHolder, Target
from gateway.upstream import Broken, TimedOut

log = logging.getLogger(__name__)

_LAG_EVERY_S = 1.0
_CLIENT_CLOSED = 499


@dataclass(frozen=True)
class GatewayConfig:
    """What the command line says."""

    host: str
    port: int
    data_dir: Path
    keys_dir: Path
    max_body_bytes: int
    facts_max_bytes: int


@dataclass
class Gateway:
    """One worker."""

    config: GatewayConfig
    stats: Stats = field(default_factory=Stats)
    started_s: float = field(default_factory=clock.monotonic_s)
    _attempts: set[Attempt] = field(default_factory=set)
    _stopping: bool = False

    def __post_init__(self) -> None:
        self.table = TableHolder(
            self.config.data_dir / "routes" / "table.json", self.config.keys_dir
        )
        self.facts = FactWriter(self.config.data_dir, self.config.facts_max_bytes)
        self.proxy = Proxy(asyncio.sleep, lambda model: self.stats.retries.labels(model).inc())

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=0, handler_args={"access_log": None})
        app.router.add_get("/health", self.health)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/v1/models", self._answering("models", self.list_models))
        app.router.add_get("/v1/models/{model:.+}", self._answering("models", self.show_model))
        for path, (name, _) in ENDPOINTS.items():
            app.router.add_post(path, self._answering(name, self.infer))
        app.router.add_route("*", "/{path:.*}", self._answering("unknown", self.unknown))
        app.cleanup_ctx.append(self._background)
        return app

    async def _background(self, _app: web.Application):  # type: ignore[no-untyped-def]
        self.table.refresh()
        self.facts.start()
        tasks = [asyncio.create_task(self.table.watch()), asyncio.create_task(self._watch_loop())]
        yield
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await asyncio.to_thread(self.facts.stop)

    async def _watch_loop(self) -> None:
        while True:
            before_s = clock.monotonic_s()
            await asyncio.sleep(_LAG_EVERY_S)
            self.stats.loop_lag.set(max(clock.monotonic_s() - before_s - _LAG_EVERY_S, 0.0))

    # -- stopping

    async def drain(self, grace_s: float) -> None:
        """Let requests in flight finish for `grace_s`, then end them with an error event."""
        self._stopping = True
        deadline_s = clock.monotonic_s() + grace_s
        while self._attempts and clock.monotonic_s() < deadline_s:
            await asyncio.sleep(0.05)
        for attempt in list(self._attempts):
            attempt.connection.fail(Broken("the gateway is stopping"))
        while self._attempts and clock.monotonic_s() < deadline_s + 1:
            await asyncio.sleep(0.02)

    # -- routes

    async def health(self, _request: web.Request) -> web.Response:
        """GET /health."""
        table = self.table.current
        age_s = clock.unix_s() - table.published_unix_s if table.version else None
        return web.json_response(
            {
                "status": "stopping" if self._stopping else "ok",
                "route_table_version": table.version,
                "route_table_age_s": age_s,
                "uptime_s": clock.monotonic_s() - self.started_s,
                "in_flight": len(self._attempts),
                "facts_dropped": self.facts.dropped,
            },
            status=503 if self._stopping else 200,
        )

    async def metrics(self, _request: web.Request) -> web.Response:
        """GET /metrics."""
        self.stats.table_version.set(self.table.current.version)
        self.stats.facts_dropped.set(self.facts.dropped)
        return web.Response(
            body=generate_latest(self.stats.registry),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def list_models(self, request: web.Request, fact: RequestFact) -> web.StreamResponse:
        """GET /v1/models."""
        key = self._authenticate(request, fact)
        data = [_model_object(route) for route in self.table.current.models(key)]
        return web.json_response({"object": "list", "data": data})

    async def show_model(self, request: web.Request, fact: RequestFact) -> web.StreamResponse:
        """GET /v1/models/{model}."""
        key = self._authenticate(request, fact)
        fact.model = request.match_info["model"]
        for route in self.table.current.models(key):
            if route.model == fact.model:
                return web.json_response(_model_object(route))
        raise GatewayError("not_found", f"There is no model {fact.model!r} in this project.")

    async def unknown(self, request: web.Request, _fact: RequestFact) -> web.StreamResponse:
        """Any other path."""
        known = request.path in ENDPOINTS
        raise GatewayError(
            "not_found",
            f"{request.method} {request.path} is not a route of this gateway."
            + (" Use POST." if known else " See GET /v1/models and POST /v1/chat/completions."),
            code="unknown_url",
            status=405 if known else 404,
        )

    async def infer(self, request: web.Request, fact: RequestFact) -> web.StreamResponse:
        """POST to an inference endpoint."""
        started_s = clock.monotonic_s()
        key = self._authenticate(request, fact)
        body = await self._read_body(request)
        fact.request_bytes = len(body)
        parsed = peek(body)
        fact.model, fact.stream = str(parsed.model), bool(parsed.stream)
        if request.path == "/v1/embeddings":
            parsed.stream = fact.stream = False
        capability = ENDPOINTS[request.path][1]

        def find() -> Target:
            return find_target(self.table.current, key, fact.model, capability)

        target = find()
        fact.deployment_id = target.route.deployment_id
        attempt = await self.proxy.begin(find, request.path, body, parsed, fact)
        self._attempts.add(attempt)
        try:
            if attempt.events is None:
                return self._whole(attempt, target.route, fact)
            return await self._stream(request, attempt, target.route, fact, started_s)
        finally:
            self._attempts.discard(attempt)
            attempt.backend.in_flight -= 1
            attempt.backend.pool.release(attempt.connection)

    def _authenticate(self, request: web.Request, fact: RequestFact) -> ApiKey:
        header = request.headers.get("Authorization", "")
        secret = header[7:] if header[:7].lower() == "bearer " else ""
        secret = secret.strip() or request.headers.get("x-api-key", "").strip()
        if not secret:
            raise GatewayError(
                "authentication",
                "There is no API key. Send it as 'Authorization: Bearer bud-…'.",
            )
        key = self.table.current.key(secret)
        if key is None:
            raise GatewayError(
                "authentication",
                "This API key is unknown, revoked or expired. Make one on the API keys page.",
            )
        fact.key_id, fact.project_id, fact.user_id = key.id, key.project_id, key.user_id
        return key

    async def _read_body(self, request: web.Request) -> bytes:
        limit = self.config.max_body_bytes
        too_large = GatewayError(
            "too_large",
            f"The request body is over the limit of {limit // 1_000_000} MB. "
            "Send less, or raise BUD_MAX_BODY_MB.",
        )
        if (request.content_length or 0) > limit:
            raise too_large
        pieces: list[bytes] = []
        size = 0
        async for piece in request.content.iter_any():
            size += len(piece)
            if size > limit:
                raise too_large
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _whole(self, attempt: Attempt, route: Route, fact: RequestFact) -> web.StreamResponse:
        self._count(route, fact, sse.usage_of(attempt.first))
        fact.response_bytes = len(attempt.first)
        return web.Response(
            body=attempt.first,
            headers={"Content-Type": "application/json", "X-Request-Id": fact.request_id},
        )

    async def _stream(
        self,
        request: web.Request,
        attempt: Attempt,
        route: Route,
        fact: RequestFact,
        started_s: float,
    ) -> web.StreamResponse:
        assert attempt.events is not None
        answer = web.StreamResponse(
            headers={
                "Content-Type": "text/event-stream; charset=utf-8",
                "Cache-Control": "no-cache",
                "X-Accel-Buffering": "no",
                "X-Request-Id": fact.request_id,
            }
        )
        fact.ttft_ms = (clock.monotonic_s() - started_s) * 1000
        await answer.prepare(request)
        fact.status = 200
        piece = attempt.first
        try:
            while piece:
                fact.response_bytes += len(piece)
                await answer.write(piece)
                piece = await attempt.next()
        except (Broken, TimedOut) as error:
            broken = self._broken(error, route)
            fact.error_class, fact.error_message = broken.error_class, broken.message
            attempt.backend.failed()
            await answer.write(broken.event())
        if attempt.events.failed:
            fact.error_class = "upstream_error"
            fact.error_message = "The replica ended the stream with an error event."
        self._count(route, fact, attempt.events.usage)
        self.stats.ttft.labels(route.model).observe(fact.ttft_ms / 1000)
        await answer.write_eof()
        return answer

    def _broken(self, error: Exception, route: Route) -> GatewayError:
        if self._stopping:
            return GatewayError("gateway_stopped", "The gateway was stopped during this stream.")
        kind = "timeout" if isinstance(error, TimedOut) else "upstream_broke"
        return GatewayError(
            kind, f"The stream of {route.model!r} broke off: {error}. Send the request again."
        )

    def _count(self, route: Route, fact: RequestFact, usage: sse.Usage | None) -> None:
        fact.cost_usd = cost_usd(route.price, usage)
        if usage is None:
            return
        fact.input_tokens, fact.output_tokens = usage.prompt_tokens, usage.completion_tokens
        if usage.prompt_tokens_details is not None:
            fact.cached_tokens = usage.prompt_tokens_details.cached_tokens
        self.stats.tokens.labels(route.model, "input").inc(fact.input_tokens or 0)
        self.stats.tokens.labels(route.model, "output").inc(fact.output_tokens or 0)

    def _answering(
        self,
        endpoint: str,
        handler: Callable[[web.Request, RequestFact], Awaitable[web.StreamResponse]],
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Wrap a handler: errors in OpenAI's shape, one fact a request, whatever happens."""

        async def answer(request: web.Request) -> web.StreamResponse:
            started_s = clock.monotonic_s()
            fact = RequestFact(
                request_id=ids.new_id("req"),
                started_unix_s=clock.unix_s(),
                endpoint=endpoint,
                worker_id=self.facts.worker_id,
            )
            self.stats.in_flight.inc()
            try:
                response = await handler(request, fact)
                fact.status = response.status
                response_headers_open = not response.prepared
                if response_headers_open:
                    response.headers["X-Request-Id"] = fact.request_id
                return response
            except GatewayError as error:
                return self._refused(request, fact, error)
            except (asyncio.CancelledError, ConnectionError):
                # The caller went away; the replica stops working on it.
                fact.error_class, fact.status = "client_closed", _CLIENT_CLOSED
                fact.error_message = "The caller closed the connection."
                raise
            except Exception:
                log.exception("request %s failed", fact.request_id)
                message = f"A fault in the gateway; see its log for {fact.request_id}."
                return self._refused(request, fact, GatewayError("internal", message))
            finally:
                fact.duration_ms = (clock.monotonic_s() - started_s) * 1000
                self._finish(fact)

        return answer

    def _refused(
        self, request: web.Request, fact: RequestFact, error: GatewayError
    ) -> web.Response:
        fact.status, fact.error_class = error.status, error.error_class
        fact.error_message = error.message[:500]
        headers = {"Content-Type": "application/json", "X-Request-Id": fact.request_id}
        if error.retry_after_s is not None:
            headers["Retry-After"] = str(error.retry_after_s)
        response = web.Response(body=error.body(), status=error.status, headers=headers)
        if request.can_read_body and not request.content.is_eof():
            # What is left of the body is not read: the connection cannot be used again.
            response.force_close()
        return response

    def _finish(self, fact: RequestFact) -> None:
        self.stats.in_flight.dec()
        # A model name nobody has is not made a label: callers could fill the memory with them.
        model = fact.model if fact.deployment_id else ""
        self.stats.requests.labels(fact.endpoint, model, str(fact.status)).inc()
        if fact.endpoint == "models" and not fact.error_class:
            return
        if model:
            self.stats.duration.labels(model).observe(fact.duration_ms / 1000)
        self.facts.add(fact)


def _model_object(route: Route) -> dict[str, object]:
    """A model as OpenAI's API lists it, with two fields more."""
    return {
        "id": route.model,
        "object": "model",
        "created": route.created_unix_s,
        "owned_by": "bud",
        "context_length": route.context_tokens,
        "state": route.state,
    }


class JsonFormatter(logging.Formatter):
    """One JSON line a record; prompts and keys never get here."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        line: dict[str, object] = {
            "at": clock.now().isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()
