"""A small HTTP/1.1 client for replicas: asyncio.Protocol and httptools, connections kept alive.

On the gateway's path this costs about a tenth of a general client. It knows one request shape
(POST with a body of known length) and hands on each read as it came, decoded from chunked
encoding; a slow reader pauses the socket. Hosted providers are reached by the same client, with
headers of their own and connections shared by all models of a host.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import TypeVar, cast
from urllib.parse import urlsplit

import httptools

from gateway.lane import MOST_BYTES, Lane
from gateway.outbox import Outbox
from gateway.tls import tls_context

_HIGH_WATER_BYTES = 256 * 1024
_LOW_WATER_BYTES = 64 * 1024
_MIN_IDLE_KEPT = 64
_MAX_IDLE_S = 30.0
_ONE_WRITE_BYTES = 64 * 1024
_QUOTE, _NEWLINE = b'"\n'
# What a lane passes on bears no time, for that would be read for each token. So it is looked at so
# often in the time that a replica may be silent: that much longer it may take to be noticed.
_LOOKS = 8


class ConnectFailed(Exception):
    """No connection could be made: nothing was sent."""


class Broken(Exception):
    """The connection ended, or stopped speaking HTTP, before the answer was complete."""


class TimedOut(Exception):
    """Nothing came for too long."""


class Stopped(Exception):
    """The gateway is stopping."""


def _keep_alive_s(said: bytes) -> float:
    """How long the replica keeps an idle connection, less a second for the way there."""
    _, found, value = said.partition(b"timeout=")
    digits = value.split(b",")[0].strip()
    return min(int(digits) - 1.0, _MAX_IDLE_S) if found and digits.isdigit() else _MAX_IDLE_S


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    __slots__ = (
        "_anything_seen", "_between_chunks", "_buffered_bytes", "_chunk_ended", "_complete",
        "_deadline_s", "_ends_s", "_error", "_head_seen", "_held", "_in_use", "_is_large",
        "_keep_alive", "_lane", "_loop", "_open_lane", "_outbox", "_parser", "_paused", "_pieces",
        "_pool", "_reads", "_silence_s", "_sink", "_timer", "_timer_at_s", "_waiter", "_watcher",
        "headers", "idle_until_s", "reused", "status", "transport",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Pool, outbox: Outbox) -> None:
        self.transport: asyncio.Transport | None = None
        self.reused = False
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.idle_until_s = 0.0
        self._loop = loop
        self._pool = pool
        self._outbox = outbox
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._reads: deque[bytes] = deque()
        self._buffered_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._in_use = self._is_large = False
        self._head_seen = False
        self._anything_seen = False
        self._complete = False
        self._keep_alive = False
        # Not read from, because too much is kept here or, held, because the caller does not read.
        self._paused = self._held = False
        self._error: Exception | None = None
        self._watcher: Callable[[], None] | None = None
        self._sink: Callable[[bytes], None] | None = None
        self._lane: Lane | None = None
        self._open_lane: Lane | None = None  # while the next read may be passed on
        self._chunk_ended = self._between_chunks = False
        self._silence_s = self._ends_s = math.inf
        self._deadline_s = self._timer_at_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports do not derive from asyncio's classes.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse; several body pieces of one read are handed on as one."""
        lane = self._open_lane
        # Pieces are cut out and compared: `startswith` and `find` take twice as long.
        if lane is not None and (
            (
                lane.fixed_bytes <= (size_bytes := len(data)) <= MOST_BYTES
                and data[: lane.begin] == lane.frames[size_bytes]
                and data[lane.begin : lane.text_begin] == lane.before
                and data[lane.text_end :] == lane.behind
                and _QUOTE not in (text := data[lane.text_begin : lane.text_end])
                and _NEWLINE not in text
            )
            or lane.may_pass(data)
        ):
            # Most of what a token costs here are calls of Python: this is one.
            lane.passed_bytes += size_bytes
            lane.write_chunk(data)
            return
        self._parse(data)
        if self._lane is not None:
            self._open_lane = self._lane_if_open(self._lane)

    def _lane_if_open(self, lane: Lane) -> Lane | None:
        return lane if self._between_chunks and lane.events.is_between_events else None

    def _parse(self, data: bytes) -> None:
        if not self._in_use or self._complete:
            # A replica that speaks unasked is out of step with us.
            self.abort()
            return
        self._anything_seen = True
        self._chunk_ended = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if not self._complete:
                self.fail(Broken(f"the replica does not speak HTTP ({error})"))
                self.abort()
                return
            # What stands behind an answer is nobody's: nothing more is read there.
            self._keep_alive = False
        # Behind a chunk there may be the beginning of the next one's size, but no whole line.
        self._between_chunks = self._chunk_ended and data.endswith(b"\r\n")
        pieces = self._pieces
        if pieces:
            read = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            if self._sink is not None:
                self._hand_on(self._sink, read)
                return
            self._reads.append(read)
            self._buffered_bytes += len(read)
            if self._buffered_bytes > _HIGH_WATER_BYTES and not self._paused and self.transport:
                self._paused = True
                self.transport.pause_reading()
        self._wake()

    def _hand_on(self, sink: Callable[[bytes], None], read: bytes) -> None:
        self._deadline_s = min(self._loop.time() + self._silence_s, self._ends_s)
        try:
            sink(read)
        except Exception as error:  # noqa: BLE001 (it is raised where the answer is awaited)
            self._error = self._error or error
            self._wake()
        if self._complete:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer that was not complete is broken, unless its end is the connection's end."""
        self.transport = None
        if self._timer is not None:
            self._timer.cancel()
        if not self._in_use:
            self._pool.forget(self)
        elif not self._complete:
            if exc is None and self._head_seen and self._ends_with_connection():
                self._complete = True
            elif self._error is None:
                self._error = Broken("the replica closed the connection")
        self._wake()

    # -- httptools

    def on_message_begin(self) -> None:
        """The first byte of an answer. Raises Broken: there was one already."""
        if self._complete:
            raise Broken("the replica sent more than an answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The status is known; a 1xx answer only announces the real one."""
        self.status = self._parser.get_status_code()
        self._head_seen = self.status >= 200

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body."""
        self._pieces.append(body)

    def on_chunk_header(self) -> None:
        """A chunk begins."""
        self._chunk_ended = False

    def on_chunk_complete(self) -> None:
        """A chunk has ended."""
        self._chunk_ended = True

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._chunk_ended = False
        if self._head_seen:
            self._complete = True
            # The parser knows this only now.
            self._keep_alive = bool(self._parser.should_keep_alive())
        else:
            self.headers.clear()

    # -- the gateway's side

    @property
    def is_usable(self) -> bool:
        """Whether it is open, and the replica has not had the time to close it for idleness."""
        transport = self.transport
        return (
            transport is not None
            and not transport.is_closing()
            and self.idle_until_s > self._loop.time()
        )

    @property
    def answer_begun(self) -> bool:
        """Whether any byte of the answer has come."""
        return self._anything_seen

    @property
    def can_be_kept(self) -> bool:
        """Whether the answer is whole and the connection is to be used again."""
        return (
            self._complete
            and self._keep_alive
            and self._error is None
            and (transport := self.transport) is not None
            and not transport.is_closing()
            and not (self._is_large and self._is_sending)
        )

    @property
    def _is_sending(self) -> bool:
        """Whether the replica has answered before it had read the request; it may never."""
        return self.transport is not None and self.transport.get_write_buffer_size() > 0

    def send(self, head: bytes, body: bytes) -> None:
        """Send a request; the answer may begin before all of it is out."""
        if self.transport is None:
            raise Broken("the replica closed the connection")
        self._in_use = True
        self.status, self.headers = 0, {}
        self._head_seen = self._anything_seen = self._complete = self._keep_alive = False
        self._between_chunks = False
        if len(body) < _ONE_WRITE_BYTES:
            self._outbox.put_whole(self.transport, head + body)
        else:
            self._is_large = True
            self._outbox.put(self.transport, head)
            self._outbox.put(self.transport, body)

    def watch(self, watcher: Callable[[], None], timeout_s: float) -> None:
        """Call `watcher` when something came, and when nothing more will."""
        self._watcher = watcher
        self._expect(timeout_s)

    def unwatch(self) -> None:
        """Tell nobody; what has come can be read."""
        self._watcher = None

    def whole(self) -> bytes | None:
        """The body of an answer that has ended well; None when it has not."""
        if not self._complete or self._error is not None:
            return None
        return self._reads[0] if len(self._reads) == 1 else b"".join(self._reads)

    def peek(self) -> bytes:
        """What has come of the body and was not read."""
        return self._reads[0] if len(self._reads) == 1 else b"".join(self._reads)

    def drop(self) -> None:
        """Keep nothing of what has come of the body."""
        self._reads.clear()
        self._buffered_bytes = 0
        self._go_on()

    @property
    def has_ended(self) -> bool:
        """Whether the answer is whole, or nothing more of it will come."""
        return self._complete or self._error is not None

    @property
    def error(self) -> Exception | None:
        """Why nothing more comes; None when the answer is whole or still comes."""
        return self._error

    @property
    def is_under_way(self) -> bool:
        """Whether more will come, without being read."""
        return not (self.has_ended or self.transport is None or self._paused)

    async def head(self, timeout_s: float) -> None:
        """Wait for status and headers. Raises Broken or TimedOut.

        Bytes that come one by one get no more time for it.
        """
        ends_s = self._loop.time() + timeout_s
        while not self._head_seen:
            if self._error is not None:
                raise self._error
            await self._wait(ends_s - self._loop.time())

    async def read(self, timeout_s: float) -> bytes:
        """The next read of the body; b"" at its end. Raises Broken or TimedOut."""
        while not self._reads:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait(timeout_s)
        read = self._reads.popleft()
        self._buffered_bytes -= len(read)
        if self._paused and self._buffered_bytes < _LOW_WATER_BYTES:
            self._go_on()
        return read

    async def hand_on(
        self,
        sink: Callable[[bytes], None],
        lane: Lane | None,
        silence_s: float,
        total_s: float,
    ) -> None:
        """Give each read of the body to `sink` as it comes, until the end.

        No task is woken for a read: that would cost more than to forward it.

        Args:
            sink: Takes a read; what it raises is raised here.
            lane: Takes the reads first; what it does not pass on goes to `sink`.
            silence_s: How long the replica may be silent, in seconds.
            total_s: How long all of it may take.

        Raises Broken or TimedOut.
        """
        ends_s = self._loop.time() + total_s
        while self._reads:
            sink(await self.read(silence_s))
        self.push(sink, lane, silence_s, ends_s - self._loop.time())
        try:
            while not self._complete or self._error is not None:
                if self._error is not None:
                    raise self._error
                await self._wait(min(silence_s, total_s))
        finally:
            self.pull()

    def push(
        self,
        sink: Callable[[bytes], None],
        lane: Lane | None,
        silence_s: float,
        total_s: float,
    ) -> None:
        """Begin what `hand_on` does, with what has not come yet; who waits or watches is told."""
        self._silence_s, self._ends_s = silence_s, self._loop.time() + total_s
        self._sink, self._lane = sink, lane
        if lane is not None:
            self._open_lane = self._lane_if_open(lane)

    def pull(self) -> None:
        """Give nothing more to a sink."""
        self._sink = self._lane = self._open_lane = None

    def pause(self) -> None:
        """Read no more for now; the replica's silence does not count meanwhile."""
        self._held = True
        if self.transport is not None and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self._held = False
        if self._paused:
            self._deadline_s = min(self._loop.time() + self._silence_s, self._ends_s)
            self._go_on()

    def _go_on(self) -> None:
        if self._paused and not self._held and self.transport is not None:
            self._paused = False
            self.transport.resume_reading()

    def fail(self, error: Exception) -> None:
        """Make the reader stop with `error`, after what has come already; not if that is all."""
        if self._error is None and not self._complete:
            self._error = error
        self._wake()

    def abort(self) -> None:
        """Close at once; a model server then stops working on the request."""
        if self.transport is not None:
            self.transport.abort()

    def rest(self) -> None:
        """Become idle."""
        self._in_use = self._is_large = self._held = False
        self.reused = True
        if self._reads or self._paused:
            self.drop()
        said = self.headers.get(b"keep-alive")
        keep_s = _MAX_IDLE_S if said is None else _keep_alive_s(said)
        self.idle_until_s = self._loop.time() + keep_s

    def _ends_with_connection(self) -> bool:
        return b"content-length" not in self.headers and b"transfer-encoding" not in self.headers

    def _wake(self) -> None:
        if self._watcher is not None:
            self._watcher()
            return
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _expect(self, timeout_s: float) -> None:
        # One timer serves many waits: it looks at the deadline when it fires, and goes on.
        now_s = self._loop.time()
        self._deadline_s = look_s = now_s + timeout_s
        if self._lane is not None:
            look_s = self._next_look_s(now_s)
        if self._timer is None or self._timer_at_s > look_s:
            if self._timer is not None:
                self._timer.cancel()
            self._look_at(look_s)

    async def _wait(self, timeout_s: float) -> None:
        self._expect(timeout_s)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _next_look_s(self, now_s: float) -> float:
        return min(self._deadline_s, now_s + self._silence_s / _LOOKS)

    def _look_at(self, at_s: float) -> None:
        self._timer, self._timer_at_s = self._loop.call_at(at_s, self._expire), at_s

    def _expire(self) -> None:
        self._timer = None
        if self._waiter is None and self._watcher is None:
            return
        now_s = self._loop.time()
        lane = self._lane
        if lane is not None and lane.passed_bytes != lane.seen_bytes:
            # Something was passed on since the last look, which is not long ago.
            lane.seen_bytes = lane.passed_bytes
            self._deadline_s = min(now_s + self._silence_s, self._ends_s)
        if now_s < self._deadline_s - 0.001:
            self._look_at(self._deadline_s if lane is None else self._next_look_s(now_s))
        elif self._sink is not None and self._paused and now_s < self._ends_s:
            self._look_at(now_s + self._silence_s)
        else:
            self.fail(TimedOut("the replica was silent for too long"))


_Kind = TypeVar("_Kind", bound=Connection)


class Pool:
    """The connections to one replica, or to one host of a provider.

    Args:
        base_url: Where it is; a path in it is not used here.
        credential: Sent as a bearer token; "" means none.
        slots: How many requests it works on at once; as many idle connections are kept, and no
            fewer than 64: a new connection costs more CPU than the rest of a request.
    """

    def __init__(self, base_url: str, credential: str, slots: int) -> None:
        parts = urlsplit(base_url)
        self._tls = tls_context() if parts.scheme == "https" else None
        self._netloc = parts.netloc
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or (443 if self._tls else 80)
        self._max_idle = max(slots, _MIN_IDLE_KEPT)
        self._idle: list[Connection] = []
        self._closed = False
        self._outbox: Outbox | None = None
        authorization = f"Authorization: Bearer {credential}\r\n" if credential else ""
        self.authorization = {"Authorization": f"Bearer {credential}"} if credential else {}
        self._headers = f"Host: {parts.netloc}\r\n{authorization}Content-Type: application/json\r\n"
        self._begun: dict[tuple[str, bool], bytes] = {}

    def head(
        self, path: str, body_bytes: int, request_id: str, *, stream: bool, traceparent: str = ""
    ) -> bytes:
        """The request line and headers."""
        begun = self._begun.get((path, stream))
        if begun is None:
            begun = self._begun[path, stream] = self._begin(path, stream=stream)
        if traceparent:
            request_id = f"{request_id}\r\ntraceparent: {traceparent}"
        return b"%b%b\r\nContent-Length: %d\r\n\r\n" % (begun, request_id.encode(), body_bytes)

    def _begin(self, path: str, *, stream: bool) -> bytes:
        """A head up to the request's id: paths are few, the gateway's own endpoints."""
        accept = "text/event-stream" if stream else "application/json"
        return (
            f"POST {path} HTTP/1.1\r\n{self._headers}Accept: {accept}\r\nX-Request-Id: "
        ).encode("latin-1")

    def get_head(self, path: str) -> bytes:
        """A request for `path` without a body, on a connection that is not kept."""
        return (f"GET {path} HTTP/1.1\r\nHost: {self._netloc}\r\nConnection: close\r\n\r\n").encode(
            "latin-1"
        )

    def own_head(self, path: str, headers: Mapping[str, str], body_bytes: int) -> bytes:
        """The request line and the headers of a provider's request.

        Args:
            path: With the query, percent-encoded.
            headers: All but Host and Content-Length.
            body_bytes: Length of the body.
        """
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return (
            f"POST {path} HTTP/1.1\r\nHost: {self._netloc}\r\n{lines}"
            f"Content-Length: {body_bytes}\r\n\r\n"
        ).encode("latin-1")

    def idle(self) -> Connection | None:
        """A connection that was used before and is still open; None when there is none."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable:
                return connection
            connection.abort()
        return None

    async def connect(self, timeout_s: float) -> Connection:
        """A new connection. Raises ConnectFailed."""
        return await self.connect_as(Connection, timeout_s)

    async def connect_as(self, kind: type[_Kind], timeout_s: float) -> _Kind:
        """A new connection of a kind of its own. Raises ConnectFailed."""
        loop = asyncio.get_running_loop()
        outbox = self._outbox = self._outbox or Outbox(loop)
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await loop.create_connection(
                    lambda: kind(loop, self, outbox), self._host, self._port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            raise ConnectFailed(str(error) or "no answer in time") from error
        return connection

    def put_back(self, connection: Connection) -> None:
        """Give back a connection that was not used."""
        self._idle.append(connection)

    def release(self, connection: Connection) -> None:
        """Give a connection back; it is kept when its answer was whole."""
        if connection.can_be_kept and not self._closed and len(self._idle) < self._max_idle:
            connection.rest()
            self._idle.append(connection)
        else:
            connection.abort()

    def forget(self, connection: Connection) -> None:
        """An idle connection was closed by the replica."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close_idle(self) -> None:
        """Close what is idle now, and later what comes back."""
        self._closed = True
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.abort()
