"""Collects what is to be sent until every callback of a turn of the event loop has run.

Sent one by one, between the work for other requests, each write finds its reader asleep and wakes
it, which costs the writer several µs. Sent together, most find it awake. What is whole is sent at
once where turns have had little to send of late: waiting for their end would be for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Outbox:
    """What is to be sent in this turn of the loop, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pending: list[tuple[asyncio.Transport, bytes]] = []
        self._behind: list[Callable[[], None]] = []
        self._is_quiet = False
        self._sent = 0  # at once, in this turn

    def put(self, transport: asyncio.Transport, content: bytes) -> None:
        """Send this at the end of the turn."""
        if not self._pending:
            self._loop.call_soon(self.flush)
        self._pending.append((transport, content))

    def put_whole(self, transport: asyncio.Transport, content: bytes) -> None:
        """`put` what nothing more follows: it may go at once."""
        if self._is_quiet and not self._pending and not self._sent and not transport.is_closing():
            self._loop.call_soon(self.flush)
            self._sent = 1
            transport.write(content)
        else:
            self.put(transport, content)

    def put_behind(self, transport: asyncio.Transport, content: bytes) -> None:
        """`put`, in one piece with what was put last where that goes the same way."""
        if self._pending and self._pending[-1][0] is transport:
            content = self._pending.pop()[1] + content
        self.put(transport, content)

    def behind(self, call: Callable[[], None]) -> None:
        """Call this once what was put is on its way: nobody is to wait for it."""
        if not self._pending:
            self._loop.call_soon(self.flush)
        self._behind.append(call)

    def sender(self, transport: asyncio.Transport) -> Callable[[bytes], None]:
        """`put` for one transport, for what is sent often."""
        pending, call_soon, flush = self._pending, self._loop.call_soon, self.flush

        def send(content: bytes) -> None:
            if not pending:
                call_soon(flush)
            pending.append((transport, content))

        return send

    def flush(self) -> None:
        """Send it all now; what was for a connection that is closing is dropped."""
        batch = self._pending.copy()
        self._pending.clear()
        self._is_quiet = len(batch) + self._sent <= 1
        self._sent = 0
        for transport, content in batch:
            if not transport.is_closing():
                transport.write(content)
        if self._behind:
            calls = self._behind.copy()
            self._behind.clear()
            for call in calls:
                call()
