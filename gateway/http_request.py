"""What a caller asks and what it is answered, apart from how the bytes come and go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from gateway.front import Caller


@lru_cache(maxsize=256)
def _key(name: str) -> bytes:
    return name.lower().encode()


class BadRequest(Exception):
    """A request that is not HTTP as this gateway takes it.

    Args:
        status: What it is answered with.
        message: What is wrong with it, and what to do.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BodyTooLarge(Exception):
    """A body over the limit; what is over it is never kept."""


class Headers:
    """The headers of a request, by name in any case; what was sent twice is joined by a comma.

    Args:
        values: By name in lower case. Bytes that are no UTF-8 are given as surrogates.
    """

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[bytes, bytes]) -> None:
        self._values = values

    def get(self, name: str, default: str = "") -> str:
        """A header's value; `default` when it is not there."""
        found = self._values.get(_key(name))
        return default if found is None else found.decode("utf-8", "surrogateescape")

    def __contains__(self, name: str) -> bool:
        return _key(name) in self._values


@dataclass(slots=True)
class Response:
    """A whole answer. `Content-Length`, `Date` and `Connection` are added where it is sent."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Request:
    """One request, from when its head is there; its body may still be on its way.

    Attributes:
        path: Without the query, percent-decoded.
        remote: The IP address of whoever holds the other end of the connection.
        caller: The connection, through which it is answered.
        is_complete: Whether all of the body is there.
        gone: Why the connection was closed on the caller; "" when it left by itself.
    """

    __slots__ = (
        "_query",
        "caller",
        "content_bytes",
        "gone",
        "headers",
        "is_complete",
        "is_http_10",
        "keep_alive",
        "method",
        "path",
        "pieces",
        "received_bytes",
        "remote",
    )

    def __init__(
        self,
        caller: Caller,
        method: str,
        target: bytes,
        headers: Mapping[bytes, bytes],
        *,
        is_http_10: bool,
        keep_alive: bool,
    ) -> None:
        self.caller = caller
        self.remote = caller.remote
        self.method = method
        self.headers = Headers(headers)
        self.path, self._query = _split(target)
        self.is_http_10 = is_http_10
        self.keep_alive = keep_alive
        self.content_bytes = int(headers.get(b"content-length", b"0"))
        self.pieces: list[bytes] = []
        self.received_bytes = 0
        self.is_complete = False
        self.gone = ""

    @property
    def query(self) -> dict[str, str]:
        """What stands behind the path's question mark, decoded; the last one of each name."""
        return dict(parse_qsl(self._query, keep_blank_values=True))

    async def read_body(self, max_bytes: int) -> bytes:
        """All of the body; what was read is not kept here.

        Raises:
            BodyTooLarge: It has more than `max_bytes`.
            BadRequest: What came is no body.
        """
        if self.content_bytes > max_bytes:
            raise BodyTooLarge
        if not self.is_complete:
            await self.caller.rest_of_body(self, max_bytes)
        if self.received_bytes > max_bytes:
            raise BodyTooLarge
        pieces, self.pieces = self.pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _split(target: bytes) -> tuple[str, str]:
    """Path and query of a request's target, which may be a whole URL."""
    text = target.decode("latin-1")
    if not text.startswith("/") and text != "*":
        try:
            parts = urlsplit(text)
        except ValueError:
            return text, ""
        return unquote(parts.path) or "/", parts.query
    path, _, query = text.partition("?")
    return (unquote(path) if "%" in path else path), query
