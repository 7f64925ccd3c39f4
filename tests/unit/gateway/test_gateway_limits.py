"""Limits on one host: what is admitted and refused, by one worker, by many, and past a kill."""

from __future__ import annotations

import fcntl
import itertools
import mmap
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from core.contracts import route_table
from core.contracts.route_table import ApiKey, Limit, Price, Route, RouteTable
from core.kernel import clock
from gateway.body import parse
from gateway.limits import limiter as limiter_module
from gateway.limits import shared_table
from gateway.limits.gate import estimate
from gateway.limits.ledger import Ledger, NoPlace
from gateway.limits.limiter import Busy, Limiter, Refusal, Reservation
from gateway.limits.plan import HOLD_S, Plan
from gateway.limits.record_index import RecordIndex, TableFull
from gateway.limits.shared_table import ENTRIES, MAX_WORKERS, Stuck

KEY = ApiKey(id="key_a", sha256="", project_id="prj_a", user_id="usr_a")
SUBJECTS = {"key": "key_a", "user": "usr_a", "project": "prj_a", "model": "tiny"}
FORK = multiprocessing.get_context("fork")


def limit(metric: str, window: str, amount: float, level: str = "key", **fields: Any) -> Limit:
    known = {"project_id": "prj_a", "level": level, "subject": SUBJECTS[level]} | fields
    return Limit(metric=metric, window=window, amount=amount, **known)  # type: ignore[arg-type]


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.s = 10_000.0
        self.unix = datetime(2026, 11, 29, 12, tzinfo=UTC)
        patch.setattr(limiter_module, "_now_s", lambda: self.s)
        patch.setattr(clock, "monotonic_s", lambda: self.s)
        patch.setattr(clock, "unix_s", lambda: self.unix.timestamp())


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., tuple[Limiter, Plan]]]:
    """Opens a limiter with limits, as a worker of the same host; closed afterwards."""
    made: list[Limiter] = []

    def open_with(*limits: Limit, records: int = 64) -> tuple[Limiter, Plan]:
        found = Limiter(tmp_path / "limits", records)
        made.append(found)
        found.use(limits)
        plan = found.plan_for(KEY, "tiny")
        assert plan is not None
        return found, plan

    yield open_with
    for each in made:
        each.close()


def admitted(limiter: Limiter, plan: Plan, times: int, tokens: int = 0, usd: float = 0.0) -> int:
    results = [limiter.reserve(plan, tokens, usd) for _ in range(times)]
    return sum(isinstance(result, Reservation) for result in results)


@pytest.mark.parametrize(
    ("metric", "window", "amount", "name", "retry_s"),
    [
        ("requests", "minute", 3, "key.requests_per_minute", (60, 60.6)),
        ("requests", "hour", 3, "project.requests_per_hour", (3600, 3632)),
        ("tokens", "day", 30, "user.tokens_per_day", (86400, 87152)),
        ("concurrent", "", 3, "model.concurrent_requests", (1, 1)),
        ("usd", "day", 0.3, "key.usd_per_day", (12 * 3600, 12 * 3600)),
        ("usd", "month", 0.3, "user.usd_per_month", (36 * 3600, 36 * 3600)),
    ],
)
def test_each_kind_of_limit_admits_its_amount(
    opened: Any, hands: Clock, metric: str, window: str, amount: float, name: str,
    retry_s: tuple[float, float],
) -> None:  # fmt: skip
    limiter, plan = opened(limit(metric, window, amount, name.partition(".")[0]))
    held = [limiter.reserve(plan, 10, 0.1) for _ in range(3)]
    refused = limiter.reserve(plan, 10, 0.1)
    assert isinstance(refused, Refusal)
    assert refused.limit.name == name
    assert retry_s[0] <= refused.retry_after_s <= retry_s[1]
    assert not refused.too_large
    for reservation in held:
        limiter.reconcile(reservation, 10, 0.1)
    hands.s += refused.retry_after_s
    hands.unix = datetime.fromtimestamp(hands.unix.timestamp() + refused.retry_after_s, UTC)
    assert isinstance(limiter.reserve(plan, 10, 0.1), Reservation)


