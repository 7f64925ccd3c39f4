"""Passes chunks of a stream on from a replica to a caller, in the frames in which they came.

Most reads of a stream are one whole chunk with one whole event that nothing needs to look into.
While it is so, this takes the place of the connection as what its transport gives each read to:
most of what a token costs here is calls of Python, and this is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.sse import EventStream

if TYPE_CHECKING:
    from gateway.upstream import Connection

_END_OF_CHUNK = b"\n\n\r\n"
_RETURNS_OF_FRAME = 2


def _frames_of(size_bytes: int) -> tuple[bytes, ...]:
    """How a whole chunk of the chunked transfer encoding begins, with which it has this size.

    In small or in large hexadecimal digits; no chunk has the size for which there is neither.
    """
    for digits in range(1, 9):
        content_bytes = size_bytes - digits - 4
        if content_bytes > 0 and len(f"{content_bytes:x}") == digits:
            return tuple({b"%x\r\n" % content_bytes, b"%X\r\n" % content_bytes})
    return ()


# A chunk has one token, mostly.
_FRAMES = [_frames_of(size_bytes) for size_bytes in range(1024)]
_MOST_BYTES = len(_FRAMES) - 1


class Lane(asyncio.Protocol):
    """Takes the reads of one stream; what it does not pass on is for the connection to parse.

    Args:
        connection: The replica's.
        events: The stream, of which some has been fed.
        write_chunk: Takes a chunk in its frame.

    Attributes:
        passed_bytes: What was passed on, with its frames.
        heard_s: When something was passed on last, by the loop's time.
    """

    __slots__ = (
        "_connection", "_events", "_is_open", "_named", "_time", "_write_chunk", "heard_s",
        "passed_bytes",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        events: EventStream,
        write_chunk: Callable[[bytes], None],
    ) -> None:
        self.passed_bytes = 0
        self.heard_s = 0.0
        self._connection, self._events = connection, events
        self._named, self._write_chunk = events.named, write_chunk
        self._time = asyncio.get_running_loop().time
        self._is_open = False

    def arm(self) -> None:
        """Look whether the next read may be passed on."""
        self._is_open = self._connection.is_between_chunks and self._events.is_between_events

    def data_received(self, data: bytes) -> None:
        """Pass on one whole chunk of whole events that the stream would not change."""
        if (
            self._is_open
            and (size_bytes := len(data)) <= _MOST_BYTES
            and data.startswith(_FRAMES[size_bytes])
            and data.endswith(_END_OF_CHUNK)
            and self._named in data
            and data.count(b"\r") == _RETURNS_OF_FRAME
            and b'"usage"' not in data
            and b"[DONE]" not in data
            and b'"error"' not in data
        ):
            self.passed_bytes += size_bytes
            self.heard_s = self._time()
            self._write_chunk(data)
            return
        self._connection.data_received(data)
        self.arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is told."""
        self._connection.connection_lost(exc)
