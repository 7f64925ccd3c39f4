"""Limits over several hosts: data folders that share nothing but one real Valkey (or Redis)."""

from __future__ import annotations

import asyncio
import logging
import mmap
import multiprocessing
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from core.contracts.route_table import ApiKey, Limit, Price, Route
from core.kernel.crypto import Secret
from core.kernel.errors import InvalidInput
from gateway.body import Parsed
from gateway.errors import GatewayError
from gateway.limits import hosts as hosts_module
from gateway.limits.exchange import Exchange, Lost
from gateway.limits.gate import LimitGate
from gateway.limits.limiter import Reservation
from gateway.limits.shared_table import IN_TOUCH, LEASED_UNTIL_MS, SharedTable
from tests.doubles.valkey_server import PASSWORD, ValkeyServer
from tests.machine import slowness

FORK = multiprocessing.get_context("fork")
BODY = Parsed(b'{"max_tokens": 10}', "m", False, None, max_tokens=10)  # 4 tokens in, by its length
COST_USD = 0.01
PRICE = Price(output_usd_per_million_tokens=1000.0, input_usd_per_million_tokens=0.0)


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.kill()


def limit(project: str, metric: str, window: str, amount: float, **fields: Any) -> Limit:
    known: dict[str, Any] = {"level": "key", "subject": "key_a"} | fields
    return Limit(project_id=project, metric=metric, window=window, amount=amount, **known)  # type: ignore[arg-type]


class Host:
    """One worker of a host, or of several workers when they have one folder."""

    def __init__(self, folder: Path, url: Secret, *limits: Limit) -> None:
        project = limits[0].project_id
        self.key = ApiKey(id="key_a", sha256="", project_id=project, user_id="usr_a")
        self.route = Route(
            model="tiny", project_id=project, deployment_id="dep_a", upstream_model="tiny",
            capabilities=["chat"], price=PRICE,
        )  # fmt: skip
        self.gate = LimitGate(folder, url)
        self.use(*limits)

    def use(self, *limits: Limit) -> None:
        self.gate.use(list(limits))

    @property
    def table(self) -> SharedTable:
        assert self.gate._limiter is not None
        return self.gate._limiter.table

    async def in_touch(self) -> None:
        await until(lambda: self.table.words[IN_TOUCH] == 1)

    async def admit(self) -> Reservation | None:
        """None when it is refused."""
        try:
            return await self.gate.admit(self.key, self.route, BODY)
        except GatewayError as error:
            if error.error_class == "limits_unavailable":
                raise
            return None

    async def admitted(self, most: int) -> int:
        """How many requests are admitted one after the other, until one is not."""
        for count in range(most):
            if await self.admit() is None:
                return count
        return most

    def settle(self, held: Reservation, cost_usd: float) -> None:
        assert self.gate._limiter is not None
        self.gate._limiter.reconcile(held, 0, cost_usd)


async def took_s(refused: Awaitable[object]) -> float:
    began_s = time.monotonic()
    assert await refused is None
    return time.monotonic() - began_s


async def until(condition: Callable[[], object]) -> None:
    give_up_s = time.monotonic() + 30 * slowness()
    while not condition():
        assert time.monotonic() < give_up_s, "the condition did not come true in time"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def two_hosts(
    folder: Path, valkey: ValkeyServer, *limits: Limit
) -> AsyncIterator[tuple[Host, Host]]:
    both = Host(folder / "a", valkey.url, *limits), Host(folder / "b", valkey.url, *limits)
    try:
        for host in both:
            await host.in_touch()
        yield both
    finally:
        for host in both:
            await host.gate.close()


# -- several workers a host, as processes


class Shared:
    """What the workers and the test tell each other, in memory they share."""

    def __init__(self, workers: int) -> None:
        self.words = memoryview(mmap.mmap(-1, 8 * (3 * workers + 2))).cast("q")
        self.workers = workers

    def works(self, host: int, yes: int) -> None:
        self.words[host] = yes

    def is_working(self, host: int) -> bool:
        return self.words[host] == 1

    def count(self, worker: int, what: int) -> None:
        self.words[2 + 3 * worker + what] += 1

    def of(self, worker: int, what: int) -> int:
        return self.words[2 + 3 * worker + what]

    def total(self, what: int) -> int:
        return sum(self.of(worker, what) for worker in range(self.workers))


