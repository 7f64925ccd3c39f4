"""Passes chunks of a stream on from a replica to a caller, in the frames in which they came.

Most reads of a stream are one whole chunk with one whole event that nothing needs to look into.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.sse import EventStream

_END_OF_CHUNK = b"\n\n\r\n"
_TEXT = b'"content":"'


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
    of a chunk or an event has come before it. One event of a stream differs from the last one in
    its text alone, mostly; then it is enough to compare what stands around that.

    Attributes:
        events: The stream.
        write_chunk: Takes a chunk in its frame.
        passed_bytes: What was passed on, with its frames.
        seen_bytes: Of these, what had been passed on when the time was looked at last.
        begin: Where an event begins behind its frame.
        before: An event up to its text.
        text_begin: Where that is.
        text_end: Where the text ends, counted from the end.
        behind: What follows it.
        fixed_bytes: How long all but the text is; more than any chunk while that is not known.
    """

    __slots__ = (
        "_named", "before", "begin", "behind", "events", "fixed_bytes", "passed_bytes",
        "seen_bytes", "text_begin", "text_end", "write_chunk",
    )  # fmt: skip

    def __init__(self, events: EventStream, write_chunk: Callable[[bytes], None]) -> None:
        self.events, self._named, self.write_chunk = events, events.named, write_chunk
        self.passed_bytes = self.seen_bytes = 0
        self.before = self.behind = b""
        self.begin = self.text_begin = self.text_end = 0
        self.fixed_bytes = MOST_BYTES + 1

    def may_pass(self, data: bytes) -> bool:
        """Look through all of a read; what it looks like is then known."""
        frames = FRAMES[len(data)] if len(data) <= MOST_BYTES else ()
        if not data.startswith(frames) or not data.endswith(_END_OF_CHUNK):
            return False
        begin = data.find(b"\n") + 1
        if (
            data.find(b"\r", begin, -2) >= 0
            or data.find(self._named) < 0
            or data.find(b'"usage"') >= 0
            or data.find(b"[DONE]") >= 0
            or data.find(b'"error"') >= 0
        ):
            return False
        self._learn(data, begin)
        return True

    def _learn(self, data: bytes, begin: int) -> None:
        text_begin = data.find(_TEXT) + len(_TEXT)
        text_end = data.find(b'"', text_begin)
        if text_begin < len(_TEXT) or text_end < 0 or data[text_end - 1 : text_end] == b"\\":
            return
        self.begin, self.before = begin, data[begin:text_begin]
        self.behind = data[text_end:]
        self.text_begin, self.text_end = text_begin, -len(self.behind)
        self.fixed_bytes = text_begin + len(self.behind)
