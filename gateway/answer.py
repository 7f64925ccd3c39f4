"""A replica's answer that has begun, from its first bytes to the caller's last ones."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from core.contracts.route_table import Price, Route
from core.kernel import clock
from gateway import usage
from gateway.balancer import Backend
from gateway.errors import from_upstream
from gateway.lane import Lane
from gateway.patience import Patience
from gateway.sse import EventStream, EventTooLarge, named
from gateway.upstream import Broken, Connection, Stopped

# An answer up to this size is kept whole, so that another replica can help until its end.
_WHOLE_BYTES = 1024 * 1024
_EDGE_BYTES = 8 * 1024
# An answer that must be translated is read whole.
_TRANSLATED_BYTES = 32 * 1024 * 1024
# Keep-alive comments before the first token are held back for this long, then forwarded.
_HOLD_S = 10.0


class Answer:
    """A replica's answer that has begun; nothing of it has been sent to the caller.

    `first` is what to forward first: of a stream its first events, else all of the body up to
    1 MB. `route` is the one that answers: the request's own, or a fallback. `cancelled_price` is
    that of a second replica's tokens, which was asked too and cancelled.
    """

    __slots__ = (
        "_backend", "_connection", "_edges", "_patience", "_provider", "cancelled_price", "events",
        "first", "is_whole", "route",
    )  # fmt: skip

    is_pushed = True  # its reads are handed on without being awaited one by one

    def __init__(
        self,
        backend: Backend,
        route: Route,
        connection: Connection,
        events: EventStream | None,
        patience: Patience,
    ) -> None:
        self.route = route
        self.cancelled_price: Price | None = None
        self._provider = backend.provider
        self.first = b""
        self.is_whole = False
        self.events = events
        self._backend = backend
        self._connection = connection
        self._patience = patience
        self._edges = b""

    @property
    def provider_kind(self) -> str:
        """The kind of the provider that answers; "" for a replica of our own."""
        return hosted.kind if (hosted := self._backend.replica.hosted) else ""

    @property
    def price(self) -> Price | None:
        """What the answer's tokens cost."""
        return self.route.price

    @property
    def content_type(self) -> str:
        """As the replica said; what was translated is JSON."""
        if self._provider is not None:
            return "application/json"
        found = self._connection.headers.get(b"content-type", b"application/json")
        return found.decode("latin-1")

    @property
    def content_bytes(self) -> int | None:
        """The length of the whole body; None when it comes in chunks."""
        if self.is_whole:
            return len(self.first)
        length = self._connection.headers.get(b"content-length", b"")
        return int(length) if length.isdigit() else None

    @property
    def usage(self) -> usage.Usage | None:
        """Token counts as the replica gave them, once the answer has ended."""
        if self.events is not None:
            return self.events.usage
        return usage.of_answer(self.first) if self.is_whole else usage.in_part(self._edges)

    def begin(self, model: str, name: bytes) -> Awaitable[None]:
        """Read up to where it can be forwarded; `name` is `model` as JSON.

        Raises Broken, TimedOut or GatewayError.
        """
        if self.events is None:
            return self._begin_body(name)
        return self._begin_stream(self.events, model)

    async def _begin_body(self, name: bytes) -> None:
        provider = self._provider
        await self._read_first(_WHOLE_BYTES if provider is None else _TRANSLATED_BYTES)
        if provider is not None:
            if not self.is_whole:
                raise Broken("the answer is too large to be translated")
            self.first = provider.answer(self.first)
        if self.is_whole:
            self.first = named(self.first, name)
        else:
            self._edges = self.first[:_EDGE_BYTES] + self.first[-_EDGE_BYTES:]

    async def _read_first(self, most_bytes: int) -> None:
        """Read the body up to its end, or until there are so many bytes of it."""
        reads: list[bytes] = []
        size_bytes = 0
        timeout_s = self._patience.first_byte_s
        while size_bytes < most_bytes:
            read = await self._connection.read(timeout_s)
            if not read:
                self.is_whole = True
                break
            reads.append(read)
            size_bytes += len(read)
            timeout_s = self._patience.between_tokens_s
        self.first = b"".join(reads)

    async def _begin_stream(self, events: EventStream, model: str) -> None:
        began_s = clock.monotonic_s()
        held = b""
        while True:
            read = await self._connection.read(self._patience.first_byte_s)
            if not read:
                raise Broken("the stream ended before its first event")
            held += self._fed(events, read)
            if events.error is not None and not events.done:
                raise events.failure or from_upstream(500, events.error, model)
            if held and (events.has_data or clock.monotonic_s() - began_s > _HOLD_S):
                self.first = held
                return

    async def next(self) -> bytes:
        """What to forward next; b"" at the end. Raises Broken, TimedOut or Stopped."""
        if self.is_whole:
            return b""
        events = self.events
        while True:
            read = await self._connection.read(self._patience.between_tokens_s)
            if events is None:
                self._edges = (
                    self._edges[:_EDGE_BYTES] + ((self._edges[_EDGE_BYTES:] + read)[-_EDGE_BYTES:])
                )
                return read
            if not read:
                if events.is_whole:
                    return b""
                rest = events.end()
                if not rest:
                    raise Broken("the stream ended before its last event")
                return rest
            forward = self._fed(events, read)
            if forward:
                return forward

    async def hand_on(
        self, write: Callable[[bytes], None], write_chunk: Callable[[bytes], None] | None
    ) -> None:
        """Give what follows of a stream to `write`, as it comes, until its end.

        Args:
            write: Takes events.
            write_chunk: Takes events as one chunk of the chunked transfer encoding, as the replica
                sent it; None when the caller cannot.

        Raises Broken, TimedOut or Stopped.
        """
        events = self.events
        assert events is not None

        feed = events.feed
        connection, lane = self._connection, None
        if write_chunk is not None and events.can_pass:
            lane = Lane(events, write_chunk)

        def forward(read: bytes) -> None:
            try:
                out = feed(read)
            except EventTooLarge:
                raise Broken("an event of the stream is too large") from None
            if out:
                write(out)

        try:
            await connection.hand_on(
                forward, lane, self._patience.between_tokens_s, self._patience.left_s
            )
        finally:
            if lane is not None:
                events.passed_bytes += lane.passed_bytes
        if not events.is_whole:
            rest = events.end()
            if not rest:
                raise Broken("the stream ended before its last event")
            write(rest)

    @property
    def source(self) -> Connection:
        """Where it comes from: to be paused while its caller does not read."""
        return self._connection

    @staticmethod
    def _fed(events: EventStream, read: bytes) -> bytes:
        try:
            return events.feed(read)
        except EventTooLarge:
            raise Broken("an event of the stream is too large") from None

    def stop(self) -> None:
        """Make the reader stop: the gateway is stopping."""
        self._connection.fail(Stopped())

    def broke(self) -> None:
        """The replica broke off in the middle."""
        self._backend.failed(clock.monotonic_s(), away=False)

    def release(self) -> None:
        """Free the replica; what is still running there is cancelled by closing."""
        self._backend.ended()
        self._backend.pool.release(self._connection)