def test_all_limits_hold_at_once_or_none_counts(opened: Any, hands: Clock) -> None:
    limiter, plan = opened(
        limit("requests", "minute", 100), limit("tokens", "hour", 50, "project"),
        limit("concurrent", "", 9, "model"),
    )  # fmt: skip
    assert admitted(limiter, plan, 20, tokens=10) == 5
    other = limiter.plan_for(KEY, "other")
    assert other is not None
    assert [each.name for each in other.limits] == ["key.requests_per_minute",
                                                    "project.tokens_per_hour"]  # fmt: skip
    # What was refused took nothing of the key's requests: 95 of 100 are left.
    assert admitted(limiter, other, 200, tokens=0) == 95


def test_nothing_limits_another_project(opened: Any) -> None:
    limiter, _ = opened(limit("requests", "minute", 1))
    stranger = ApiKey(id="key_b", sha256="", project_id="prj_b", user_id="usr_a")
    assert limiter.plan_for(stranger, "tiny") is None


def test_a_request_over_the_whole_limit_is_told_so(opened: Any) -> None:
    limiter, plan = opened(limit("tokens", "minute", 50))
    refused = limiter.reserve(plan, 51)
    assert isinstance(refused, Refusal)
    assert refused.too_large


def test_what_was_used_takes_the_place_of_what_was_held(opened: Any, hands: Clock) -> None:
    limiter, plan = opened(
        limit("tokens", "minute", 100), limit("usd", "day", 1.0), limit("concurrent", "", 2)
    )
    first = limiter.reserve(plan, 90, 0.9)
    assert admitted(limiter, plan, 1, 20, 0.05) == 0
    hands.s += 30
    limiter.reconcile(first, 10, 0.1)
    assert admitted(limiter, plan, 1, 91, 0.0) == 0
    second = limiter.reserve(plan, 90, 0.9)
    limiter.reconcile(second, 90, 0.9)
    limiter.reconcile(second, 90, 0.0)  # once more takes nothing back again
    # The first request's tokens count from when it began.
    hands.s += 31
    assert admitted(limiter, plan, 1, 11) == 0
    assert admitted(limiter, plan, 3, 5) == 2


def test_what_is_deferred_is_settled_before_the_next_request_is_counted(
    opened: Any, hands: Clock
) -> None:
    limiter, plan = opened(limit("tokens", "minute", 100), limit("concurrent", "", 1))
    other, others_plan = opened(limit("tokens", "minute", 100), limit("concurrent", "", 1))
    limiter.defer(limiter.reserve(plan, 90), 10)
    assert admitted(other, others_plan, 1, 1) == 0  # another worker does not know of it yet
    second = limiter.reserve(plan, 90)
    assert isinstance(second, Reservation)
    limiter.defer(second, 80)
    limiter.flush()
    limiter.reconcile(second, 80)  # settled already
    assert admitted(other, others_plan, 1, 11) == 0
    assert admitted(other, others_plan, 2, 10) == 1


