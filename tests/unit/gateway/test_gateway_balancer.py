"""p2c, the breaker and the retry budget."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from core.contracts.route_table import Replica
from core.kernel import clock
from gateway import balancer
from gateway.balancer import Backend, RetryBudget, choose


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def time_s(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(clock, "monotonic_s", fake)
    return fake


def backend(name: str = "r", slots: int = 1) -> Backend:
    return Backend(Replica(id=name, base_url="http://127.0.0.1:1", slots=slots), "")


def test_fewer_in_flight_for_each_slot_wins() -> None:
    small, large = backend("small", 1), backend("large", 8)
    small.in_flight, large.in_flight = 1, 4
    assert {choose([small, large]) for _ in range(20)} == {large}


def test_latency_breaks_a_tie_and_equals_share() -> None:
    slow, fast = backend("slow"), backend("fast")
    assert len({choose([slow, fast]) for _ in range(50)}) == 2
    slow.succeeded(200.0)
    fast.succeeded(20.0)
    assert {choose([slow, fast]) for _ in range(20)} == {fast}


def test_latency_is_smoothed() -> None:
    one = backend()
    one.succeeded(100.0)
    one.succeeded(200.0)
    assert 100.0 < one.latency_ms < 150.0


def test_p2c_spreads_over_many() -> None:
    backends = [backend(str(n)) for n in range(5)]
    for _ in range(500):
        chosen = choose(backends)
        assert chosen is not None
        chosen.began()
    loads = [each.in_flight for each in backends]
    assert sum(loads) == 500
    assert max(loads) - min(loads) <= 5


def test_tried_ones_come_last() -> None:
    first, second = backend("1"), backend("2")
    assert choose([first, second], [first]) is second
    assert choose([first], [first]) is first
    assert choose([]) is None


def test_failed_one_is_put_aside_longer_each_time(time_s: Clock) -> None:
    one = backend()
    waits = []
    for _ in range(7):
        one.failed(time_s.now_s, away=True)
        waits.append(one.wait_s)
        assert not one.available
        assert choose([one]) is None
        time_s.now_s += one.wait_s
        assert one.available
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0])
    one.succeeded(5.0)
    one.failed(time_s.now_s, away=True)
    assert one.wait_s == pytest.approx(0.1)


def test_one_probe_at_a_time(time_s: Clock) -> None:
    one = backend()
    one.failed(time_s.now_s, away=True)
    time_s.now_s += 1
    one.began()
    assert not one.available
    one.ended()
    assert one.available
    one.began()
    one.connected()
    assert one.available


def test_many_failures_at_once_are_one(time_s: Clock) -> None:
    one = backend()
    began_s = time_s.now_s
    time_s.now_s += 0.01
    for _ in range(50):
        one.failed(began_s, away=True)
    assert one.wait_s == pytest.approx(0.1)


def test_choice_skips_what_is_aside(time_s: Clock) -> None:
    backends = [backend(str(n)) for n in range(3)]
    backends[0].failed(time_s.now_s, away=True)
    seen = Counter(choose(backends) for _ in range(60))
    assert backends[0] not in seen
    assert len(seen) == 2


def test_one_that_answers_badly_is_tried_when_there_is_no_other(time_s: Clock) -> None:
    bad, away = backend("bad"), backend("away")
    bad.failed(time_s.now_s, away=False)
    away.failed(time_s.now_s, away=True)
    assert not bad.available
    assert {choose([bad, away]) for _ in range(10)} == {bad}
    good = backend("good")
    assert {choose([bad, away, good]) for _ in range(10)} == {good}


def test_retry_budget_is_bounded_and_refills(time_s: Clock) -> None:
    budget = RetryBudget()
    assert sum(budget.take() for _ in range(100)) == 10
    for _ in range(50):
        budget.requests += 1
    assert sum(budget.take() for _ in range(100)) == pytest.approx(10, abs=1)
    time_s.now_s += 3600
    budget.requests += 1
    assert sum(budget.take() for _ in range(100)) == balancer.RetryBudget._MAX


async def test_idle_connections_are_closed_when_a_replica_retires() -> None:
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\n\r\nok")
        await reader.read()
        done.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    one = Backend(Replica(id="r", base_url=f"http://127.0.0.1:{port}"), "secret")
    connection = await one.pool.connect(1)
    head = one.pool.head("/x", 0, "req_1", stream=False)
    assert b"Authorization: Bearer secret\r\n" in head
    connection.send(head, b"")
    await connection.head(1)
    assert await connection.read(1) == b"ok"
    assert await connection.read(1) == b""
    one.pool.release(connection)
    kept = one.pool.idle()
    assert kept is connection
    assert 3.5 < kept.idle_until_s - asyncio.get_running_loop().time() <= 4.0
    one.pool.release(kept)
    one.retire()
    await asyncio.wait_for(done.wait(), 2)
    assert one.pool.idle() is None
    server.close()
