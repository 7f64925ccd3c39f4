"""One connection to the hot routes: an `asyncio.Protocol`, parsed by httptools (llhttp).

It has a task from its first request on, which answers one after the other: a task for each would
cost more than the rest of the way through here. Nothing behind a request is looked at before its
answer is out: at most a buffer of it is kept, and nothing more is read meanwhile. What is not HTTP
as RFC 9112 has it is refused and its connection closed: two servers that read the same bytes
differently are how requests are smuggled.

See docs/decisions/0015 for why this is not aiohttp's server.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import httptools

from core.kernel import clock
from gateway.hot_answers import HotAnswers
from gateway.http_request import (
    HIGH_WATER_BYTES,
    LINGER_S,
    MAX_HEAD_BYTES,
    MAX_TARGET_BYTES,
    SLOWEST_BODY_BYTES_PER_S,
    BadRequest,
    Head,
    Request,
    Source,
    check_head,
    head_too_large,
    joined,
    no_http,
    target_too_long,
)
from gateway.known_head import KnownHead
from gateway.outbox import Outbox

if TYPE_CHECKING:
    from gateway.front import Front
    from gateway.short_way import ShortCall

log = logging.getLogger(__name__)

# What ends a head, and a body in chunks.
_END = b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HotConnection(HotAnswers, asyncio.Protocol):
    """One connection: its requests one after the other, and their answers.

    To a request it is its `gateway.http_request.Caller`.
    """

    __slots__ = (
        "_began_s", "_full", "_head_begun", "_headers", "_incoming", "_known", "_lingers", "_loop",
        "_parser", "_problem", "_short", "_since_s", "_source", "_starts", "_tail", "_target",
        "_unframed_bytes", "_unread", "_waiter", "remote", "task",
    )  # fmt: skip

    def __init__(self, front: Front, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        HotAnswers.__init__(self, front, outbox)
        self.remote = ""
        self._source: Source | None = None
        self._loop = loop
        # One for each head, and for a body in chunks behind it.
        self._parser: httptools.HttpRequestParser | None = None
        self._known: KnownHead | None = None
        # What comes: the head that is being read, then the request whose body is.
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_begun = False
        self._incoming: Request | None = None
        self._unframed_bytes = 0
        # The last bytes of a head, or of chunks, in which its end may begin; b"" when none of it
        # has come.
        self._tail = b""
        self._problem: BadRequest | None = None
        # What came behind it, or too little to tell whose it is.
        self._unread = b""
        self.task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._full = self._lingers = self._starts = False
        self._short: ShortCall | None = None
        # Since when it waits for its caller, whatever for; and since when for this body.
        self._since_s = self._began_s = clock.monotonic_s()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection in."""
        # uvloop's transports do not derive from asyncio's classes.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=HIGH_WATER_BYTES)
        peer = transport.get_extra_info("peername")
        self.remote = peer[0] if peer else ""
        self._front.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came of one request, which is begun by that; keep what is behind it."""
        if self._lingers or self._problem is not None:
            return
        try:
            if not self._begin_known(data):
                self._feed(data)
            if self._tail or self._incoming is not None:
                self._see_progress()
        except BadRequest as problem:
            self.refuse(problem)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self.refuse(cause if isinstance(cause, BadRequest) else no_http(error))
        except httptools.HttpParserError as error:
            self.refuse(no_http(error))
        if self._starts:
            self._start()

    def _begin_known(self, data: bytes) -> bool:
        """Begin a request whose head came before; False when this is none."""
        known = self._known
        if known is None or self._request is not None or self._tail or self._unread:
            return False
        found = known.matched(data)
        if found is None:
            return False
        content_bytes, at = found
        if not content_bytes:
            return False
        request = Request(self, known.meaning, content_bytes)
        if len(data) - at == content_bytes <= self._front.max_body_bytes:
            request.pieces.append(data[at:])
            request.received_bytes = content_bytes
            request.is_complete = True
            self._begin(request)
            return True
        self._take_in(request)
        self._feed(data[at:])
        return True

    def _feed(self, data: bytes) -> None:
        """Parse it in steps, each up to where a message may end.

        The parser does not tell where a message ended, and nothing behind it is for this parser.
        """
        while data:
            request = self._incoming
            if request is not None and request.content_bytes:
                size = request.content_bytes - request.received_bytes
                self.on_body(data[:size])
                if size <= len(data):
                    self._complete(request)
                data = data[size:]
                continue
            if not self._tail and (
                self._request is not None or self._unread or not data.startswith(self._front.hot)
            ):
                data = self._first_of(data)
                if not data:
                    return
            is_whole = not self._tail and request is None
            end = self._end_of_step(data)
            step, data = data[:end], data[end:]
            self._unframed_bytes += len(step)
            if self._unframed_bytes > MAX_HEAD_BYTES and request is None:
                raise head_too_large()
            self._parse(step)
            if self._unframed_bytes > MAX_HEAD_BYTES and self._tail:
                raise head_too_large()
            if is_whole and self._incoming is not None and self._incoming.content_bytes:
                self._known = KnownHead.of(step, self._incoming.head)

    def _parse(self, step: bytes) -> None:
        """Parse a piece of a head, or of a body in chunks."""
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        self._tail = step[-3:] if len(step) > 2 else (self._tail + step)[-3:]
        # An offer to upgrade is not taken up: what follows is HTTP/1.1 as before.
        with suppress(httptools.HttpParserUpgrade):
            self._parser.feed_data(step)

    def _see_progress(self) -> None:
        """A head has begun, or more of a body has come."""
        if self._incoming is not None or not self._head_begun:
            self._head_begun = self._incoming is None
            self._since_s = clock.monotonic_s()

    def _first_of(self, data: bytes) -> bytes:
        """What is to be parsed of a message that begins; b"" when that is nothing for now."""
        data = self._unread + data
        self._unread = b""
        if self._request is not None:
            self._unread = data
            if self.transport is not None:
                self.transport.pause_reading()
            return b""
        if data.startswith(self._front.hot):
            return data
        if any(each.startswith(data) for each in self._front.hot):
            self._unread = data
            self._see_progress()
        else:
            self._hand_over(data)
        return b""

    def _end_of_step(self, data: bytes) -> int:
        if self._tail:
            # The end may have begun in what came before.
            found = (self._tail + data[:3]).find(_END)
            if found >= 0:
                return found + len(_END) - len(self._tail)
        found = data.find(_END)
        return len(data) if found < 0 else found + len(_END)

    def _hand_over(self, data: bytes) -> None:
        transport = self.transport
        if transport is None:
            return
        self._outbox.flush()
        self.transport = None
        self._front.connections.discard(self)
        self._wake()
        self._front.hand_over(transport, data, is_full=self._full)

    def pause_writing(self) -> None:
        """The caller does not read as fast as it is written to."""
        self._full = True
        self._since_s = clock.monotonic_s()
        if self._source is not None:
            self._source.pause()

    def resume_writing(self) -> None:
        """It has read most of it."""
        self._full = False
        if self._source is not None:
            self._source.resume()
        self._wake()

    def connection_lost(self, _error: Exception | None) -> None:
        """End the request that is being answered."""
        self.transport = None
        self._front.connections.discard(self)
        short, self._short = self._short, None
        if short is not None:
            short.left()
        if self.task is not None:
            self.task.cancel()

    # -- httptools

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._request is not None:
            raise BadRequest(400, "A request began inside of another one.")
        self._target, self._headers = b"", {}

    def on_url(self, piece: bytes) -> None:
        """A piece of the target."""
        self._target += piece
        if len(self._target) > MAX_TARGET_BYTES:
            raise target_too_long()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or behind a body a trailer, which nobody needs."""
        if self._incoming is None:
            headers, name = self._headers, name.lower()
            headers[name] = joined(headers, name, value) if name in headers else value

    def on_headers_complete(self) -> None:
        """Begin the request."""
        parser, headers = self._parser, self._headers
        assert parser is not None
        version = parser.get_http_version()
        check_head(version, headers)
        is_chunked = b"transfer-encoding" in headers
        if is_chunked and parser.should_upgrade():
            raise BadRequest(501, "Upgrade is not understood here. Send it without.")
        head = Head(
            parser.get_method().decode("latin-1"),
            self._target,
            headers,
            is_http_10=version == "1.0",
            keep_alive=parser.should_keep_alive(),
        )
        request = Request(self, head, int(headers.get(b"content-length", b"0")))
        self._take_in(request)
        if not is_chunked:
            # Its body is counted here, and the next head gets another parser.
            self._head_ended()
            if not request.content_bytes:
                self._complete(request)

    def on_body(self, piece: bytes) -> None:
        """A piece of the body; what is over the limit, or belongs to a refused one, is dropped."""
        self._unframed_bytes = 0
        request = self._incoming
        if request is None:
            return
        request.received_bytes += len(piece)
        if request.received_bytes <= self._front.max_body_bytes:
            request.pieces.append(piece)
        else:
            request.pieces.clear()
            self._wake()

    def on_message_complete(self) -> None:
        """A body in chunks is there."""
        if self._incoming is not None and self._parser is not None:
            self._head_ended()
            self._complete(self._incoming)

    def _head_ended(self) -> None:
        self._parser = None
        self._unframed_bytes = 0
        self._tail = b""

    def _take_in(self, request: Request) -> None:
        self._head_begun = False
        self._incoming = request
        self._begin(request)

    def _complete(self, request: Request) -> None:
        self._incoming = None
        request.is_complete = True
        self._wake()

    # -- from one request to the next

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered and none has begun to come."""
        return self._request is None and not self._head_begun

    def _begin(self, request: Request) -> None:
        self._request = request
        self._head = b""
        self._head_seen = self._chunked = self._ended = False
        self._since_s = self._began_s = clock.monotonic_s()
        self._starts = True

    def _start(self) -> None:
        """Let the request be answered, as much of it as has come."""
        self._starts = False
        request, short = self._request, self._front.short
        if request is not None and request.is_complete and short is not None:
            self._short = short(request, self)
            if self._short is not None:
                return
        self.go_long_way()

    def go_long_way(self) -> None:
        """Let a task answer the request."""
        if self.task is None:
            self.task = self._loop.create_task(self._work())
        else:
            self._wake()

    def finished(self) -> None:
        """The answer to a request that needed no task is out."""
        self._short = None
        if self._closes:
            self.close()
        else:
            self._go_on()

    async def _work(self) -> None:
        try:
            while True:
                while (request := self._request) is None or (self._short and not request.begun):
                    await self._woken()
                # Until now it is ended there, when the caller leaves.
                self._short = None
                if not await self._answer(request):
                    break
        except (asyncio.CancelledError, ConnectionError):
            self.abort()
        self.task = None

    async def _answer(self, request: Request) -> bool:
        """Answer one request; whether there may be another."""
        try:
            response = await self._front.answer(request)
            # A fault behind the beginning of an answer: a second one would be the next request's.
            if response is not None and not self._head_seen:
                self.send(response)
        except (asyncio.CancelledError, ConnectionError):
            self.abort()
        except Exception:  # a fault outside of what answers requests: nothing can be told
            log.exception("a request could not be answered")
            self.abort()
        if self.transport is None:
            return False
        if not self._ended:
            self.abort()
        elif self._closes:
            self.close(linger=not request.is_complete)
        else:
            self._go_on()
            return True
        return False

    def _go_on(self) -> None:
        self._request = None
        self._since_s = clock.monotonic_s()
        if self._unread and self.transport is not None:
            self.transport.resume_reading()
            data, self._unread = self._unread, b""
            self.data_received(data)

    def refuse(self, problem: BadRequest) -> None:
        """What came is no request: tell it, or let it be told by who waits for its body."""
        self._problem = problem
        if self._request is None:
            self._tell(problem)
        else:
            self._wake()  # its body is the problem

    def _tell(self, problem: BadRequest) -> None:
        refusal = self._front.refusal(problem)
        self._closes = True
        head = self._head_of(refusal.status, refusal.headers, len(refusal.body))
        if self.transport is not None:
            self._outbox.put(self.transport, head + refusal.body)
            self.close(linger=True)

    # -- for whoever answers

    async def rest_of_body(self, request: Request, max_bytes: int) -> None:
        """Wait until the body is there, or is over the limit. Raises BadRequest."""
        if (
            not request.is_http_10
            and not request.received_bytes
            and request.headers.get("expect").lower() == "100-continue"
            and self.transport is not None
        ):
            self._outbox.put(self.transport, _CONTINUE)
        self._since_s = clock.monotonic_s()
        while not request.is_complete and request.received_bytes <= max_bytes:
            if self._problem is not None:
                raise self._problem
            await self._woken()

    @property
    def source(self) -> Source | None:
        """See `Caller`; one that comes while the last answer was not read is paused at once."""
        return self._source

    @source.setter
    def source(self, source: Source | None) -> None:
        self._source = source
        if source is not None and self._full:
            source.pause()

    async def drain(self) -> None:
        """Wait until the caller has read most of what was written."""
        while self._full:
            await self._woken()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _woken(self) -> None:
        if self.transport is None:
            raise ConnectionResetError("the caller is gone")
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # -- the end

    def close(self, *, linger: bool = False) -> None:
        """Close when all is sent; lingering, only when the caller has read it.

        A connection closed on bytes that nobody read is reset, and the answer lost with it.
        """
        if self.transport is None:
            return
        self._outbox.flush()
        if not linger:
            self.transport.close()
            return
        self._lingers = True
        self._since_s = clock.monotonic_s()
        self.transport.resume_reading()
        self.transport.write_eof()

    def close_idle(self) -> None:
        """Close it, while no request is being answered."""
        self.close()

    def abort(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()

    def sweep(self, now_s: float) -> None:
        """Let a caller go that keeps this waiting for too long."""
        waits_s, timeouts, request = now_s - self._since_s, self._front.timeouts, self._request
        if self._lingers:
            if waits_s > LINGER_S:
                self.abort()
        elif request is None:
            if self._head_begun and waits_s > timeouts.head_s:
                self.refuse(BadRequest(408, "The request's head did not come in time."))
            elif waits_s > timeouts.idle_s:
                self.close()
        elif self._full:
            if waits_s > timeouts.caller_s:
                self._let_go(request, "did not read", timeouts.caller_s)
        elif not request.is_complete and not self._head_seen:
            may_take_s = timeouts.caller_s + request.received_bytes / SLOWEST_BODY_BYTES_PER_S
            if waits_s > timeouts.caller_s or now_s - self._began_s > may_take_s:
                self._let_go(request, "did not send its body", timeouts.caller_s)

    def _let_go(self, request: Request, what: str, after_s: float) -> None:
        request.gone = f"The caller {what} for {after_s:.0f} s."
        self.abort()
