"""Connections to replicas: which are used again, and what of an answer is the caller's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gateway.upstream import Pool
from tests.doubles.gateway_harness import CHAT, GatewayHere, route
from tests.doubles.scripted_server import scripted, whole_answer

CALL: dict[str, Any] = {"model": CHAT, "messages": [{"role": "user", "content": "Hello"}]}
PATH = "/v1/chat/completions"
BODY = b'{"model":"tiny-chat"}'


@pytest.mark.parametrize("is_kept", [True, False])
@pytest.mark.parametrize(
    "behind",
    [b"no HTTP", whole_answer(b"{}", b"text/html"), whole_answer(b"{}", b"text/html")[:60]],
)
async def test_what_stands_behind_an_answer_is_nobodys(
    tmp_path: Path, behind: bytes, *, is_kept: bool
) -> None:
    before = [whole_answer(BODY)] if is_kept else []
    async with (
        scripted(*before, whole_answer(BODY) + behind, whole_answer(BODY)) as url,
        GatewayHere(tmp_path, [route(url)]) as gateway,
    ):
        for _ in range(len(before) + 2):
            got = await gateway.http.post(PATH, json=CALL)
            assert (got.status_code, got.content) == (200, BODY)
            assert got.headers["Content-Type"] == "application/json"


async def test_a_connection_whose_request_was_not_read_is_not_used_again(tmp_path: Path) -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        if connections == 1:
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}")
        else:
            writer.write(whole_answer(BODY))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    large = CALL | {"user": "x" * 20_000_000}
    async with GatewayHere(tmp_path, [route(url)], max_body_bytes=30_000_000) as gateway:
        assert (await gateway.http.post(PATH, json=large)).status_code == 400
        assert (await gateway.http.post(PATH, json=CALL)).status_code == 200
    server.close()


async def test_a_caller_that_does_not_read_is_not_read_for_what_is_kept_already() -> None:
    beginning = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n"
    taken: list[bytes] = []

    async with scripted(beginning + b"5\r\nthere\r\n0\r\n\r\n") as url:
        connection = await Pool(url, "", 1).connect(1.0)
        connection.send(b"POST / HTTP/1.1\r\n\r\n", b"")
        await connection.head(1.0)
        transport = connection.transport
        assert transport is not None
        connection.pause()
        handing_on = asyncio.create_task(connection.hand_on(taken.append, None, 1.0, 1.0))
        await asyncio.sleep(0.05)
        assert not transport.is_reading()
        connection.resume()
        assert transport.is_reading()
        await handing_on
        assert b"".join(taken) == b"hellothere"


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
