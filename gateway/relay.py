"""One inference request in flight: its caller's side, and where it stands."""

from __future__ import annotations

import asyncio

from aiohttp import web

from core.contracts.request_fact import RequestFact
from core.contracts.route_table import Route
from core.kernel import clock
from gateway.errors import GatewayError
from gateway.proxy import Answer
from gateway.stats import Stats
from gateway.upstream import Broken, Stopped, TimedOut
from gateway.usage import cost_usd


class Exchange:
    """One request in flight.

    `caller_since_s` is since when it waits for its caller, to send the body or to read the
    answer; 0 while it does not.
    """

    __slots__ = ("_task", "answer", "caller_since_s", "fact", "request", "started_s", "stopping")

    def __init__(self, request: web.BaseRequest, fact: RequestFact, started_s: float) -> None:
        self.request = request
        self.fact = fact
        self.started_s = started_s
        self.answer: Answer | None = None
        self.caller_since_s = 0.0
        self.stopping = False
        self._task = asyncio.current_task()

    def stop(self) -> None:
        """End it now, with an error that says that the gateway stops."""
        self.stopping = True
        if self.answer is not None:
            self.answer.stop()
        elif self._task is not None:
            self._task.cancel()

    def drop_stalled_caller(self, caller_s: float) -> None:
        """Close the connection when its caller has not moved for `caller_s` seconds."""
        since_s = self.caller_since_s
        transport = self.request.transport
        if since_s and clock.monotonic_s() - since_s > caller_s and transport is not None:
            self.fact.error_message = f"The caller did not read or send for {caller_s:.0f} s."
            transport.abort()

    async def read_body(self, max_bytes: int) -> bytes:
        """The request's body.

        Raises:
            GatewayError: It is over the limit; what is over it is never kept.
        """
        request = self.request
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise GatewayError(
                "invalid_request",
                "A compressed request body is not understood. Send it without Content-Encoding.",
                status=415,
            )
        if (request.content_length or 0) > max_bytes:
            raise _too_large(max_bytes)
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces: list[bytes] = []
        size_bytes = 0
        content = request.content
        self.caller_since_s = clock.monotonic_s()
        while not content.at_eof():
            piece = await content.readany()
            size_bytes += len(piece)
            if size_bytes > max_bytes:
                raise _too_large(max_bytes)
            pieces.append(piece)
            self.caller_since_s = clock.monotonic_s()
        self.caller_since_s = 0.0
        self.fact.request_bytes = size_bytes
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def send(self, answer: Answer, headers: dict[str, str]) -> web.StreamResponse:
        """Forward all of an answer."""
        if answer.is_whole:
            self.fact.response_bytes = len(answer.first)
            headers["Content-Type"] = answer.content_type
            return web.Response(body=answer.first, headers=headers)
        response = web.StreamResponse(headers=headers)
        if answer.events is None:
            response.headers["Content-Type"] = answer.content_type
            response.content_length = answer.content_bytes
        else:
            response.headers["Content-Type"] = "text/event-stream; charset=utf-8"
            response.headers["Cache-Control"] = "no-cache"
            response.headers["X-Accel-Buffering"] = "no"
            self.fact.ttft_ms = (clock.monotonic_s() - self.started_s) * 1000
        await response.prepare(self.request)
        self.fact.status = 200
        try:
            await self._forward(answer, response)
        except (Broken, TimedOut, Stopped) as error:
            broken = self._broken(error)
            self.fact.error_class, self.fact.error_message = broken.error_class, broken.message
            if not isinstance(error, Stopped):
                answer.broke()
            if answer.events is None:
                # No error can be told inside a body of another form: it ends short instead.
                if self.request.transport is not None:
                    self.request.transport.abort()
                return response
            await response.write(broken.event())
        await response.write_eof()
        return response

    async def _forward(self, answer: Answer, response: web.StreamResponse) -> None:
        fact, write, following = self.fact, response.write, answer.next
        piece = answer.first
        while piece:
            fact.response_bytes += len(piece)
            self.caller_since_s = clock.monotonic_s()
            await write(piece)
            self.caller_since_s = 0.0
            piece = await following()

    def _broken(self, error: Exception) -> GatewayError:
        model = self.fact.model
        if isinstance(error, Stopped):
            return GatewayError(
                "gateway_stopped", "The gateway stopped during this answer. Send it again."
            )
        kind = "timeout" if isinstance(error, TimedOut) else "upstream_broke"
        return GatewayError(
            kind, f"The answer of {model!r} broke off: {error}. Send the request again."
        )

    def account(self, answer: Answer, route: Route, stats: Stats) -> None:
        """Fill in tokens and cost, also of an answer that broke off."""
        fact, found = self.fact, answer.usage
        if answer.events is not None and answer.events.error is not None and not fact.error_class:
            fact.error_class = "upstream_error"
            fact.error_message = "The replica ended the stream with an error event."
        if fact.ttft_ms is not None:
            stats.ttft.observe(fact.ttft_ms / 1000, route.model)
        if found is None:
            return
        fact.cost_usd = cost_usd(route.price, found)
        fact.input_tokens, fact.output_tokens = found.prompt_tokens, found.completion_tokens
        fact.cached_tokens = found.cached_tokens
        stats.tokens.add(route.model, "input", value=fact.input_tokens or 0)
        stats.tokens.add(route.model, "output", value=fact.output_tokens or 0)

    def elapsed_ms(self) -> float:
        """Since the request's head was read."""
        return (clock.monotonic_s() - self.started_s) * 1000


def _too_large(max_bytes: int) -> GatewayError:
    return GatewayError(
        "too_large",
        f"The request body is over the limit of {max_bytes / 1_000_000:g} MB. "
        "Send less, or raise BUD_MAX_BODY_MB.",
    )
