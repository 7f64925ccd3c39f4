"""aiohttp's server, for every route that needs no protocol of its own.

A connection comes here with its first request to such a route and stays, so the hot routes are
answered here as well, by the same code: a request is a `gateway.http_request.Request` whose caller
is a `ColdCaller`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from itertools import islice
from typing import TYPE_CHECKING, Any

from aiohttp import EMPTY_PAYLOAD, StreamReader, web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import LineTooLong

from core.kernel import clock
from gateway.http_request import (
    HIGH_WATER_BYTES,
    LINGER_S,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_TARGET_BYTES,
    SLOWEST_BODY_BYTES_PER_S,
    BadRequest,
    Head,
    Request,
    Response,
    Source,
    check_head,
    head_too_large,
    joined,
    target_too_long,
)

if TYPE_CHECKING:
    from gateway.front import Front

log = logging.getLogger(__name__)

# What ends a head.
_END = b"\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SERVER = "bud"


class ColdServer:
    """aiohttp's low-level server: the few routes need nothing of its application layer.

    Args:
        front: Whose connections these are.
    """

    def __init__(self, front: Front) -> None:
        self._front = front
        self._server = web.Server(self._serve, handler_cancellation=True)
        self._options: dict[str, Any] = {
            "loop": asyncio.get_running_loop(),
            "logger": log,
            "access_log": None,
            "auto_decompress": False,
            "keepalive_timeout": front.timeouts.idle_s,
            "lingering_time": LINGER_S,
            "max_line_size": MAX_TARGET_BYTES,
            "max_field_size": MAX_HEAD_BYTES,
            "max_headers": MAX_HEADERS,
        }

    def connection(self) -> ColdConnection:
        """Makes the protocol for a connection."""
        return ColdConnection(self._front, self._server, **self._options)

    async def _serve(self, asked: web.BaseRequest) -> web.StreamResponse:
        return await ColdCaller(self._front, asked).answered()


class ColdConnection(web.RequestHandler):
    """One connection at aiohttp, with the time-outs and refusals of the hot routes."""

    def __init__(self, front: Front, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._front = front
        self._head_since_s: float | None = clock.monotonic_s()  # one has begun to come
        self._head_bytes = 0
        self._body: StreamReader = EMPTY_PAYLOAD  # that of the newest request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection in."""
        super().connection_made(transport)
        self._front.connections.add(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End the request that is being answered."""
        self._front.connections.discard(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; the requests in it wait for their turn."""
        is_http = not self._upgraded and self._payload_parser is None
        if data and is_http and self._head_since_s is None and self._body.is_eof():
            self._head_since_s, self._head_bytes = clock.monotonic_s(), 0
        before = len(self._messages)
        super().data_received(data)
        if len(self._messages) > before:
            self._fail_what_breaks_off(before)
            self._head_since_s, self._body = None, self._messages[-1][1]
            if self._body is EMPTY_PAYLOAD and data and not data.endswith(_END):
                # Behind a request without a body the next one has begun.
                self._head_since_s, self._head_bytes = clock.monotonic_s(), 0
        elif self._head_since_s is not None and is_http and not self._buffer_paused:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(head_too_large())

    def _fail_what_breaks_off(self, before: int) -> None:
        """End bodies behind which something came though they had not ended: they are broken.

        aiohttp notes a body that is no HTTP as the next message, and where reading was paused it
        tells nobody who waits for the body.
        """
        bodies = [self._body, *(body for _, body in islice(self._messages, before, None))]
        for body in bodies[:-1]:
            if not body.is_eof() and body.exception() is None:
                body.set_exception(web.RequestPayloadError("the body is not HTTP/1.1"))

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered and none has begun to come."""
        # What aiohttp itself takes for idle before it closes a connection.
        return self._head_since_s is None and self._waiter is not None and not self._waiter.done()

    def sweep(self, now_s: float) -> None:
        """Let a caller go whose request's head does not come."""
        since_s = self._head_since_s
        if since_s is None:
            return
        if self._messages or self._current_request is not None:
            self._head_since_s = now_s  # those before it are still to be answered
        elif now_s - since_s > self._front.timeouts.head_s:
            self._refuse(BadRequest(408, "The request's head did not come in time."))

    def _refuse(self, problem: BadRequest) -> None:
        """Leave the connection to who tells it and waits until that is read."""
        transport, self.transport = self.transport, None
        if transport is not None:
            self.connection_lost(None)
            self._front.refuse(transport, problem)

    def close_idle(self) -> None:
        """Close it, while no request is being answered."""
        self.force_close()

    def abort(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP is refused; what was sent is neither logged nor sent back."""
        if isinstance(exc, HttpProcessingError):
            exc = _problem(exc)
        if isinstance(exc, BadRequest):
            self._refuse(exc)
            raise _gone()
        if isinstance(exc, ConnectionError):
            raise exc
        return super().handle_error(request, status, exc, message)

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Faults of this process, and never a body that is no HTTP: its text may hold a key."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError | HttpProcessingError):
            super().log_exception(*args, **kw)


class ColdCaller:
    """The `gateway.http_request.Caller` of one request at aiohttp.

    What is written is sent by aiohttp's task, and another task answers: who writes does not wait.
    """

    chunk_writer = None  # aiohttp frames what it sends itself

    def __init__(self, front: Front, asked: web.BaseRequest) -> None:
        self.remote = asked.remote or ""
        self.task: asyncio.Task[Response | None] | None = None
        self.source: Source | None = None
        self._front = front
        self._asked = asked
        self._response: web.StreamResponse | None = None
        self._socket: web.WebSocketResponse | None = None
        self._ended = False
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        # There is something to send, or nothing more to wait for.
        self._moved = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._request = self._read()

    def _read(self) -> Request:
        asked, headers = self._asked, dict[bytes, bytes]()
        for name, value in asked.raw_headers:
            name = name.lower()
            headers[name] = joined(headers, name, value) if name in headers else value
        if sum(map(len, headers)) + sum(map(len, headers.values())) > MAX_HEAD_BYTES:
            raise head_too_large()
        version = f"{asked.version.major}.{asked.version.minor}"
        check_head(version, headers)
        head = Head(
            asked.method,
            asked.raw_path.encode("utf-8", "surrogateescape"),
            headers,
            is_http_10=version == "1.0",
            keep_alive=asked.keep_alive,
        )
        request = Request(self, head, int(headers.get(b"content-length", b"0")))
        request.is_complete = asked.content.at_eof()
        return request

    async def answered(self) -> web.StreamResponse:
        """The whole answer, sent. Raises ConnectionError: the caller is gone."""
        task = self.task = asyncio.create_task(self._front.answer(self._request))
        task.add_done_callback(lambda _: self._moved.set())
        try:
            while self._pieces or not task.done():
                await self._moved.wait()
                self._moved.clear()
                await self._in_time(self._forward())
            if self._socket is not None:
                return self._socket
            if task.cancelled():
                raise _gone()
            response = self._last(task.result())
            await self._in_time(self._finish(response))
        finally:
            task.cancel()
        return response

    def _last(self, whole: Response | None) -> web.StreamResponse:
        if self._response is None and whole is not None:
            return self._begun(_response(whole))
        # A fault behind the beginning of an answer: a second one would be the next request's.
        if self._response is None or not self._ended:
            self.abort()
            raise _gone()
        return self._response

    def _begun(self, response: web.StreamResponse) -> web.StreamResponse:
        if self._front.cors is not None:
            response.headers.update(self._front.cors.headers(self._request))
        # aiohttp loses what came together with an offer to upgrade that it does not know.
        is_offer = "upgrade" in self._request.headers or self._asked.method == "CONNECT"
        if is_offer or self._front.is_stopping or not self._asked.content.is_eof():
            response.force_close()
        return response

    async def _in_time(self, sending: Coroutine[Any, Any, None]) -> None:
        caller_s = self._front.timeouts.caller_s
        try:
            async with asyncio.timeout(caller_s):
                await sending
        except TimeoutError:
            self._request.gone = f"The caller did not read for {caller_s:.0f} s."
            self.abort()
            raise _gone() from None

    async def _forward(self) -> None:
        response = self._response
        if response is None:
            return
        await response.prepare(self._asked)
        pieces, self._pieces, self._held_bytes = self._pieces, [], 0
        for piece in pieces:
            await response.write(piece)
        if not self._has_room.is_set():
            self._has_room.set()
            if self.source is not None:
                self.source.resume()

    async def _finish(self, response: web.StreamResponse) -> None:
        await response.prepare(self._asked)
        await response.write_eof()
        transport = self._asked.transport
        if transport is not None and not self._asked.content.is_eof():
            # Closed by aiohttp only when the rest of the body has been thrown away.
            transport.write_eof()

    # -- for whoever answers

    async def open_body(self, request: Request) -> StreamReader:
        """The body, for who reads it piece by piece; what is left of it is thrown away."""
        await self._expected(request)
        return self._asked.content

    async def rest_of_body(self, request: Request, max_bytes: int) -> None:
        """Wait until the body is there, or is over the limit. Raises BadRequest."""
        content, caller_s = self._asked.content, self._front.timeouts.caller_s
        await self._expected(request)
        began_s = clock.monotonic_s()
        try:
            while not content.at_eof():
                may_take_s = caller_s + request.received_bytes / SLOWEST_BODY_BYTES_PER_S
                left_s = may_take_s - (clock.monotonic_s() - began_s)
                async with asyncio.timeout(min(caller_s, left_s)):
                    piece = await content.readany()
                request.received_bytes += len(piece)
                if request.received_bytes > max_bytes:
                    request.pieces.clear()
                    return
                request.pieces.append(piece)
        except TimeoutError:
            request.gone = f"The caller did not send its body for {caller_s:.0f} s."
            self.abort()
            raise _gone() from None
        except (web.RequestPayloadError, HttpProcessingError):
            raise BadRequest(400, "The request's body is not HTTP/1.1.") from None
        request.is_complete = True

    async def _expected(self, request: Request) -> None:
        if request.is_http_10 or self._asked.content.is_eof():
            return
        if request.headers.get("expect").lower() == "100-continue":
            await self._asked.writer.write(_CONTINUE)
            self._asked.writer.output_size = 0  # no answer has begun by that

    async def open_socket(
        self,
        protocols: list[str],
        headers: dict[str, str],
        max_message_bytes: int,
        heartbeat_s: float,
    ) -> web.WebSocketResponse:
        """Answer with a WebSocket; who opened it closes it. Raises ConnectionError."""
        socket = web.WebSocketResponse(
            protocols=protocols,
            heartbeat=heartbeat_s,
            max_msg_size=max_message_bytes,
            autoclose=False,
            compress=False,
        )
        socket.headers.update(headers | {"Server": _SERVER})
        await socket.prepare(self._asked)
        self._socket = socket
        return socket

    async def drain(self) -> None:
        """Wait until the caller has read most of what was written."""
        await self._has_room.wait()

    def start(self, headers: dict[str, str], content_bytes: int | None = None) -> None:
        """Begin an answer with status 200."""
        response = web.StreamResponse(headers=headers | {"Server": _SERVER})
        response.content_length = content_bytes
        self._response = self._begun(response)

    def write(self, piece: bytes) -> None:
        """Send a piece of the body. Raises ConnectionError: the caller is gone."""
        transport = self._asked.transport
        if transport is None or transport.is_closing():
            raise _gone()
        self._pieces.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes > HIGH_WATER_BYTES and self._has_room.is_set():
            self._has_room.clear()
            if self.source is not None:
                self.source.pause()
        self._moved.set()

    def end(self) -> None:
        """The answer is whole."""
        self._ended = True
        self._moved.set()

    def abort(self) -> None:
        """Close at once."""
        if self._asked.transport is not None:
            self._asked.transport.abort()


def _response(whole: Response) -> web.Response:
    headers = whole.headers | {"Server": _SERVER}
    return web.Response(body=whole.body, status=whole.status, headers=headers)


def _problem(error: HttpProcessingError) -> BadRequest:
    # Its text may hold what was sent.
    if isinstance(error, LineTooLong):
        is_target = error.args[1] == MAX_TARGET_BYTES
        return target_too_long() if is_target else head_too_large()
    return BadRequest(400, f"The request is not HTTP/1.1: {type(error).__name__}.")


def _gone() -> ConnectionResetError:
    return ConnectionResetError("the caller is gone")