READY, ADMITTED, REFUSED = range(3)


def _work(folder: Path, url: Secret, limits: list[Limit], shared: Shared, worker: int) -> None:
    host = worker % 2

    async def work() -> None:
        own = Host(folder / str(host), url, *limits)
        await own.in_touch()
        shared.count(worker, READY)
        while True:
            if not shared.is_working(host):
                await asyncio.sleep(0.002)
            elif (held := await own.admit()) is None:
                shared.count(worker, REFUSED)
                await asyncio.sleep(0.01)
            else:
                shared.count(worker, ADMITTED)
                own.settle(held, COST_USD)

    asyncio.run(work())


@pytest.fixture
def processes() -> Iterator[list[Any]]:
    started: list[Any] = []
    yield started
    for process in started:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.join()


@pytest.mark.parametrize(("workers", "kill"), [(2, False), (8, False), (4, True)])
def test_two_hosts_admit_the_limit_under_skewed_load(
    tmp_path: Path, valkey: ValkeyServer, processes: list[Any], workers: int, kill: bool
) -> None:
    project = f"prj_skewed_{workers}"
    limits = [
        limit(project, "requests", "hour", 2000),
        limit(project, "usd", "day", 1000.0, level="project", subject=project),
    ]
    shared = Shared(workers)
    for worker in range(workers):
        arguments = (tmp_path, valkey.url, limits, shared, worker)
        processes.append(FORK.Process(target=_work, args=arguments))
        processes[-1].start()
        if worker == 0:
            wait_for(lambda: shared.of(0, READY))  # it speaks for its host
    wait_for(lambda: shared.total(READY) == workers)

    def refused(host: int) -> list[int]:
        return [
            shared.of(worker, REFUSED)
            for worker in range(workers)
            if worker % 2 == host and processes[worker].is_alive()
        ]

    shared.works(0, 1)
    wait_for(lambda: shared.total(ADMITTED) >= 600)
    if kill:
        os.kill(processes[0].pid, signal.SIGKILL)
        processes[0].join()
    wait_for(lambda: shared.total(ADMITTED) >= 1200)
    for host in (1, 0):
        shared.works(1 - host, 0)
        shared.works(host, 1)
        before = min(refused(host))
        wait_for(lambda host=host, before=before: min(refused(host)) > before)  # type: ignore[misc]
    # What the killed one was admitted and did not count is at most one.
    assert 1980 <= shared.total(ADMITTED) + (1 if kill else 0) <= 2000 + (1 if kill else 0)


def wait_for(condition: Callable[[], object]) -> None:
    give_up_s = time.monotonic() + 60 * slowness()
    while not condition():
        assert time.monotonic() < give_up_s, "the condition did not come true in time"
        time.sleep(0.005)


# -- one worker a host