def test_only_the_only_worker_keeps_a_lock_and_only_until_it_flushes(tmp_path: Path) -> None:
    kept: list[str] = []

    def opened() -> tuple[Limiter, Plan]:
        limiter = Limiter(tmp_path, 64, when_kept=lambda: kept.append("a turn"))
        limiter.use([limit("tokens", "minute", 100), limit("concurrent", "", 100)])
        plan = limiter.plan_for(KEY, "tiny")
        assert plan is not None
        return limiter, plan

    def is_locked(plan: Plan) -> bool:
        with (tmp_path / f"shard.{plan.shard:02d}.lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    one, plan = opened()
    for _ in range(2):  # the first one finds its records' places, under every lock
        held = one.reserve(plan, 10)
    assert isinstance(held, Reservation)
    assert (kept, is_locked(plan)) == (["a turn"] * 2, True)
    one.reconcile(held, 20)
    assert is_locked(plan)
    one.flush()
    assert not is_locked(plan)

    other, others_plan = opened()
    assert admitted(one, plan, 1, 10) == admitted(other, others_plan, 1, 60) == 1
    assert (len(kept), is_locked(plan)) == (2, False)
    assert admitted(one, plan, 1, 1) == 0  # 30 and 70

    other.close()
    one.sweep()  # what the other one held is given back
    assert admitted(one, plan, 1, 60) == 1
    assert (len(kept), is_locked(plan)) == (3, True)
    with closing(one):
        one.sweep()
    assert not is_locked(plan)


def test_a_reservation_that_nobody_settles_expires(opened: Any, hands: Clock) -> None:
    limiter, plan = opened(limit("concurrent", "", 1), limit("usd", "month", 1.0))
    old = limiter.reserve(plan, 0, 1.0)
    hands.s += 3590
    assert limiter.sweep() == 0
    hands.s += 20
    assert limiter.sweep() == 1
    assert isinstance(limiter.reserve(plan, 0, 0.75), Reservation)
    limiter.reconcile(old, 0, 0.5)  # late, but it was spent
    limiter.sweep()
    assert admitted(limiter, plan, 1, 0, 0.5) == 0


def test_budgets_outlive_workers_and_begin_anew_by_the_calendar(opened: Any, hands: Clock) -> None:
    limits = (limit("usd", "day", 1.0), limit("usd", "month", 1.5, "project"))
    limiter, plan = opened(*limits)
    limiter.reconcile(limiter.reserve(plan, 0, 1.0), 0, 1.0)
    again, plan = opened(*limits)
    refused = again.reserve(plan, 0, 0.4)
    assert isinstance(refused, Refusal)
    assert refused.limit.window == "day"
    hands.unix = datetime(2026, 11, 30, 0, 0, 1, tzinfo=UTC)
    assert admitted(again, plan, 2, 0, 0.5) == 1
    hands.unix = datetime(2026, 11, 29, 23, tzinfo=UTC)  # the clock is set back
    assert admitted(again, plan, 1, 0, 0.5) == 0
    hands.unix = datetime(2026, 12, 1, tzinfo=UTC)
    assert admitted(again, plan, 1, 0, 0.5) == 1


def test_records_are_used_again_and_never_more(opened: Any, hands: Clock) -> None:
    limiter, plan = opened(limit("requests", "minute", 5))
    size = (limiter.table.folder / "table.bin").stat().st_size

    def call(number: int) -> Reservation | Refusal:
        key = ApiKey(id=f"key_{number}", sha256="", project_id="prj_a", user_id="usr_a")
        limiter.use([limit("requests", "minute", 5, subject=key.id)])
        found = limiter.plan_for(key, "tiny")
        assert found is not None
        return limiter.reserve(found)

    for number in range(63):
        assert isinstance(call(number), Reservation)
    admitted(limiter, plan, 5)
    with pytest.raises(TableFull):
        call(64)
    hands.s += 2 * 3600
    for number in range(64, 128):
        assert isinstance(call(number), Reservation)
    # The first plan's record was given away: it is found to be gone, not counted in another's.
    with pytest.raises(TableFull):
        limiter.reserve(plan)
    assert (limiter.table.folder / "table.bin").stat().st_size == size


def test_plans_and_tables_keep_what_they_have_in_common_once(opened: Any) -> None:
    limits = [limit("tokens", "minute", 9, "project"), limit("usd", "day", 9, "user")]
    limiter, plan = opened(*limits)
    other = limiter.plan_for(ApiKey(id="b", sha256="", project_id="prj_a", user_id="usr_a"), "tiny")
    assert other is not None
    assert isinstance(limiter.reserve(plan, 1, 0.0), Reservation)
    assert isinstance(limiter.reserve(other, 1, 0.0), Reservation)
    assert plan.places == other.places
    assert all(one is two for one, two in zip(plan.places, other.places, strict=True))
    assert plan.most is other.most
    assert plan.shape is other.shape
    table = RouteTable(version=1, published_unix_s=0.0, keys=[KEY], limits=[limit("usd", "day", 1)])
    read = route_table.decode(route_table.encode(table))
    assert read.limits[0].subject is read.keys[0].id
    assert read.limits[0].project_id is read.keys[0].project_id


def test_a_worker_holds_a_bounded_number_of_reservations(opened: Any) -> None:
    limiter, plan = opened(limit("concurrent", "", 1e6))
    held = [limiter.reserve(plan) for _ in range(ENTRIES)]
    with pytest.raises(Busy):
        limiter.reserve(plan)
    limiter.reconcile(held[0])
    assert isinstance(limiter.reserve(plan), Reservation)


def test_one_worker_too_many_is_refused(opened: Any) -> None:
    limiter, _ = opened(limit("requests", "day", 1))
    others = [Ledger(limiter.table) for _ in range(MAX_WORKERS - 1)]
    with pytest.raises(NoPlace):
        Ledger(limiter.table)
    for other in others:
        other.close()


def test_a_worker_that_stands_still_in_the_table_is_not_waited_for(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_table, "_STUCK_S", 0.02)
    limiter, plan = opened(limit("requests", "minute", 5))
    other, _ = opened(limit("requests", "minute", 5))
    with other.table.locked(plan.shard), pytest.raises(Stuck):
        limiter.reserve(plan)
    assert admitted(limiter, plan, 9) == 5


@pytest.mark.parametrize(
    ("asked", "tokens"),
    [
        ('"n": 1', 512), ('"max_tokens": 9', 9), ('"max_completion_tokens": 7, "max_tokens": 9', 7),
        ('"max_tokens": 9, "n": 3', 27), ('"max_tokens": "many", "n": null', 512),
    ],
)  # fmt: skip
def test_an_answer_is_taken_to_be_as_long_as_was_asked_for(asked: str, tokens: int) -> None:
    body = parse(f'{{"model": "tiny", {asked}}}'.encode(), can_stream=True)
    route = Route(
        model="tiny", project_id="prj_a", deployment_id="d", upstream_model="t",
        capabilities=["chat"], price=Price(input_usd_per_million_tokens=0.0,
                                           output_usd_per_million_tokens=1e6),
    )  # fmt: skip
    assert estimate(body, route) == (len(body.raw) // 4 + tokens, tokens)


def test_a_bucket_that_a_killed_worker_half_began_is_begun_again(
    opened: Any, hands: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter, plan = opened(limit("tokens", "minute", 100))
    for tokens in (20, 40):
        limiter.reconcile(limiter.reserve(plan, tokens), tokens)
        hands.s += 2

    class Killed(Exception):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(limiter_module.windows, "write_head", die)
        with pytest.raises(Killed):
            limiter.reserve(plan, 10)
    assert admitted(limiter, plan, 3, 20) == 2
    hands.s += 59  # the first two have left, the rest has not
    assert admitted(limiter, plan, 4, 20) == 3


# Times in steps of a bucket's fraction, and bursts: both reach the edges of the window.
_LOAD = st.lists(
    st.tuples(
        st.one_of(st.just(0.0), st.floats(0, 2), st.floats(0, 130)), st.integers(1, 40),
        st.integers(0, 45),
    ),
    max_size=60,
)  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(load=_LOAD, most=st.integers(40, 300))
def test_window_is_never_over_and_never_starves(
    tmp_path: Path, hands: Clock, load: list[tuple[float, int, int]], most: int
) -> None:
    hands.s += 100_000  # the last example's counts are gone
    seen: list[tuple[float, int]] = []
    with closing(Limiter(tmp_path, 64)) as limiter:
        limiter.use([limit("tokens", "minute", most)])
        plan = limiter.plan_for(KEY, "tiny")
        assert plan is not None
        for wait_s, held, used in load:
            hands.s += wait_s
            result = limiter.reserve(plan, held)
            if isinstance(result, Refusal):
                longer = sum(count for at_s, count in seen if hands.s - at_s < 60 * 1.01)
                assert longer + held > most
                continue
            exact = sum(count for at_s, count in seen if hands.s - at_s < 60)
            assert exact + held <= most
            limiter.reconcile(result, used)
            seen.append((hands.s, used))


# What happens to a worker: time on both clocks, jumps of one of them, requests, and their ends.
_HAPPENS = st.lists(
    st.one_of(
        st.tuples(st.just("time"), st.sampled_from([0.3, 40.0, 3700.0, 90_000.0])),
        st.tuples(st.just("jump"), st.sampled_from([-40, -3, -1, 1, 2, 40]).map(float)),
        st.tuples(st.just("ask"), st.floats(0.01, 0.6)),
        st.tuples(st.just("settle"), st.floats(0, 1)),
        st.tuples(st.just("forget"), st.just(0.0)),
    ),
    max_size=80,
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(happens=_HAPPENS, window=st.sampled_from(["day", "month"]))
@example(happens=[("ask", 0.5), ("time", 3700.0), ("ask", 0.5625)], window="day")
def test_limits_hold_and_never_refuse_for_ever_whatever_the_clock_does(
    tmp_path: Path, hands: Clock, happens: list[tuple[str, float]], window: str
) -> None:
    folder = tmp_path / f"{next(_NUMBERS)}"
    at_once, budget_usd, rate = 3, 1.0, 5
    hands.unix = datetime(2026, 11, 29, 12, tzinfo=UTC)
    held: list[Reservation] = []
    began: list[float] = []
    spent_usd, openings, periods_seen = 0.0, 1, _period(hands.unix, window)
    with closing(Limiter(folder, 64)) as limiter:
        limiter.use(
            [
                limit("concurrent", "", at_once), limit("usd", window, budget_usd),
                limit("requests", "minute", rate, "project"),
            ]
        )  # fmt: skip
        plan = limiter.plan_for(KEY, "tiny")
        assert plan is not None
        for what, amount in happens:
            if what == "time":
                hands.s += amount
                hands.unix += timedelta(seconds=amount)
            elif what == "jump":
                hands.unix += timedelta(days=amount)
            elif what == "forget" and held:
                held.pop()  # its caller's request ended without a word
            elif what == "settle" and held:
                reservation = held.pop(0)
                limiter.reconcile(reservation, 0, reservation.cost_usd * amount)
                if hands.s - reservation.admitted_us / 1e6 < HOLD_S:
                    spent_usd += reservation.cost_usd * amount
            limiter.sweep()
            # A period can begin anew only when the clock goes forward into it.
            openings += _period(hands.unix, window) > periods_seen
            periods_seen = _period(hands.unix, window)
            if what != "ask":
                continue
            result = limiter.reserve(plan, 0, amount)
            in_window = sum(hands.s - at_s < 60 for at_s in began)
            if isinstance(result, Refusal):
                if result.limit.metric == "requests":  # only the monotonic clock counts
                    assert sum(hands.s - at_s < 60 * 1.01 for at_s in began) >= rate
                continue
            held.append(result)
            began.append(hands.s)
            assert in_window < rate
            # What is not settled in time was given back: no limit holds what it spends later.
            in_time = [each for each in held if hands.s - each.admitted_us / 1e6 < HOLD_S]
            assert len(in_time) <= at_once
            in_flight_usd = sum(each.cost_usd for each in in_time)
            assert spent_usd + in_flight_usd <= openings * budget_usd + 1e-6
        # With a clock that runs as it should from here on, everything is free again.
        limiter.reserve(plan)
        hands.s += 2 * HOLD_S
        hands.unix += timedelta(days={"day": 2, "month": 62}[window])
        limiter.sweep()
        assert admitted(limiter, plan, 2 * at_once, 0, 0.3) == at_once


def _period(moment: datetime, window: str) -> int:
    return moment.toordinal() if window == "day" else moment.year * 12 + moment.month


_NUMBERS = itertools.count()


@settings(max_examples=60, deadline=None)
@given(asked=st.lists(st.tuples(st.integers(1, 30), st.booleans()), max_size=120))
def test_each_hash_has_a_record_of_its_own_until_it_is_idle(asked: list[tuple[int, bool]]) -> None:
    records = 8
    content = memoryview(bytearray(8 * 64))
    words, counts = content.cast("q"), content.cast("I")
    index = RecordIndex(
        words, counts, 0, 100, records, lambda record: 10 + record, lambda record: None
    )
    owner: dict[int, int] = {}
    idle: set[int] = set()
    for key, stays in asked:
        record = index.find(key)
        assert record == next((each for each, known in owner.items() if known == key), None)
        if record is None:
            try:
                record = index.take(key, lambda at: at - 10 in idle)
            except TableFull:
                assert len(owner) == records
                assert not idle
                continue
            assert record not in owner or record in idle
            owner[record] = key
        (idle.discard if stays else idle.add)(record)


# -- many workers


class Tally:
    """What each process was admitted, in memory they share."""

    def __init__(self, workers: int) -> None:
        self._words = memoryview(mmap.mmap(-1, 8 * workers)).cast("q")

    def add(self, worker: int) -> None:
        self._words[worker] += 1

    def of(self, worker: int) -> int:
        return self._words[worker]

    @property
    def total(self) -> int:
        return sum(self._words)


def _work(folder: Path, limits: list[Limit], tally: Tally, worker: int, refusals: int) -> None:
    limiter = Limiter(folder, 64)
    limiter.use(limits)
    plan = limiter.plan_for(KEY, "tiny")
    assert plan is not None
    while refusals:
        result = limiter.reserve(plan, 10, 0.01)
        if isinstance(result, Refusal):
            refusals -= 1
            continue
        tally.add(worker)
        limiter.reconcile(result, 10, 0.01)
    os._exit(0)


@pytest.mark.parametrize("workers", [2, 8])
def test_workers_together_admit_exactly_the_limit_under_skewed_load(
    tmp_path: Path, workers: int
) -> None:
    limits = [
        limit("requests", "hour", 2000), limit("tokens", "hour", 1e6, "project"),
        limit("usd", "day", 1000.0, "user"), limit("concurrent", "", workers, "model"),
    ]  # fmt: skip
    tally = Tally(workers)
    # The first worker tries again and again, the others give up early.
    started = [
        FORK.Process(target=_work, args=(tmp_path, limits, tally, n, 1 if n else 200))
        for n in range(workers)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
    assert [process.exitcode for process in started] == [0] * workers
    assert tally.total == 2000


def test_a_killed_worker_leaves_its_reservations_to_the_others(tmp_path: Path) -> None:
    limits = [
        limit("requests", "hour", 3000), limit("tokens", "hour", 1e6), limit("concurrent", "", 2),
        limit("usd", "day", 1000.0),
    ]  # fmt: skip
    tally = Tally(3)
    killed = FORK.Process(target=_work, args=(tmp_path, limits, tally, 0, -1))
    killed.start()
    deadline_s = time.monotonic() + 200
    while tally.of(0) < 200:
        assert time.monotonic() < deadline_s
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    survivor = Limiter(tmp_path, 64)
    survivor.use(limits)
    plan = survivor.plan_for(KEY, "tiny")
    assert plan is not None
    survivor.sweep()
    got = 0
    while isinstance(result := survivor.reserve(plan, 10, 0.01), Reservation):
        survivor.reconcile(result, 10, 0.01)
        got += 1
    assert result.limit.metric == "requests"
    assert abs(tally.of(0) + got - 3000) <= 1
    _, _, concurrent, budget = plan.places
    assert survivor.table.words[concurrent] == 0
    assert abs(survivor.table.words[budget - 1] - (tally.of(0) + got) * 10**7) <= 10**7
    survivor.close()


@pytest.mark.parametrize("where", ["entered", "counted", "settling"])
def test_a_worker_killed_inside_the_table_blocks_nobody(tmp_path: Path, where: str) -> None:
    limits = [limit("tokens", "minute", 100), limit("concurrent", "", 1), limit("usd", "day", 1.0)]

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        limiter = Limiter(tmp_path, 64)
        limiter.use(limits)
        plan = limiter.plan_for(KEY, "tiny")
        assert plan is not None
        if where == "settling":
            held = limiter.reserve(plan, 60, 1.0)
            held.marks = (0, 0, 0)  # the bucket it counts in is long over
            limiter_module.windows.add = die  # type: ignore[assignment]
            limiter.reconcile(held, 10, 0.1)
        enter = limiter._enter
        limiter._enter = lambda *given: (enter(*given), die())  # type: ignore[assignment, return-value, method-assign]
        if where == "counted":
            limiter._enter = enter  # type: ignore[method-assign]
            limiter_module.Reservation = die  # type: ignore[assignment, misc]
        limiter.reserve(plan, 60, 1.0)

    killed = FORK.Process(target=work)
    killed.start()
    killed.join(10)
    assert killed.exitcode == -signal.SIGKILL
    survivor = Limiter(tmp_path, 64)  # takes over the dead one's place, and gives back
    survivor.use(limits)
    plan = survivor.plan_for(KEY, "tiny")
    assert plan is not None
    assert isinstance(survivor.reserve(plan, 40, 1.0), Reservation)
    survivor.close()
