"""Connections to replicas: which are used again, and what of an answer is the caller's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.upstream import Pool
from tests.doubles.gateway_harness import CHAT, GatewayHere, route

CALL: dict[str, Any] = {"model": CHAT, "messages": [{"role": "user", "content": "Hello"}]}
PATH = "/v1/chat/completions"
BODY = b'{"model":"tiny-chat"}'


def answer(body: bytes = BODY, kind: bytes = b"application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        kind, len(body), body,
    )  # fmt: skip


@asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[str]:
    """A double of a server that answers each request with the next of these bytes."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while left:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
                writer.write(left.pop(0))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize(
    "behind", [b"no HTTP", answer(b"{}", b"text/html"), answer(b"{}", b"text/html")[:60]]
)
async def test_what_stands_behind_an_answer_is_nobodys(
    tmp_path: Path, behind: bytes, *, is_kept: bool
) -> None:
    before = [answer()] if is_kept else []
    async with (
        scripted(*before, answer() + behind, answer()) as url,
        GatewayHere(tmp_path, [route(url)]) as gateway,
    ):
        for _ in range(len(before) + 2):
            got = await gateway.http.post(PATH, json=CALL)
            assert (got.status_code, got.content) == (200, BODY)
            assert got.headers["Content-Type"] == "application/json"


async def test_a_connection_whose_last_read_was_not_taken_is_not_used_again() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"

    def refuse(_: bytes) -> None:
        raise ConnectionResetError("the caller is gone")

    async def ended(sink: Callable[[bytes], None]) -> bool:
        async with scripted(chunked) as url:
            pool = Pool(url, "", 1)
            connection = await pool.connect(1.0)
            connection.send(b"POST / HTTP/1.1\r\n\r\n", b"")
            with suppress(ConnectionResetError):
                await connection.hand_on(sink, None, 1.0, 1.0)
            pool.release(connection)
            return pool.idle() is connection

    assert await ended(lambda _: None)
    assert not await ended(refuse)
