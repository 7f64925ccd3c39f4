"""Passes chunks of a stream on from a replica to a caller, in the frames in which they came.

Most reads of a stream are one whole chunk with one whole event that nothing needs to look into.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.sse import EventStream

_END_OF_CHUNK = b"\n\n\r\n"
_TEXT = b'"content":"'


# A chunk has one token, mostly.
MOST_BYTES = 1023


def _frame_of(size_bytes: int, form: bytes) -> bytes:
    """How a whole chunk of the chunked transfer encoding begins, with which it has this size.

    Args:
        size_bytes: Of all of it; where no chunk has it, what is given is longer than any.
        form: Of its hexadecimal digits, small or large.
    """
    for digits in range(1, 9):
        content_bytes = size_bytes - digits - 4
        if content_bytes > 0 and len(f"{content_bytes:x}") == digits:
            return form % content_bytes
    return bytes(MOST_BYTES + 1)


_SMALL, _LARGE = (
    [_frame_of(size_bytes, form) for size_bytes in range(MOST_BYTES + 1)]
    for form in (b"%x\r\n", b"%X\r\n")
)


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
        frames: By the size of a chunk, how it begins.
    """

    __slots__ = (
        "_named", "before", "begin", "behind", "events", "fixed_bytes", "frames", "passed_bytes",
        "seen_bytes", "text_begin", "text_end", "write_chunk",
    )  # fmt: skip

    def __init__(self, events: EventStream, write_chunk: Callable[[bytes], None]) -> None:
        self.events, self._named, self.write_chunk = events, events.named, write_chunk
        self.passed_bytes = self.seen_bytes = 0
        self.before = self.behind = b""
        self.begin = self.text_begin = self.text_end = 0
        self.fixed_bytes = MOST_BYTES + 1
        self.frames = _SMALL

    def may_pass(self, data: bytes) -> bool:
        """Look through all of a read; what it looks like is then known."""
        size_bytes = len(data)
        if size_bytes > MOST_BYTES or not data.endswith(_END_OF_CHUNK):
            return False
        if not data.startswith(self.frames[size_bytes]):
            self.frames = _SMALL if self.frames is _LARGE else _LARGE
            if not data.startswith(self.frames[size_bytes]):
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
