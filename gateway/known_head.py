"""Heads of requests that were parsed before.

A client sends the same head with each request, but for the body's length. The same bytes mean the
same, so they are compared instead of being parsed again.
"""

from __future__ import annotations

import re

from gateway.http_request import Head

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,10})\r\n", re.IGNORECASE)
_MOST_DIGITS = 10


class KnownHead:
    """A head as it was sent, but for the digits of its Content-Length, and what it means."""

    __slots__ = ("_after", "_at", "_before", "meaning")

    def __init__(self, before: bytes, after: bytes, meaning: Head) -> None:
        self._before = before
        self._after = after
        self._at = len(before)
        self.meaning = meaning

    @classmethod
    def of(cls, head: bytes, meaning: Head) -> KnownHead | None:
        """A head that a parser has taken, up to its empty line; None when it gives no length."""
        found = _LENGTH.search(head)
        if found is None:
            return None
        return cls(head[: found.start(1)], head[found.end(1) :], meaning)

    def matched(self, data: bytes) -> tuple[int, int] | None:
        """The length of the body in bytes, and where it begins; None when the head is another."""
        if not data.startswith(self._before):
            return None
        end = data.find(b"\r", self._at, self._at + _MOST_DIGITS + 1)
        digits = data[self._at : end]
        if not digits.isdigit() or not data.startswith(self._after, end):
            return None
        return int(digits), end + len(self._after)
