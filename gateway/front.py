"""All connections of callers to one worker.

Each begins at the protocol for the hot routes (`gateway.hot`). A request that does not begin with
the line of one of these is aiohttp's (`gateway.cold`), with its connection and all that follows on
it. aiohttp is loaded with the first of these, in a thread: it takes 12 MB and a fifth of a second,
and most workers are never asked for it. See docs/decisions/0015.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from core.kernel import clock
from gateway.config import Timeouts
from gateway.cors import Cors
from gateway.errors import GatewayError
from gateway.hot import HotConnection
from gateway.http_request import BadRequest, Request, Response
from gateway.outbox import Outbox

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from gateway.cold import ColdServer
    from gateway.short_way import ShortCall

# While a thread imports, the event loop waits for the interpreter no longer than this at a time.
_SWITCH_S = 0.0005

Answerer = Callable[[Request], Coroutine[Any, Any, Response | None]]


class Connection(Protocol):
    """One connection, whoever serves it."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered and none has begun to come."""

    def sweep(self, now_s: float) -> None:
        """Let a caller go that keeps this waiting for too long."""

    def close_idle(self) -> None:
        """Close it, while no request is being answered."""

    def abort(self) -> None:
        """Close it at once."""


class Front:
    """All connections of callers to one worker.

    Args:
        answer: Answers a request: with what it returns, or by itself through the request's caller.
            It raises nothing but CancelledError and ConnectionError.
        hot: What requests that are served here begin with, such as `POST /v1/embeddings`; a space
            or a query follows. The rest is aiohttp's.
        max_body_bytes: What of a body is over this is not kept.
        timeouts: Of callers: `head_s`, `caller_s`, `idle_s`.
        cors: What browsers are told; None when they are told nothing.

    Attributes:
        short: Answers a request without a task, where it can; None where it never can.
        cold: aiohttp's server; None while nobody has asked for it.
    """

    def __init__(
        self,
        answer: Answerer,
        hot: Iterable[str],
        max_body_bytes: int,
        timeouts: Timeouts,
        cors: Cors | None = None,
    ) -> None:
        self.answer = answer
        self.max_body_bytes = max_body_bytes
        self.timeouts = timeouts
        self.cors = cors
        self.short: Callable[[Request, HotConnection], ShortCall | None] | None = None
        self.connections: set[Connection] = set()
        self.is_stopping = False
        self.refused: dict[int, int] = {}
        self.hot = tuple(begin.encode() + after for begin in hot for after in (b" ", b"?"))
        self.cold: ColdServer | None = None
        self._new_hot: Callable[[], HotConnection] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._date, self._date_s = "", 0

    def listening(self) -> Callable[[], HotConnection]:
        """Makes the protocol for each connection that this event loop accepts."""
        loop = asyncio.get_running_loop()
        self._new_hot = partial(HotConnection, self, loop, Outbox(loop))
        return self._new_hot

    def hand_over(self, transport: asyncio.Transport, begun: bytes, *, is_full: bool) -> None:
        """Let aiohttp serve a connection from now on.

        Args:
            transport: With no answer that is not written to it.
            begun: What has come of its next request.
            is_full: Its caller does not read as fast as it was written to.
        """
        if self.cold is None:
            waiting = Waiting(self, transport, begun, is_full=is_full)
            transport.set_protocol(waiting)
            self.connections.add(waiting)
            if self._loading is None:
                self._loading = asyncio.create_task(self._load())
            return
        cold = self.cold.connection()
        transport.set_protocol(cold)
        cold.connection_made(transport)
        if is_full:
            cold.pause_writing()
        cold.data_received(begun)

    async def _load(self) -> None:
        before_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        try:
            self.cold = (await asyncio.to_thread(_aiohttp))(self)
        except ImportError:
            log.exception("aiohttp cannot be loaded; install Bud's packages again")
        finally:
            sys.setswitchinterval(before_s)
            self._loading = None
        for each in list(self.connections):
            if isinstance(each, Waiting):
                each.abort() if self.cold is None else each.go_on()

    def refuse(self, transport: asyncio.Transport, problem: BadRequest) -> None:
        """Tell what is wrong with what came to aiohttp, and close the connection."""
        assert self._new_hot is not None
        hot = self._new_hot()
        transport.set_protocol(hot)
        hot.connection_made(transport)
        hot.refuse(problem)

    @property
    def is_busy(self) -> bool:
        """Whether any request has begun and has not been answered."""
        return any(not connection.is_idle for connection in self.connections)

    def sweep(self) -> None:
        """Let go of callers that took too long; for about every second."""
        now_s = clock.monotonic_s()
        for connection in list(self.connections):
            connection.sweep(now_s)

    def stop(self, *, close_idle: bool) -> None:
        """Close each connection with its next answer, and the idle ones now if that is wanted."""
        self.is_stopping = True
        if close_idle:
            for connection in list(self.connections):
                if connection.is_idle:
                    connection.close_idle()

    def abort(self) -> None:
        """Close every connection at once."""
        for connection in list(self.connections):
            connection.abort()

    def refusal(self, problem: BadRequest) -> Response:
        """The answer to what is no request; it is counted."""
        status = problem.status
        self.refused[status] = self.refused.get(status, 0) + 1
        log.info("a request is not taken: %d", status)
        error = GatewayError("invalid_request", str(problem), status=status)
        return Response(error.body(), status, {"Content-Type": "application/json"})

    def date(self) -> str:
        """The `Date` header, made once a second."""
        now_s = int(time.time())
        if now_s != self._date_s:
            self._date, self._date_s = f"Date: {formatdate(now_s, usegmt=True)}\r\n", now_s
        return self._date


class Waiting(asyncio.Protocol):
    """A connection until aiohttp is loaded; nothing more is read of it meanwhile.

    Args:
        front: Whose it is.
        transport: Its transport.
        begun: What has come of its request.
        is_full: Its caller does not read as fast as it was written to.
    """

    is_idle = False

    def __init__(
        self, front: Front, transport: asyncio.Transport, begun: bytes, *, is_full: bool
    ) -> None:
        self._front, self._transport = front, transport
        self._begun, self._is_full = begun, is_full
        transport.pause_reading()

    def go_on(self) -> None:
        """Let aiohttp serve it."""
        self._front.connections.discard(self)
        self._transport.resume_reading()
        self._front.hand_over(self._transport, self._begun, is_full=self._is_full)

    def pause_writing(self) -> None:
        """The caller does not read."""
        self._is_full = True

    def resume_writing(self) -> None:
        """It reads again."""
        self._is_full = False

    def connection_lost(self, _error: Exception | None) -> None:
        """The caller is gone."""
        self._front.connections.discard(self)

    def sweep(self, _now_s: float) -> None:
        """It is not the caller that keeps this waiting."""

    def close_idle(self) -> None:
        """It is not idle."""

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()


def _aiohttp() -> type[ColdServer]:
    # With what only its requests reach.
    from gateway.cold import ColdServer
    from gateway.surface import serving  # noqa: F401

    return ColdServer
