"""One inference request in flight: its caller's side, and where it stands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from core.contracts.request_fact import RequestFact
from core.contracts.route_table import Capture, Price
from core.kernel import clock
from gateway.answer import Answer
from gateway.capture import RecordedCaller, Recorder
from gateway.dialects import Translation
from gateway.errors import GatewayError
from gateway.guardrails.guard import Guard
from gateway.http_request import STREAM_HEADERS, BodyTooLarge, Caller, Request, Response
from gateway.limits.beyond import Beyond
from gateway.limits.limiter import Reservation
from gateway.sse import EventStream
from gateway.stats import Stats
from gateway.tracing import Trace
from gateway.upstream import Broken, Stopped, TimedOut
from gateway.usage import Usage, cost_usd

if TYPE_CHECKING:
    from gateway.short_way import ShortCall

_JSON_HEADERS = {"Content-Type": "application/json"}
CLIENT_CLOSED = 499
_RUN_OUT_S = 0.05
# What is translated is held in memory whole.
_MAX_TRANSLATED_BYTES = 32 * 1024 * 1024


class Exchange:
    """One request in flight.

    `translation` is there when the caller speaks another dialect than OpenAI's chat; `keep` is
    then awaited before the last bytes go out, for what must outlive the answer.
    """

    __slots__ = (
        "answer",
        "beyond",
        "caller",
        "fact",
        "guard",
        "held",
        "keep",
        "recorder",
        "request",
        "short",
        "started_s",
        "stopping",
        "task",
        "trace",
        "translation",
    )

    def __init__(self, request: Request, fact: RequestFact) -> None:
        self.request = request
        self.caller = request.caller
        self.fact = fact
        self.started_s = clock.monotonic_s()
        self.answer: Answer | None = None
        self.translation: Translation | None = None
        self.keep: Callable[[], Awaitable[None]] | None = None
        self.held: Reservation | None = None
        self.beyond: Beyond | None = None
        self.recorder: Recorder | None = None
        self.guard: Guard | None = None
        self.trace: Trace | None = None
        self.short: ShortCall | None = None
        self.stopping = False
        self.task = request.caller.task

    def record(self, capture: Capture, body: bytes) -> None:
        """Keep what is asked and answered from now on."""
        self.recorder = Recorder(capture, body)
        self.caller = cast(Caller, RecordedCaller(self.caller, self.recorder))

    def stop(self) -> None:
        """End it now, with an error that says that the gateway stops."""
        self.stopping = True
        if self.guard is not None:
            self.guard.stop()
        if self.short is not None:
            self.short.stop()
        elif self.answer is not None:
            self.answer.stop()
        elif self.task is not None:
            self.task.cancel()

    async def read_body(self, max_bytes: int) -> bytes:
        """The request's body.

        Raises:
            GatewayError: It is over the limit; what is over it is never kept.
            BadRequest: What came is no body.
        """
        request = self.request
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise GatewayError(
                "invalid_request",
                "A compressed request body is not understood. Send it without Content-Encoding.",
                status=415,
            )
        try:
            body = await request.read_body(max_bytes)
        except BodyTooLarge:
            raise GatewayError(
                "too_large",
                f"The request body is over the limit of {max_bytes / 1_000_000:g} MB. "
                "Send less, or raise BUD_MAX_BODY_MB.",
            ) from None
        self.fact.request_bytes = len(body)
        return body

    async def send(self, answer: Answer, headers: dict[str, str]) -> Response | None:
        """Forward all of an answer; gives it back when it is whole and still to be sent.

        Raises GatewayError: it cannot be translated.
        """
        if self.translation is not None:
            return await self._send_translated(answer, self.translation, headers)
        if answer.is_whole:
            self.fact.response_bytes = len(answer.first)
            headers["Content-Type"] = answer.content_type
            return Response(answer.first, headers=headers)
        if answer.events is None:
            headers["Content-Type"] = answer.content_type
            self.caller.start(headers, answer.content_bytes)
        else:
            self.fact.ttft_ms = self.elapsed_ms()
            self.caller.start(headers | STREAM_HEADERS)
        self.fact.status = 200
        try:
            await self._forward(answer)
        except (Broken, TimedOut, Stopped, GatewayError) as error:
            broken = self.broke_off(error)
            if isinstance(error, Broken | TimedOut):
                answer.broke()
            if answer.events is None:
                # No error can be told inside a body of another form: it ends short instead.
                self.caller.abort()
                return None
            await self._write(broken.event())
        self.caller.end()
        return None

    async def _forward(self, answer: Answer) -> None:
        if answer.events is not None and answer.is_pushed:
            await self._stream(answer)
            return
        piece = answer.first
        while piece:
            await self._write(piece)
            piece = await answer.next()

    async def _stream(self, answer: Answer) -> None:
        caller, sent_bytes = self.caller, 0

        def write(piece: bytes) -> None:
            nonlocal sent_bytes
            sent_bytes += len(piece)
            caller.write(piece)

        try:
            write(answer.first)
            caller.source = answer.source
            await answer.hand_on(write, caller.chunk_writer)
        finally:
            caller.source = None
            passed_bytes = answer.events.passed_bytes if answer.events is not None else 0
            self.fact.response_bytes += sent_bytes + passed_bytes

    async def _send_translated(
        self, answer: Answer, translation: Translation, headers: dict[str, str]
    ) -> Response | None:
        headers["request-id"] = self.fact.request_id
        if answer.events is None:
            body = translation.answer(await self.collected(answer))
            await self._kept()
            self.fact.response_bytes = len(body)
            return Response(body, headers=headers | _JSON_HEADERS)
        self.fact.ttft_ms = self.elapsed_ms()
        self.caller.start(headers | STREAM_HEADERS)
        self.fact.status = 200
        try:
            await self._translate(answer, translation)
        except (Broken, TimedOut, Stopped, GatewayError) as error:
            broken = self.broke_off(error)
            if isinstance(error, Broken | TimedOut):
                answer.broke()
            last = translation.broken(broken)
            await self._kept()
            await self._write(last)
        self.caller.end()
        return None

    async def collected(self, answer: Answer) -> bytes:
        """All of an answer that is no stream. Raises GatewayError: it broke off."""
        pieces = [answer.first]
        size_bytes = len(answer.first)
        try:
            while piece := await answer.next():
                size_bytes += len(piece)
                if size_bytes > _MAX_TRANSLATED_BYTES:
                    raise GatewayError(
                        "upstream_error",
                        f"The answer of {self.fact.model!r} is too large to be translated.",
                    )
                pieces.append(piece)
        except (Broken, TimedOut, Stopped) as error:
            if not isinstance(error, Stopped):
                answer.broke()
            raise self._broken(error) from error
        return b"".join(pieces)

    async def _translate(self, answer: Answer, translation: Translation) -> None:
        assert answer.events is not None
        piece = answer.first
        while piece:
            out = translation.feed(piece)
            if answer.events.done:
                break
            if out:
                await self._write(out)
            piece = await answer.next()
        # Not held back until the replica closes its stream.
        out = (out if piece else b"") + translation.end()
        await self._kept()
        await self._write(out)
        await _run_out(answer)

    async def _write(self, out: bytes) -> None:
        self.fact.response_bytes += len(out)
        self.caller.write(out)
        await self.caller.drain()

    async def _kept(self) -> None:
        if self.keep is not None:
            await self.keep()

    def broke_off(self, error: Exception) -> GatewayError:
        """Write down that an answer ended too early, and give what its caller is told."""
        broken = error if isinstance(error, GatewayError) else self._broken(error)
        self.fact.error_class, self.fact.error_message = broken.error_class, broken.message
        return broken

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

    def caller_left(self) -> None:
        """The caller went away; the replica stops working on its request."""
        fact = self.fact
        fact.error_class, fact.status = "client_closed", CLIENT_CLOSED
        fact.error_message = self.request.gone or "The caller closed the connection."

    def account(self, answer: Answer, stats: Stats) -> None:
        """Fill in tokens and cost, also of an answer that broke off."""
        self.count_stream(answer.events, answer.route.model, stats)
        self.count(answer.usage, answer.price, answer.route.model, stats)

    def count_stream(self, events: EventStream | None, model: str, stats: Stats) -> None:
        """Fill in what a stream says, other than its usage."""
        fact = self.fact
        if events is not None and events.error is not None and not fact.error_class:
            fact.error_class = "upstream_error"
            fact.error_message = "The replica ended the stream with an error event."
        if fact.ttft_ms is not None:
            stats.ttft.count(fact.ttft_ms / 1000, (model,))

    def count(self, found: Usage | None, price: Price | None, model: str, stats: Stats) -> None:
        """Fill in tokens and cost.

        Args:
            found: What the replica says that it used; None when it says nothing.
            price: Of its tokens.
            model: The name of its route.
            stats: Count them, too.
        """
        if found is None:
            return
        fact = self.fact
        fact.cost_usd = cost_usd(price, found)
        fact.input_tokens, fact.output_tokens = found.prompt_tokens, found.completion_tokens
        if found.prompt_tokens_details is not None:
            fact.cached_tokens = found.cached_tokens
        stats.tokens.count((model, "input"), fact.input_tokens or 0)
        stats.tokens.count((model, "output"), fact.output_tokens or 0)

    def elapsed_ms(self) -> float:
        """Since the request's head was read."""
        return (clock.monotonic_s() - self.started_s) * 1000


async def _run_out(answer: Answer) -> None:
    """Let a stream that said its last word come to its end: its connection can then be kept."""
    with suppress(Broken, TimedOut, Stopped, TimeoutError):
        async with asyncio.timeout(_RUN_OUT_S):
            while await answer.next():
                continue
