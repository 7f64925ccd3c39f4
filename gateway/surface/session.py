"""One realtime session: messages go from side to side, until one of them ends it or must.

What one side does not read holds the other side up, and nothing is piled up here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import aiohttp
import msgspec
from aiohttp import ClientWebSocketResponse, WSMsgType, web

from core.kernel import clock
from gateway.cold import ColdCaller
from gateway.errors import GatewayError
from gateway.relay import Exchange
from gateway.usage import PromptDetails, Tokens, Usage

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
HEARTBEAT_S = 30.0
CLOSE_S = 5.0
# How often it is asked whether the session may go on.
_CHECK_S = 0.4
_GOING_AWAY, _REFUSED, _BROKE, _NORMAL = 1001, 1008, 1011, 1000
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
_BEGUN, _ENDED = "response.created", "response.done"
_COUNTED = frozenset({_ENDED, "conversation.item.input_audio_transcription.completed"})


@dataclass(frozen=True, slots=True)
class _End:
    """How a session ends: what both sides are told, and what the fact says.

    `refusal` is why it may not go on: the caller gets it as its last event.
    """

    code: int
    reason: str = ""
    error_class: str = ""
    message: str = ""
    refusal: GatewayError | None = None


class Session:
    """Both sides of one session.

    Args:
        exchange: The request that opened it.
        upstream: The side of the replica.
        idle_s: How long both sides may be silent.
        check: Raises GatewayError when it may not go on; asked all the time.
        spent: Told what each answer took, before its caller gets it.
        go_on: Asked behind each answer. Raises GatewayError: no other one may follow.

    Attributes:
        usage: What the replica said that its responses took, added up; None without any.
        begun: How many responses have begun and not ended.
    """

    def __init__(
        self,
        exchange: Exchange,
        upstream: ClientWebSocketResponse,
        idle_s: float,
        check: Callable[[], Awaitable[None]],
        spent: Callable[[Usage], None],
        go_on: Callable[[], Awaitable[None]],
    ) -> None:
        self.usage: Usage | None = None
        self.begun = 0
        self._exchange = exchange
        self._upstream = upstream
        self._idle_s = idle_s
        self._check, self._spent, self._go_on = check, spent, go_on
        self._moved_s = clock.monotonic_s()

    async def run(self, total_s: float) -> None:
        """Take the caller in, and hand on until one side ends it, or a time is over."""
        exchange, fact = self._exchange, self._exchange.fact
        caller: web.WebSocketResponse | None = None
        end = _End(_GOING_AWAY)
        try:
            client = exchange.request.caller
            assert isinstance(client, ColdCaller)
            headers = {"X-Request-Id": fact.request_id}
            if fact.answered_by:
                headers["X-Bud-Fallback"] = fact.answered_by
            caller = await client.open_socket(
                [self._upstream.protocol] if self._upstream.protocol else [],
                headers,
                MAX_MESSAGE_BYTES,
                HEARTBEAT_S,
            )
            fact.status = 101
            end = await self._handed_on(caller, total_s)
            fact.error_class, fact.error_message = end.error_class, end.message
            if end.error_class == "client_closed":
                exchange.caller_left()
            elif end.refusal is not None:
                await _told(caller, end.refusal, fact.request_id)
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
                done, _ = await asyncio.wait(
                    pumps,
                    timeout=min(ends_s - now_s, idle_s, _CHECK_S),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if done:
                    return done.pop().result()
                await self._check()
        except GatewayError as error:
            return _refused(error)
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
                        # Before it is sent: who does not read it has had it made all the same.
                        took = not is_caller and _matters(text) and self._count(text)
                        await sink.send_str(text)
                        if took:
                            await self._go_on()
                    case WSMsgType.BINARY:
                        size_bytes = len(message.data)
                        await sink.send_bytes(message.data)
                    case WSMsgType.CLOSE:
                        return _End(_code(message.data), message.extra or "")
                    case _:
                        return self._broken(source, is_caller=is_caller)
            except (ConnectionError, aiohttp.ClientError):
                return self._broken(sink, is_caller=not is_caller)
            except GatewayError as error:
                return _refused(error)
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

    def _count(self, text: str) -> bool:
        """Count what an event says that was taken; whether it says so."""
        try:
            event = _decode_event(text)
        except msgspec.DecodeError:
            return False
        if event.type == _BEGUN:
            self.begun += 1
        elif event.type == _ENDED:
            self.begun = max(self.begun - 1, 0)
        found = event.response.usage if event.response else event.usage
        if event.type not in _COUNTED or found is None:
            return False
        cached = found.input_token_details and found.input_token_details.cached_tokens
        took = Usage(
            prompt_tokens=found.input_tokens or 0,
            completion_tokens=found.output_tokens or 0,
            prompt_tokens_details=PromptDetails(cached or 0),
        )
        self.usage = took if self.usage is None else _added(self.usage, took)
        self._spent(took)
        return True


def _matters(text: str) -> bool:
    """Whether an event may say something to be counted; most are pieces of sound."""
    return '"usage"' in text or _BEGUN in text or _ENDED in text


def _added(one: Usage, other: Usage) -> Usage:
    return Usage(
        prompt_tokens=(one.prompt_tokens or 0) + (other.prompt_tokens or 0),
        completion_tokens=(one.completion_tokens or 0) + (other.completion_tokens or 0),
        prompt_tokens_details=PromptDetails((one.cached_tokens or 0) + (other.cached_tokens or 0)),
    )


def _refused(error: GatewayError) -> _End:
    return _End(_REFUSED, error.message, error.error_class, error.message, error)


async def _told(caller: web.WebSocketResponse, error: GatewayError, request_id: str) -> None:
    """Say why it ends, as OpenAI's realtime API tells errors."""
    event = {
        "type": "error",
        "event_id": f"event_{request_id}",
        "error": {
            "type": error.type,
            "code": error.code,
            "message": error.message,
            "param": error.param,
            "event_id": None,
        },
    }
    with suppress(TimeoutError, ConnectionError, aiohttp.ClientError):
        async with asyncio.timeout(CLOSE_S):
            await caller.send_str(msgspec.json.encode(event).decode())


def _code(code: int) -> int:
    return _NORMAL if code in _UNSENT or not 1000 <= code < 5000 else code


async def _closed(socket: _Socket, end: _End) -> None:
    if socket.closed:
        return
    with suppress(TimeoutError, ConnectionError, aiohttp.ClientError):
        async with asyncio.timeout(CLOSE_S):
            # 125 bytes is what a closing frame holds, with its code; no letter may be cut.
            reason = end.reason.encode()[:120].decode(errors="ignore").encode()
            await socket.close(code=end.code, message=reason)
