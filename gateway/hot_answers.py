"""The answers of a connection to the hot routes, as they go out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.http_request import (
    STREAM_HEADERS,
    STREAM_LINES,
    Request,
    Response,
    answer_head,
    usual_lines,
)
from gateway.outbox import Outbox

if TYPE_CHECKING:
    from gateway.front import Front


class HotAnswers:
    """Half of `gateway.hot.HotConnection`: what it sends.

    Attributes:
        transport: None when the caller is gone.
    """

    __slots__ = (
        "_chunked", "_closes", "_ended", "_front", "_head", "_head_seen", "_outbox", "_request",
        "transport",
    )  # fmt: skip

    def __init__(self, front: Front, outbox: Outbox) -> None:
        self.transport: asyncio.Transport | None = None
        self._front = front
        self._outbox = outbox
        # What is being answered.
        self._request: Request | None = None
        # The head of its answer, while it has not gone out.
        self._head = b""
        self._head_seen = self._chunked = self._ended = self._closes = False

    def send(self, response: Response) -> None:
        """Send a whole answer. Raises ConnectionError: the caller is gone."""
        body, transport = response.body, self.transport
        if transport is None:
            raise ConnectionResetError("the caller is gone")
        head = self._head_of(response.status, response.headers, len(body))
        no_body = self._request is not None and self._request.method == "HEAD"
        self._outbox.put(transport, head if no_body else head + body)
        self._head_seen = self._ended = True

    def start(self, headers: dict[str, str], content_bytes: int | None = None) -> None:
        """Begin an answer with status 200; its head goes out with the first write."""
        request = self._request
        assert request is not None
        self._chunked = content_bytes is None and not request.is_http_10
        if content_bytes is None and request.is_http_10:
            request.keep_alive = False  # its end is the connection's end
        self._head = self._head_of(200, headers, content_bytes)
        self._head_seen = True

    def answer(self, body: bytes, request_id: str, content_type: bytes) -> None:
        """Send a whole answer with status 200. Raises ConnectionError: the caller is gone."""
        if self.transport is None or not self._is_usual:
            headers = {"X-Request-Id": request_id, "Content-Type": content_type.decode("latin-1")}
            self.send(Response(body, headers=headers))
            return
        head = (
            f"{usual_lines(content_type)}{request_id}\r\nContent-Length: {len(body)}\r\n"
            f"{self._front.date()}\r\n"
        )
        self._outbox.put_whole(self.transport, head.encode("latin-1") + body)
        self._head_seen = self._ended = True

    def start_stream(self, request_id: str) -> None:
        """`start` an answer of events."""
        if not self._is_usual:
            self.start({"X-Request-Id": request_id} | STREAM_HEADERS)
            return
        self._chunked = self._head_seen = True
        self._head = f"{STREAM_LINES}{request_id}\r\n{self._front.date()}\r\n".encode("latin-1")

    @property
    def _is_usual(self) -> bool:
        """Whether an answer's head says nothing of the connection or to a browser."""
        request, front = self._request, self._front
        return (
            request is not None
            and request.keep_alive
            and request.is_complete
            and not (self._closes or front.is_stopping or request.head.is_http_10)
            and front.cors is None
        )

    def behind(self, call: Callable[[], None]) -> None:
        """Call this once what was sent so far is on its way."""
        self._outbox.behind(call)

    def write(self, piece: bytes) -> None:
        """Send a piece of the body. Raises ConnectionError: the caller is gone."""
        transport = self.transport
        if transport is None:
            raise ConnectionResetError("the caller is gone")
        if not piece:
            return  # an empty chunk would be the end
        if self._chunked:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        if self._head:
            piece, self._head = self._head + piece, b""
        self._outbox.put(transport, piece)

    @property
    def chunk_writer(self) -> Callable[[bytes], None] | None:
        """Sends a piece of the body in its frame; None when it does not go out in chunks."""
        if not self._chunked or self.transport is None:
            return None
        return self._outbox.sender(self.transport)

    def end(self) -> None:
        """The answer is whole."""
        rest = self._head + (b"0\r\n\r\n" if self._chunked else b"")
        self._head = b""
        if rest and self.transport is not None:
            self._outbox.put_behind(self.transport, rest)
        self._ended = True

    def _head_of(self, status: int, headers: dict[str, str], content_bytes: int | None) -> bytes:
        request, cors = self._request, self._front.cors
        stays = request is not None and request.keep_alive and request.is_complete
        keep = ""
        if self._closes or self._front.is_stopping or not stays:
            self._closes = True
            keep = "Connection: close\r\n"
        elif request is not None and request.is_http_10:
            keep = "Connection: keep-alive\r\n"
        if cors is not None and request is not None:
            headers = headers | cors.headers(request)
        return answer_head(
            status, headers, content_bytes, f"{self._front.date()}{keep}", in_chunks=self._chunked
        )
