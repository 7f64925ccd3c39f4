"""A small HTTP/1.1 client for replicas: asyncio.Protocol and httptools, connections kept alive.

On the gateway's path this costs about a tenth of a general client. It knows one request shape
(POST or GET with a body of known length) and hands on each read as it came, decoded from
chunked encoding; a slow reader pauses the socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from urllib.parse import urlsplit

import httptools

_HIGH_WATER_BYTES = 256 * 1024
_LOW_WATER_BYTES = 64 * 1024
_MAX_IDLE = 64
CONNECT_TIMEOUT_S = 3.0


class ConnectFailed(Exception):
    """No connection could be made."""


class Broken(Exception):
    """The connection ended, or stopped speaking HTTP, before the answer was complete."""


class TimedOut(Exception):
    """Nothing came for too long."""


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.reused = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self._parser = httptools.HttpResponseParser(self)
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._waiter: asyncio.Future[None] | None = None
        self._head_seen = False
        self._complete = False
        self._paused = False
        self._error: Exception | None = None
        self._write_paused: asyncio.Future[None] | None = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse; several body pieces of one read are handed on as one."""
        before = len(self._chunks)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(Broken(f"the replica does not speak HTTP: {error}"))
            self.abort()
            return
        if len(self._chunks) - before > 1:
            joined = b"".join([self._chunks.pop() for _ in range(len(self._chunks) - before)][::-1])
            self._chunks.append(joined)
        if self._buffered > _HIGH_WATER_BYTES and not self._paused and self.transport:
            self._paused = True
            self.transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer that was not complete is broken."""
        if not self._complete:
            self._fail(Broken("the replica closed the connection"))
        if self._write_paused is not None and not self._write_paused.done():
            self._write_paused.set_result(None)
        self.transport = None
        self._wake()

    def pause_writing(self) -> None:
        """The replica reads slowly."""
        self._write_paused = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """The replica has caught up."""
        if self._write_paused is not None and not self._write_paused.done():
            self._write_paused.set_result(None)
        self._write_paused = None

    # -- httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The status is known."""
        self.status = self._parser.get_status_code()
        self._head_seen = True

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        self._chunks.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._complete = True

    # -- the gateway's side

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        return self.transport is not None and not self.transport.is_closing()

    @property
    def answer_begun(self) -> bool:
        """Whether any of the answer has come."""
        return self._head_seen

    @property
    def can_be_kept(self) -> bool:
        """Whether the answer is whole and the connection is to be used again."""
        return self._complete and self.is_open and bool(self._parser.should_keep_alive())

    async def send(self, head: bytes, body: bytes) -> None:
        """Send a request."""
        self.status, self.headers = 0, {}
        self._parser = httptools.HttpResponseParser(self)
        self._head_seen = self._complete = False
        if self.transport is None:
            raise Broken("the replica closed the connection")
        if len(body) < 65536:
            self.transport.write(head + body)
        else:
            self.transport.write(head)
            self.transport.write(body)
        if self._write_paused is not None:
            await self._write_paused

    async def wait_head(self, timeout_s: float) -> None:
        """Wait for the status and headers."""
        while not self._head_seen:
            if self._error is not None:
                raise self._error
            await self._wait(timeout_s)

    async def read(self, timeout_s: float) -> bytes:
        """The next piece of the body; b"" at its end."""
        while not self._chunks:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait(timeout_s)
        chunk = self._chunks.popleft()
        self._buffered -= len(chunk)
        if self._paused and self._buffered < _LOW_WATER_BYTES and self.transport:
            self._paused = False
            self.transport.resume_reading()
        return chunk

    def fail(self, error: Exception) -> None:
        """Make the reader stop with `error`."""
        self._fail(error)
        self._wake()

    def abort(self) -> None:
        """Close at once; a model server then stops working on the request."""
        if self.transport is not None:
            self.transport.abort()

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout_s, self._expire, timeout_s)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _expire(self, timeout_s: float) -> None:
        self._fail(TimedOut(f"nothing came for {timeout_s:.0f} s"))
        self._wake()


class Pool:
    """The connections to one replica."""

    def __init__(self, base_url: str, credential: str) -> None:
        parts = urlsplit(base_url)
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 80
        self._idle: list[Connection] = []
        self._closed = False
        authorization = f"Authorization: Bearer {credential}\r\n" if credential else ""
        self._headers = (
            f"Host: {self._host}:{self._port}\r\n{authorization}"
            "Content-Type: application/json\r\nAccept: */*\r\n"
        ).encode("latin-1")

    def head(self, path: str, body: bytes, request_id: str) -> bytes:
        """The request line and headers."""
        return (
            f"POST {path} HTTP/1.1\r\n".encode()
            + self._headers
            + f"X-Request-Id: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        )

    async def acquire(self, *, fresh: bool = False) -> Connection:
        """An idle connection, or a new one. Raises ConnectFailed."""
        while self._idle and not fresh:
            connection = self._idle.pop()
            if connection.is_open:
                connection.reused = True
                return connection
        loop = asyncio.get_running_loop()
        try:
            _, connection = await asyncio.wait_for(
                loop.create_connection(Connection, self._host, self._port), CONNECT_TIMEOUT_S
            )
        except (OSError, TimeoutError) as error:
            raise ConnectFailed(f"{self._host}:{self._port} cannot be reached") from error
        return connection

    def release(self, connection: Connection) -> None:
        """Give a connection back; it is kept when its answer was whole."""
        if connection.can_be_kept and not self._closed and len(self._idle) < _MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.abort()

    def close_idle(self) -> None:
        """Close what is idle now, and later what comes back."""
        self._closed = True
        for connection in self._idle:
            connection.abort()
        self._idle.clear()