async def test_a_cancellation_that_is_lost_does_not_keep_a_worker_from_stopping(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause, lost = hosts_module.Hosts._pause, 0

    async def loses_one(self: hosts_module.Hosts) -> None:
        nonlocal lost
        try:
            await pause(self)
        except asyncio.CancelledError:
            if lost:
                raise
            lost = 1

    monkeypatch.setattr(hosts_module.Hosts, "_pause", loses_one)
    async with asyncio.timeout(30), two_hosts(tmp_path, valkey, limit("prj_c", "usd", "day", 1)):
        pass
    assert lost == 1


async def test_far_from_a_limit_requests_do_not_wait_for_valkey(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[object] = []
    when_held = LimitGate._when_held

    def counted(self: LimitGate, *given: Any) -> Awaitable[Any]:
        waited.append(given)
        return when_held(self, *given)

    monkeypatch.setattr(LimitGate, "_when_held", counted)
    most = limit("prj_far", "requests", "minute", 100_000)
    async with two_hosts(tmp_path, valkey, most) as (first, second):
        for host in (first, second):
            assert await host.admitted(2000) == 2000
        assert len(waited) <= 4


async def test_near_a_limit_single_requests_are_shared_out(
    tmp_path: Path, valkey: ValkeyServer
) -> None:
    for amount in (1, 3, 20):
        most = limit(f"prj_near_{amount}", "requests", "day", amount)
        async with two_hosts(tmp_path / str(amount), valkey, most) as both:
            got = 0
            for turn in range(3 * amount):
                got += await both[turn % 2].admitted(1)
            assert got == amount


async def test_answers_that_are_lost_neither_open_a_limit_nor_close_it(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts_module, "_RETRY_S", 0.01)
    chance, tell = random.Random(7), Exchange.tell
    fails = False

    async def lossy(self: Exchange, *given: Any) -> Any:
        answer = await tell(self, *given)  # Valkey did it, and nobody hears of it
        if fails and chance.random() < 0.4:
            raise Lost("the answer did not come")
        return answer

    monkeypatch.setattr(Exchange, "tell", lossy)
    most = limit("prj_lossy", "requests", "hour", 500, when_alone="refuse")
    async with two_hosts(tmp_path, valkey, most) as both:
        fails, got = True, 0
        for turn in range(2000):
            if turn == 1500:
                fails = False
                for host in both:
                    await host.in_touch()
            with suppress(GatewayError):  # the other host cannot be asked now
                got += await both[turn // 40 % 2].admitted(1)
        assert 495 <= got <= 500


async def test_requests_at_once_are_free_for_the_other_host_again(
    tmp_path: Path, valkey: ValkeyServer
) -> None:
    most = limit("prj_at_once", "concurrent", "", 10)
    async with two_hosts(tmp_path, valkey, most) as (first, second):
        held = [await first.admit() for _ in range(10)]
        assert None not in held
        assert await first.admit() is None
        assert await second.admit() is None
        for each in held[:6]:
            assert each is not None
            first.settle(each, 0)
        got = 0
        give_up_s = time.monotonic() + 20 * slowness()
        while got < 6 and time.monotonic() < give_up_s:
            got += await second.admitted(6 - got)
        assert got == 6
        assert await second.admit() is None


async def test_what_is_not_used_is_given_back_after_a_while(
    tmp_path: Path, valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts_module, "_IDLE_S", 0.2)
    most = limit("prj_idle", "requests", "hour", 1000)
    async with two_hosts(tmp_path, valkey, most) as (first, _):
        assert await first.admitted(3) == 3
        assert first.gate._limiter is not None
        plan = first.gate._limiter.plan_for(first.key, "tiny")
        assert plan is not None
        lease = plan.shares[0].lease
        assert first.table.words[lease] > 10
        await until(lambda: first.table.words[lease] == 3)
        assert await first.admitted(1000) == 997


async def test_a_host_that_died_gives_back_when_it_is_started_again(
    tmp_path: Path, valkey: ValkeyServer
) -> None:
    most = limit("prj_died", "requests", "day", 1000)
    async with two_hosts(tmp_path, valkey, most) as (first, second):
        assert await first.admitted(10) == 10
        dead = first.gate._hosts
        assert dead is not None
        assert dead._lead is not None
        asyncio.get_running_loop().remove_reader(dead._pipe.pipe)
        dead._task.cancel()
        os.close(dead._lead)
        dead._lead = None
        # What it held stays its own while nobody knows how much of it was used.
        got = await second.admitted(1000)
        assert 500 < got < 990
        # Refusals wait for it as long as it might be alive, not for ever.
        give_up_s = time.monotonic() + 30 * slowness()
        while await took_s(second.admit()) > 0.5:
            assert time.monotonic() < give_up_s
        again = Host(tmp_path / "a", valkey.url, most)
        give_up_s = time.monotonic() + 20 * slowness()
        while got < 990 and time.monotonic() < give_up_s:
            got += await second.admitted(1000)
            await asyncio.sleep(0.02)
        assert got == 990
        await again.gate.close()


async def test_budgets_are_kept_by_what_was_paid(tmp_path: Path, valkey: ValkeyServer) -> None:
    most = limit("prj_budget", "usd", "month", 1.0)
    async with two_hosts(tmp_path, valkey, most) as both:
        spent_usd, refusals, turn = 0.0, 0, 0
        while refusals < 20:
            turn += 1
            host = both[turn // 7 % 2]
            held = await host.admit()
            if held is None:
                refusals += 1
                continue
            host.settle(held, COST_USD / 2)
            spent_usd += COST_USD / 2
        assert 0.99 - COST_USD <= spent_usd <= 1.0


async def test_a_limit_that_is_lowered_holds_for_what_hosts_took_before(
    tmp_path: Path, valkey: ValkeyServer
) -> None:
    most = limit("prj_lowered", "requests", "day", 4000)
    async with two_hosts(tmp_path, valkey, most) as both:
        for host in both:
            assert await host.admitted(10) == 10
            host.use(limit("prj_lowered", "requests", "day", 100))
        got = 20
        for turn in range(20):
            got += await both[turn % 2].admitted(200)
        assert 99 <= got <= 100


async def test_valkey_is_killed_and_comes_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "valkey").mkdir()
    valkey = ValkeyServer(tmp_path / "valkey").start()
    rate = limit("prj_lost", "requests", "day", 400)
    budget = limit("prj_lost", "usd", "day", 1.0, subject="key_b", when_alone="refuse")
    try:
        async with two_hosts(tmp_path, valkey, rate, budget) as both:
            paying = [
                ApiKey(id="key_b", sha256="", project_id="prj_lost", user_id="usr_b") for _ in both
            ]
            for host, key in zip(both, paying, strict=True):
                assert await host.admitted(50) == 50
                await host.gate.admit(key, host.route, BODY)
            valkey.kill()
            for host in both:
                await until(lambda host=host: host.table.words[IN_TOUCH] == 0)  # type: ignore[misc]
                # What it holds is still its own; then it has its share of a rate.
                assert await host.admitted(1000) == 150
                host.table.words[LEASED_UNTIL_MS] = 1  # long ago
            for host, key in zip(both, paying, strict=True):
                with pytest.raises(GatewayError, match=r"key\.usd_per_day cannot be kept") as away:
                    await host.gate.admit(key, host.route, BODY)
                assert (away.value.status, away.value.retry_after_s) == (503, 1)
            valkey.start()
            for host, key in zip(both, paying, strict=True):
                await host.in_touch()
                assert await host.admit() is None
                await host.gate.admit(key, host.route, BODY)
    finally:
        valkey.kill()
    said = [
        record.getMessage() for record in caplog.records if "other hosts" in record.getMessage()
    ]
    assert any("not agreed" in line for line in said)
    assert any("again; there are 2" in line for line in said)
    assert PASSWORD not in caplog.text


async def test_a_wrong_password_is_told_without_it(
    tmp_path: Path, valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = Secret(valkey.url.reveal().replace(PASSWORD, "wrong-password"))
    host = Host(tmp_path, wrong, limit("prj_wrong", "requests", "day", 5))
    await until(lambda: "invalid username-password" in caplog.text)
    with pytest.raises(GatewayError, match="cannot be kept"):
        await host.admit()
    await host.gate.close()
    assert "wrong-password" not in caplog.text


@pytest.mark.parametrize(
    "url", ["http://:hunter22@here", "valkey://:hunter22@here:port", "hunter22"]
)
def test_what_is_no_url_is_refused_without_showing_it(tmp_path: Path, url: str) -> None:
    with pytest.raises(InvalidInput, match="BUD_VALKEY_URL") as refused:
        LimitGate(tmp_path, Secret(url))
    assert "hunter22" not in str(refused.value)
