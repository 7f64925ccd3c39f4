"""What a caller asks and what it is answered, apart from how the bytes come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from gateway.short_way import Admission, ShortCall

MAX_TARGET_BYTES = 8 * 1024
MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 128
# How long what a refused caller still sends is read, and how much may wait to be sent to one.
LINGER_S = 10.0
HIGH_WATER_BYTES = 64 * 1024
# A body may take `caller_s`, and a second more for so many bytes of it.
SLOWEST_BODY_BYTES_PER_S = 4096


Read = TypeVar("Read")

_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus
}


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


class Source(Protocol):
    """Where an answer comes from, when it comes without being awaited piece by piece."""

    def pause(self) -> None:
        """The caller does not read."""

    def resume(self) -> None:
        """It reads again."""


class Caller(Protocol):
    """The side of whoever asks, as one request sees it.

    An answer is either a whole `Response`, or `start`, any number of `write`, `end`.

    Attributes:
        source: Paused while the caller does not read.
    """

    source: Source | None

    @property
    def remote(self) -> str:
        """The IP address of whoever holds the other end of the connection."""

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """What answers the request."""

    async def rest_of_body(self, request: Request, max_bytes: int) -> None:
        """Wait until the body is there, or is over the limit. Raises BadRequest."""

    async def drain(self) -> None:
        """Wait until the caller has read most of what was written."""

    def start(self, headers: dict[str, str], content_bytes: int | None = None) -> None:
        """Begin an answer with status 200; its head goes out with the first write.

        Args:
            headers: All but `Content-Length`, `Transfer-Encoding`, `Date` and `Connection`.
            content_bytes: Length of the body; None when it is not known.
        """

    def write(self, piece: bytes) -> None:
        """Send a piece of the body. Raises ConnectionError: the caller is gone."""

    @property
    def chunk_writer(self) -> Callable[[bytes], None] | None:
        """Sends a piece of the body that has its frame of the chunked transfer encoding already.

        None where the answer that has begun does not go out so.
        """

    def end(self) -> None:
        """The answer is whole."""

    def abort(self) -> None:
        """Close at once."""


def joined(headers: Mapping[bytes, bytes], name: bytes, value: bytes) -> bytes:
    """The value of a header that is there already. Raises BadRequest: it must not be."""
    if name == b"host":
        raise BadRequest(400, "The header Host is there twice. Send it once.")
    return headers[name] + b", " + value


def check_head(version: str, headers: Mapping[bytes, bytes]) -> None:
    """Raises BadRequest: a head that others may understand in another way."""
    if version not in ("1.1", "1.0"):
        raise BadRequest(505, f"HTTP/{version} is not spoken here. Use HTTP/1.1.")
    if len(headers) > MAX_HEADERS:
        raise BadRequest(431, f"The request has over {MAX_HEADERS} headers. Send fewer.")
    if version == "1.1" and b"host" not in headers:
        raise BadRequest(400, "The header Host is missing.")
    coding = headers.get(b"transfer-encoding")
    if coding is not None and (coding.strip().lower() != b"chunked" or version == "1.0"):
        raise BadRequest(501, "A body comes with Content-Length, or in plain chunks.")


def answer_head(
    status: int,
    headers: Mapping[str, str],
    content_bytes: int | None,
    more: str,
    *,
    in_chunks: bool,
) -> bytes:
    """The head of an answer.

    Args:
        status: Its status.
        headers: All but those of its length.
        content_bytes: The length of its body; None when it is not known.
        more: Whole lines to add.
        in_chunks: Whether a body of unknown length comes in chunks.
    """
    lines = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} Unknown\r\n"
    for name, value in headers.items():
        lines += f"{name}: {value}\r\n"
    if lines.count("\n") != len(headers) + 1:
        raise ValueError("a header has a line break in it")
    if content_bytes is not None:
        return f"{lines}Content-Length: {content_bytes}\r\n{more}\r\n".encode()
    if in_chunks:
        lines += "Transfer-Encoding: chunked\r\n"
    return f"{lines}{more}\r\n".encode()


# The head of an answer with status 200 has, but for its length and the connection's own lines,
# little that changes from one request to the next.
@lru_cache(maxsize=64)
def usual_lines(content_type: bytes) -> str:
    """The lines of a whole answer's head up to the value of `X-Request-Id`. Raises ValueError."""
    lines = f"{_STATUS_LINES[200]}Content-Type: {content_type.decode('latin-1')}\r\nX-Request-Id: "
    if lines.count("\n") != 2:
        raise ValueError("a content type has a line break in it")
    return lines


STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}
STREAM_LINES = (
    _STATUS_LINES[200]
    + "".join(f"{name}: {value}\r\n" for name, value in STREAM_HEADERS.items())
    + "Transfer-Encoding: chunked\r\nX-Request-Id: "
)


def head_too_large() -> BadRequest:
    """What a head over the limit is refused with."""
    return BadRequest(431, f"The request's head has over {MAX_HEAD_BYTES} bytes. Send less.")


def target_too_long() -> BadRequest:
    """What a target over the limit is refused with."""
    return BadRequest(414, f"The request's target has over {MAX_TARGET_BYTES} bytes.")


def no_http(error: Exception) -> BadRequest:
    """What the parser does not take is refused with: it names the rule, never what was sent."""
    return BadRequest(400, f"The request is not HTTP/1.1: {error}.")


class Headers:
    """The headers of a request, by name in any case; what was sent twice is joined by a comma.

    Args:
        values: By name in lower case. Bytes that are no UTF-8 are given as surrogates.
    """

    __slots__ = ("_read", "_values")

    def __init__(self, values: Mapping[bytes, bytes]) -> None:
        self._values = values
        self._read: dict[Callable[[Headers], Any], Any] = {}

    def get(self, name: str, default: str = "") -> str:
        """A header's value; `default` when it is not there."""
        found = self._values.get(_key(name))
        return default if found is None else found.decode("utf-8", "surrogateescape")

    def once(self, read: Callable[[Headers], Read]) -> Read:
        """What `read` gives for these headers, kept: a caller sends the same ones many times."""
        try:
            return self._read[read]  # type: ignore[no-any-return]
        except KeyError:
            found = self._read[read] = read(self)
            return found

    def __contains__(self, name: str) -> bool:
        return _key(name) in self._values


@dataclass(slots=True)
class Response:
    """A whole answer. `Content-Length`, `Date` and `Connection` are added where it is sent."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Head:
    """A request's head; the requests of a connection may share one.

    Attributes:
        path: Without the query, percent-decoded.
        admission: What the short way found out about whoever sends it; None when nothing.
    """

    __slots__ = ("admission", "headers", "is_http_10", "keep_alive", "method", "path", "query")

    def __init__(
        self,
        method: str,
        target: bytes,
        headers: Mapping[bytes, bytes],
        *,
        is_http_10: bool,
        keep_alive: bool,
    ) -> None:
        self.method = method
        self.admission: Admission | None = None
        self.headers = Headers(headers)
        self.path, self.query = _split(target)
        self.is_http_10 = is_http_10
        self.keep_alive = keep_alive


class Request:
    """One request, from when its head is there; its body may still be on its way.

    Attributes:
        path: Without the query, percent-decoded.
        begun: What was sent to a replica already; None when nothing was.
        caller: The connection, through which it is answered.
        content_bytes: The body's length by its head; 0 when it comes in chunks.
        is_complete: Whether all of the body is there.
        gone: Why the connection was closed on the caller; "" when it left by itself.
    """

    __slots__ = (
        "begun", "caller", "content_bytes", "gone", "head", "headers", "is_complete", "keep_alive",
        "path", "pieces", "received_bytes",
    )  # fmt: skip

    def __init__(self, caller: Caller, head: Head, content_bytes: int) -> None:
        self.caller = caller
        self.head = head
        self.headers = head.headers
        self.path = head.path
        self.keep_alive = head.keep_alive
        self.content_bytes = content_bytes
        self.begun: ShortCall | None = None
        self.pieces: list[bytes] = []
        self.received_bytes = 0
        self.is_complete = False
        self.gone = ""

    @property
    def remote(self) -> str:
        """The IP address of whoever holds the other end of the connection."""
        return self.caller.remote

    @property
    def method(self) -> str:
        """Of the request line."""
        return self.head.method

    @property
    def is_http_10(self) -> bool:
        """Whether an answer cannot come in chunks."""
        return self.head.is_http_10

    @property
    def query(self) -> dict[str, str]:
        """What stands behind the path's question mark, decoded; the last one of each name."""
        return dict(parse_qsl(self.head.query, keep_blank_values=True))

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
