"""The callers' side: HTTP/1.1 on an `asyncio.Protocol`, parsed by httptools (llhttp).

A connection has a task from its first request on, which answers one after the other: a task for
each would cost more than the rest of the way through here. Requests that come before the last one
is answered wait for their turn, and nothing more is read meanwhile. What is not HTTP as RFC 9112
has it is refused and its connection closed: two servers that read the same bytes differently are
how requests are smuggled.

See docs/decisions/0015 for why this is not aiohttp's server.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from typing import Protocol, cast

import httptools

from core.kernel import clock
from gateway.config import Timeouts
from gateway.cors import Cors
from gateway.errors import GatewayError
from gateway.http_request import BadRequest, Request, Response
from gateway.outbox import Outbox

log = logging.getLogger(__name__)

Answerer = Callable[[Request], Awaitable[Response | None]]

_MAX_TARGET_BYTES = 8 * 1024
# Of a request's head; also of what stands between two pieces of a body, and of its trailers.
_MAX_HEAD_BYTES = 64 * 1024
_MAX_HEADERS = 128
_LINGER_S = 10.0
_HIGH_WATER_BYTES = 64 * 1024
# A body may take `caller_s`, and a second more for so many bytes of it.
_SLOWEST_BODY_BYTES_PER_S = 4096
_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus
}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Source(Protocol):
    """Where an answer comes from, when it comes without being awaited piece by piece."""

    def pause(self) -> None:
        """The caller does not read."""

    def resume(self) -> None:
        """It reads again."""


class Front:
    """All connections of callers to one worker.

    Args:
        answer: Answers a request: with what it returns, or by itself through the request's caller.
            It raises nothing but CancelledError and ConnectionError.
        max_body_bytes: What of a body is over this is not kept.
        timeouts: Of callers: `head_s`, `caller_s`, `idle_s`.
    """

    def __init__(self, answer: Answerer, max_body_bytes: int, timeouts: Timeouts) -> None:
        self.answer = answer
        self.max_body_bytes = max_body_bytes
        self.timeouts = timeouts
        self.callers: set[Caller] = set()
        self.is_stopping = False
        self.refused: dict[int, int] = {}
        self.cors: Cors | None = None
        self._date, self._date_s = "", 0

    def listening(self) -> Callable[[], Caller]:
        """Makes the protocol for each connection that this event loop accepts."""
        loop = asyncio.get_running_loop()
        return partial(Caller, self, loop, Outbox(loop))

    @property
    def is_busy(self) -> bool:
        """Whether any request has begun and has not been answered."""
        return any(not caller.is_idle for caller in self.callers)

    def sweep(self) -> None:
        """Let go of callers that took too long; for about every second."""
        now_s = clock.monotonic_s()
        for caller in list(self.callers):
            caller.sweep(now_s)

    def stop(self, *, close_idle: bool) -> None:
        """Close each connection with its next answer, and the idle ones now if that is wanted."""
        self.is_stopping = True
        if close_idle:
            for caller in list(self.callers):
                if caller.is_idle:
                    caller.close()

    def abort(self) -> None:
        """Close every connection at once."""
        for caller in list(self.callers):
            caller.abort()

    def date(self) -> str:
        """The `Date` header, made once a second."""
        now_s = int(time.time())
        if now_s != self._date_s:
            self._date, self._date_s = f"Date: {formatdate(now_s, usegmt=True)}\r\n", now_s
        return self._date


class Caller(asyncio.Protocol):
    """One connection: its requests one after the other, and their answers.

    An answer is either a whole `Response`, or `start`, any number of `write`, `end`.
    """

    __slots__ = (
        "_began_s", "_chunked", "_closes", "_ended", "_front", "_full", "_head", "_head_begun",
        "_head_seen", "_headers", "_incoming", "_lingers", "_loop", "_offer_bytes", "_outbox",
        "_parser", "_problem", "_queue", "_request", "_since_s", "_target",
        "_unframed_bytes", "_waiter", "remote", "source", "task", "transport",
    )  # fmt: skip

    def __init__(self, front: Front, loop: asyncio.AbstractEventLoop, outbox: Outbox) -> None:
        self.transport: asyncio.Transport | None = None
        self.remote = ""
        self.source: Source | None = None  # paused while this caller does not read
        self._front = front
        self._loop = loop
        self._outbox = outbox
        self._parser = httptools.HttpRequestParser(self)
        # What comes: the head that is being read, then the request whose body is.
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._head_begun = False
        self._incoming: Request | None = None
        self._unframed_bytes = self._offer_bytes = 0
        self._problem: BadRequest | None = None
        self._queue: deque[Request] = deque()
        # What is being answered.
        self._request: Request | None = None
        self.task: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._head = b""
        self._head_seen = self._chunked = self._ended = self._closes = False
        self._full = self._lingers = False
        # Since when it waits for its caller, whatever for; and since when for this body.
        self._since_s = self._began_s = clock.monotonic_s()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection in."""
        # uvloop's transports do not derive from asyncio's classes.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
        peer = transport.get_extra_info("peername")
        self.remote = peer[0] if peer else ""
        self._front.callers.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse what came; the requests in it are begun or queued by that."""
        if self._lingers or self._problem is not None:
            return
        self._unframed_bytes += len(data)
        try:
            self._feed(data)
            if self._unframed_bytes > _MAX_HEAD_BYTES and self._is_inside_a_message:
                raise _head_too_large()
        except BadRequest as problem:
            self._refuse(problem)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, BadRequest) else _no_http(error))
        except httptools.HttpParserError as error:
            self._refuse(_no_http(error))

    def _feed(self, data: bytes) -> None:
        while data:
            if self._offer_bytes:
                data = self._take_offered(data)
                continue
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                # An offer that is not taken up: what follows is HTTP/1.1 as before.
                data = data[upgrade.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
            else:
                return

    def _take_offered(self, data: bytes) -> bytes:
        """Read from the body of a request that offers to upgrade, which httptools does not."""
        piece, rest = data[: self._offer_bytes], data[self._offer_bytes :]
        self._offer_bytes -= len(piece)
        self.on_body(piece)
        if not self._offer_bytes:
            self.on_message_complete()
        return rest

    def pause_writing(self) -> None:
        """The caller does not read as fast as it is written to."""
        self._full = True
        self._since_s = clock.monotonic_s()
        if self.source is not None:
            self.source.pause()

    def resume_writing(self) -> None:
        """It has read most of it."""
        self._full = False
        if self.source is not None:
            self.source.resume()
        self._wake()

    def connection_lost(self, _error: Exception | None) -> None:
        """End the request that is being answered."""
        self.transport = None
        self._front.callers.discard(self)
        self._queue.clear()
        if self.task is not None:
            self.task.cancel()

    # -- httptools

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._target, self._headers = b"", {}
        self._head_begun = True
        if self._request is None:
            self._since_s = clock.monotonic_s()

    def on_url(self, piece: bytes) -> None:
        """A piece of the target."""
        self._target += piece
        if len(self._target) > _MAX_TARGET_BYTES:
            raise BadRequest(414, f"The request's target has over {_MAX_TARGET_BYTES} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or behind a body a trailer, which nobody needs."""
        if self._incoming is not None:
            return
        headers, name = self._headers, name.lower()
        if name in headers:
            if name == b"host":
                raise BadRequest(400, "The header Host is there twice. Send it once.")
            value = headers[name] + b", " + value
        headers[name] = value
        if len(headers) > _MAX_HEADERS:
            raise BadRequest(431, f"The request has over {_MAX_HEADERS} headers. Send fewer.")

    def on_headers_complete(self) -> None:
        """Begin the request, or let it wait for those before it."""
        version, headers = self._parser.get_http_version(), self._headers
        if version not in ("1.1", "1.0"):
            raise BadRequest(505, f"HTTP/{version} is not spoken here. Use HTTP/1.1.")
        if version == "1.1" and b"host" not in headers:
            raise BadRequest(400, "The header Host is missing.")
        coding = headers.get(b"transfer-encoding")
        if coding is not None and (coding.strip().lower() != b"chunked" or version == "1.0"):
            raise BadRequest(501, "A body comes with Content-Length, or in plain chunks.")
        if self._unframed_bytes > _MAX_HEAD_BYTES and _size_bytes(headers) > _MAX_HEAD_BYTES:
            raise _head_too_large()
        if self._parser.should_upgrade():
            if coding is not None:
                raise BadRequest(501, "Upgrade is not understood here. Send it without.")
            self._offer_bytes = int(headers.get(b"content-length", b"0"))
        self._head_begun = False
        request = self._incoming = Request(
            self,
            self._parser.get_method().decode("latin-1"),
            self._target,
            headers,
            is_http_10=version == "1.0",
            keep_alive=self._parser.should_keep_alive(),
        )
        if self._request is None:
            self._begin(request)
            return
        self._queue.append(request)
        if self.transport is not None:
            self.transport.pause_reading()

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
        self._since_s = clock.monotonic_s()

    def on_message_complete(self) -> None:
        """The body is there."""
        if self._offer_bytes:
            return
        self._unframed_bytes = 0
        request, self._incoming = self._incoming, None
        if request is not None:
            request.is_complete = True
            self._wake()

    # -- from one request to the next

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered and none has begun to come."""
        return self._request is None and not self._head_begun

    @property
    def _is_inside_a_message(self) -> bool:
        return self._head_begun or self._incoming is not None

    def _begin(self, request: Request) -> None:
        self._request = request
        self._head = b""
        self._head_seen = self._chunked = self._ended = False
        self._since_s = self._began_s = clock.monotonic_s()
        if self.task is None:
            self.task = self._loop.create_task(self._work())
        else:
            self._wake()

    async def _work(self) -> None:
        try:
            while True:
                while self._request is None:
                    await self._woken()
                if not await self._answer(self._request):
                    break
        except (asyncio.CancelledError, ConnectionError):
            self.abort()
        self.task = None

    async def _answer(self, request: Request) -> bool:
        """Answer one request; whether there may be another."""
        try:
            response = await self._front.answer(request)
            if response is not None:
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
        if self._queue:
            following = self._queue.popleft()
            if not self._queue and self._problem is None and self.transport is not None:
                self.transport.resume_reading()
            self._begin(following)
        elif self._problem is not None:
            self._tell(self._problem)

    def _refuse(self, problem: BadRequest) -> None:
        """What came is no request: the ones before it are answered, then nothing more is."""
        if self._incoming is None and self._last is not None and not self._last.keep_alive:
            return  # behind a request that said to be the last one
        self._problem = problem
        if self._request is None:
            self._tell(problem)
        elif self._request is self._incoming:
            self._wake()  # its body is the problem

    @property
    def _last(self) -> Request | None:
        return self._queue[-1] if self._queue else self._request

    def _tell(self, problem: BadRequest) -> None:
        status = problem.status
        self._front.refused[status] = self._front.refused.get(status, 0) + 1
        log.info("a request is not taken: %d", status)
        error = GatewayError("invalid_request", str(problem), status=status)
        self._closes = True
        head = self._head_of(status, {"Content-Type": "application/json"}, len(error.body()))
        if self.transport is not None:
            self._outbox.put(self.transport, head + error.body())
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
    def is_full(self) -> bool:
        """Whether `drain` is to be awaited before more is written."""
        return self._full

    async def drain(self) -> None:
        """Wait until the caller has read most of what was written."""
        while self._full:
            await self._woken()

    def send(self, response: Response) -> None:
        """Send a whole answer. Raises ConnectionError: the caller is gone."""
        body, transport = response.body, self.transport
        if transport is None:
            raise ConnectionResetError("the caller is gone")
        head = self._head_of(response.status, response.headers, len(body))
        no_body = self._request is not None and self._request.method == "HEAD"
        self._outbox.put(transport, head if no_body else head + body)
        self._head_seen = self._ended = True

    def start(self, headers: dict[str, str], content_bytes: int | None = None) -> None:
        """Begin an answer with status 200; its head goes out with the first write.

        Args:
            headers: All but `Content-Length`, `Transfer-Encoding`, `Date` and `Connection`.
            content_bytes: Length of the body; None when it is not known.
        """
        request = self._request
        assert request is not None
        self._chunked = content_bytes is None and not request.is_http_10
        if content_bytes is None and request.is_http_10:
            request.keep_alive = False  # its end is the connection's end
        self._head = self._head_of(200, headers, content_bytes)
        self._head_seen = True

    def write(self, piece: bytes) -> None:
        """Send a piece of the body. Raises ConnectionError: the caller is gone."""
        transport = self.transport
        if transport is None:
            raise ConnectionResetError("the caller is gone")
        if not piece:
            return  # an empty chunk would be the end
        if self._chunked:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        if self._head:
            piece, self._head = self._head + piece, b""
        self._outbox.put(transport, piece)

    def end(self) -> None:
        """The answer is whole."""
        rest = self._head + (b"0\r\n\r\n" if self._chunked else b"")
        self._head = b""
        if rest and self.transport is not None:
            self._outbox.put(self.transport, rest)
        self._ended = True

    def _head_of(self, status: int, headers: dict[str, str], content_bytes: int | None) -> bytes:
        request = self._request
        lines = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n"
        for name, value in headers.items():
            lines += f"{name}: {value}\r\n"
        if lines.count("\n") != len(headers) + 1:
            raise ValueError("a header has a line break in it")
        if content_bytes is not None:
            lines += f"Content-Length: {content_bytes}\r\n"
        elif self._chunked:
            lines += "Transfer-Encoding: chunked\r\n"
        lines += self._front.date()
        if self._front.cors is not None and request is not None:
            lines += self._front.cors.lines(request)
        if self._is_to_close():
            self._closes = True
            lines += "Connection: close\r\n"
        elif request is not None and request.is_http_10:
            lines += "Connection: keep-alive\r\n"
        return (lines + "\r\n").encode()

    def _is_to_close(self) -> bool:
        request = self._request
        return (
            self._closes
            or self._front.is_stopping
            or request is None
            or not (request.keep_alive and request.is_complete)
        )

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

    def abort(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()

    def sweep(self, now_s: float) -> None:
        """Let a caller go that keeps this waiting for too long."""
        waits_s, timeouts, request = now_s - self._since_s, self._front.timeouts, self._request
        if self._lingers:
            if waits_s > _LINGER_S:
                self.abort()
        elif request is None:
            if self._head_begun and waits_s > timeouts.head_s:
                self._refuse(BadRequest(408, "The request's head did not come in time."))
            elif waits_s > timeouts.idle_s:
                self.close()
        elif self._full:
            if waits_s > timeouts.caller_s:
                self._let_go(request, "did not read", timeouts.caller_s)
        elif not request.is_complete and not self._head_seen:
            may_take_s = timeouts.caller_s + request.received_bytes / _SLOWEST_BODY_BYTES_PER_S
            if waits_s > timeouts.caller_s or now_s - self._began_s > may_take_s:
                self._let_go(request, "did not send its body", timeouts.caller_s)

    def _let_go(self, request: Request, what: str, after_s: float) -> None:
        request.gone = f"The caller {what} for {after_s:.0f} s."
        self.abort()


def _size_bytes(headers: dict[bytes, bytes]) -> int:
    return sum(map(len, headers)) + sum(map(len, headers.values()))


def _head_too_large() -> BadRequest:
    return BadRequest(431, f"The request's head has over {_MAX_HEAD_BYTES} bytes. Send less.")


def _no_http(error: Exception) -> BadRequest:
    # What llhttp says names the rule, never what was sent.
    return BadRequest(400, f"The request is not HTTP/1.1: {error}.")
