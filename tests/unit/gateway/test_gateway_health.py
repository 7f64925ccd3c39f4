"""Health checks: who is asked, what counts as away, and how one comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from core.contracts.route_table import Replica
from core.kernel import clock
from gateway import health
from gateway.balancer import Backend, choose
from gateway.health import HealthChecks
from tests.doubles.gateway_harness import free_port, until
from tests.machine import slowness

LONG_S = 60.0


class Server:
    """Answers each request with `status`; not at all while it is 0."""

    def __init__(self) -> None:
        self.status = 200
        self.asked: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        if self.status:
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % self.status)
        await reader.read()
        writer.close()

    def backend(self) -> Backend:
        url = f"http://127.0.0.1:{self.port}"
        return Backend(Replica(id="rep_1", base_url=url, health_path="/health"), "secret")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as listening:
        made.port = listening.sockets[0].getsockname()[1]
        yield made


@asynccontextmanager
async def checked(*backends: Backend) -> AsyncIterator[None]:
    tables: Any = SimpleNamespace(backends=list(backends))
    checks = HealthChecks(tables, 0.01)
    checks.start()
    try:
        yield
    finally:
        await checks.stop()


async def test_a_status_of_500_or_more_is_away_and_a_good_one_brings_it_back_slowly(
    server: Server,
) -> None:
    one = server.backend()
    one._warm_at_s = 0.0
    async with checked(one):
        await until(lambda: len(server.asked) > 3, LONG_S)
        assert not one.away
        server.status = 503
        await until(lambda: one.away, LONG_S)
        assert (one.breaker, choose([one])) == ("open", None)
        # A request that it still had fails: that opens no back-off that would end by itself.
        one.failed(clock.monotonic_s(), away=False)
        one.connected()
        assert not one.available
        server.status = 404
        await until(lambda: not one.away, LONG_S)
        assert one.available
        assert one.warmth < 1
    assert server.asked[0].startswith(b"GET /health HTTP/1.1\r\n")
    assert b"secret" not in b"".join(server.asked)


async def test_one_failure_is_none_and_what_nothing_listens_for_is_away(server: Server) -> None:
    well = server.backend()
    gone = Backend(
        Replica(id="gone", base_url=f"http://127.0.0.1:{free_port()}", health_path="/health"), ""
    )
    hosted = Backend(Replica(id="hosted", base_url=gone.replica.base_url), "")
    async with checked(well, gone, hosted):
        await until(lambda: gone.away, LONG_S)
        assert not well.away
        assert not hosted.away


async def test_a_silent_one_is_busy_while_it_has_requests(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_TIMEOUT_S", 0.05 * slowness())
    server.status = 0
    one = server.backend()
    one.began()
    async with checked(one):
        await until(lambda: len(server.asked) > 5, LONG_S)
        assert not one.away
        one.ended()
        await until(lambda: one.away, LONG_S)
        one.succeeded(5.0)  # a request that it still had
        assert one.available


async def test_one_that_answers_requests_is_not_asked(server: Server) -> None:
    one = server.backend()
    tables: Any = SimpleNamespace(backends=[one])
    checks = HealthChecks(tables, 0.001)
    for _ in range(20):
        one.succeeded(5.0)
        checks._begin_due()
        await asyncio.sleep(0.002)
    assert not server.asked

    def asked() -> bool:
        checks._begin_due()
        return bool(server.asked)

    await until(asked, LONG_S)
    await checks.stop()
