"""Passes chunks of a stream on from a replica to a caller, in the frames in which they came.

Most reads of a stream are one whole chunk with one whole event that nothing needs to look into.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.sse import EventStream

END_OF_CHUNK = b"\n\n\r\n"
RETURNS_OF_FRAME = 2


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
FRAMES = [_frames_of(size_bytes) for size_bytes in range(1024)]
MOST_BYTES = len(FRAMES) - 1


class Lane:
    """What `gateway.upstream` needs to pass chunks of a stream on.

    A read is passed on if it is one whole chunk of whole events that need no change, and nothing
    of a chunk or an event has come before it.

    Attributes:
        events: The stream.
        named: What stands in an event that has the model's name as its caller knows it.
        write_chunk: Takes a chunk in its frame.
        passed_bytes: What was passed on, with its frames.
        heard_s: When something was passed on last, by the loop's time.
    """

    __slots__ = ("events", "heard_s", "named", "passed_bytes", "write_chunk")

    def __init__(self, events: EventStream, write_chunk: Callable[[bytes], None]) -> None:
        self.events, self.named, self.write_chunk = events, events.named, write_chunk
        self.passed_bytes = 0
        self.heard_s = 0.0
