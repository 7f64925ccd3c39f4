"""The one worker of a host that speaks with the other hosts about limits, through Valkey.

It takes slices of a limit before they are needed: half of an equal share of what is left. Far
from a limit they are large and seldom, near it they shrink to single requests. What was not used
for 10 seconds is given back, and at once when another host asks for it. The other workers ask
through a pipe (`gateway.limits.leases`); when the speaker dies, one of them takes its place.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import math
import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from core.contracts.route_table import Limit
from core.kernel import clock
from core.kernel.crypto import Secret
from gateway.limits import windows
from gateway.limits.counted import counted
from gateway.limits.exchange import Answer, Exchange, Given, Lost, Told
from gateway.limits.leases import (
    BUDGET,
    CONCURRENT,
    FREE_AT_MS,
    LEASE_MS,
    LOW,
    MOST,
    REFUSED,
    REFUSED_UNTIL_MS,
    TOUCHED,
    Leases,
    Want,
)
from gateway.limits.shared_table import (
    EXCHANGES,
    HOST_ID,
    HOSTS,
    IN_TOUCH,
    LEASED_UNTIL_MS,
    SharedTable,
    Stuck,
)

log = logging.getLogger(__name__)

_TICK_S = 0.1
_RETRY_S = 0.5
_LEAD_RETRY_S = 0.2
_IDLE_S = 10.0
_LOOKED_AT = 300  # limits a tick
_BATCH = 200  # limits an exchange
_ASK_AGAIN_S = 0.025
_RECALL_S = 2.0  # for how long what other hosts do not use is waited for
_DAY_MS = 86_400_000
# For how long nobody asks again for what was refused: well below 1% of the window.
_REFUSED_MS = {"": 50, "minute": 250}
_REFUSED_LONG_MS = 500
# For how long what a host holds stays its own after it was last told: until all has left the
# window, or the budget's period is over.
_KEEP_MS = {"": 60_000, "minute": 130_000, "hour": 4_300_000, "day": 100_000_000,
            "month": 33 * _DAY_MS}  # fmt: skip
_RENEW_S = {"": 5.0, "minute": 6.0, "hour": 360.0, "day": 8640.0}
_NEVER_S = math.inf


@dataclass(slots=True)
class _Lease:
    """What the speaker knows of one limit.

    Attributes:
        most: The limit itself.
        size: The largest request that waits for it; 0 for a slice ahead of need, -1 for nothing.
        asked_s: Since when requests wait for it; 0 when none does.
        ask_s: When it is asked for.
        look_s: When it is looked at, whether it is used.
        told_s: When it was last told.
    """

    name: str
    counts: int
    window: str
    shard: int
    index: int
    at: int
    lease: int
    most: int
    size: int = -1
    asked_s: float = 0.0
    ask_s: float = 0.0
    look_s: float = 0.0
    told_s: float = 0.0


# A limit, the request it was asked for, and what is told of it.
_Line = tuple[_Lease, int, Told]


class Hosts:
    """A worker's part in limits over hosts; it speaks for its host when no other worker does.

    Args:
        table: The host's table.
        leases: The leases in it.
        url: Of Valkey; may hold a password.

    Raises:
        InvalidInput: That is no such URL.
    """

    def __init__(self, table: SharedTable, leases: Leases, url: Secret) -> None:
        self._table, self._words, self._pipe = table, table.words, leases
        self._exchange = Exchange(url, f"{table.words[HOST_ID]:016x}")
        self._limits: Sequence[Limit] = ()
        self._known: dict[str, _Lease] = {}
        self._to_look_at: deque[_Lease] = deque()  # by `look_s`
        self._asked: dict[str, _Lease] = {}
        self._wanted: list[str] = []
        self._run = ""
        self._lost = ""
        self._lead: int | None = None
        self._wake = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._work())

    def use(self, limits: Sequence[Limit]) -> None:
        """Take the limits of a new route table."""
        self._limits = limits

    async def close(self) -> None:
        """Stop; the speaker gives back what its host holds and has not used."""
        while not self._task.done():
            # A cancellation can be lost, where something waited for comes at the same moment.
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=_TICK_S)
        if self._lead is None:
            return
        asyncio.get_running_loop().remove_reader(self._pipe.pipe)
        with suppress(Lost, Stuck):
            await self._tell([self._line(each, give=True) for each in self._all])
        await self._exchange.leave()
        os.close(self._lead)

    # -- which worker speaks, and what it does all the time

    async def _work(self) -> None:
        while not self._leads():
            await asyncio.sleep(_LEAD_RETRY_S)
        asyncio.get_running_loop().add_reader(self._pipe.pipe, self._hear)
        while True:
            try:
                await self._speak()
            except (Lost, Stuck) as problem:
                await self._be_alone(str(problem))
            except Exception:  # limits must not depend on a task that ended without a word
                if not self._lost:
                    log.exception("what is told to the other hosts is wrong")
                await self._be_alone("a fault in the gateway")

    def _leads(self) -> bool:
        path = self._table.folder / "speaker.lock"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lead = lock
        return True

    async def _speak(self) -> None:
        run = await self._begin()
        while True:
            if run != self._run:
                run = await self._begin()
            await self._pause()
            now_s = clock.monotonic_s()
            asked = [each for each in self._asked.values() if each.ask_s <= now_s][:_BATCH]
            names = {each.name for each in asked}
            wanted = (set(self._wanted) & self._known.keys()) - names
            self._wanted = []
            lines = [self._line(lease, give=False) for lease in asked]
            lines += [self._line(self._known[name], give=True) for name in wanted]
            await self._tell(lines + self._looked_at(now_s, names | wanted))

    async def _pause(self) -> None:
        now_s = clock.monotonic_s()
        due_s = min((each.ask_s for each in self._asked.values()), default=now_s + _TICK_S)
        if self._wanted or due_s <= now_s:
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            # Not `wait_for`: in Python 3.11 that loses a cancellation now and then.
            async with asyncio.timeout(min(due_s - now_s, _TICK_S)):
                await self._wake.wait()
        self._wake.clear()

    async def _begin(self) -> str:
        """Tell all that this host holds: Valkey may have forgotten it, or this worker not know it.

        A host that was silent until its leases ran out keeps only what it used.

        Returns:
            The run of the server that was told.
        """
        run = (await self._answered([])).run
        now_ms = int(clock.monotonic_s() * 1000)
        in_force = 0 <= self._words[LEASED_UNTIL_MS] - now_ms <= LEASE_MS
        for want in await asyncio.to_thread(counted, self._table, self._limits):
            self._of(want)
        # All is given back here before the first word of it: from then on nothing may use it.
        await self._tell([self._line(each, give=not in_force) for each in self._all])
        return run

    async def _be_alone(self, problem: str) -> None:
        self._words[IN_TOUCH] = 0
        if not self._lost:
            log.error("limits are not agreed with the other hosts: %s", problem)
        self._lost = problem
        await self._exchange.close()
        await asyncio.sleep(_RETRY_S)
        for lease in self._asked.values():
            lease.size, lease.asked_s = -1, 0.0
        self._asked.clear()

    # -- what workers ask for

    def _hear(self) -> None:
        now_s = clock.monotonic_s()
        for want in self._pipe.wants():
            lease = self._of(want)
            lease.size = max(lease.size, want.size)
            if lease.size and not lease.asked_s:
                lease.asked_s, lease.ask_s = now_s, 0.0
            self._asked.setdefault(lease.name, lease)
        self._wake.set()

    def _of(self, want: Want) -> _Lease:
        table, cell = self._table, want.counts >= CONCURRENT
        at = table.cell_at(want.record) if cell else table.window_at(want.record)
        name = f"{self._words[at]:016x}"
        lease = self._known.get(name)
        if lease is None or lease.at != at:
            place = table.lease_of_cell if cell else table.lease_of_window
            lease = _Lease(
                name, want.counts, want.window, want.shard, want.record, at, place(want.record),
                want.most,
            )  # fmt: skip
            self._known[name] = lease
            self._look_later(lease, clock.monotonic_s())
        lease.most = want.most
        return lease

    # -- what is told, and what is given back

    @property
    def _all(self) -> list[_Lease]:
        return list(self._known.values())

    def _looked_at(self, now_s: float, told_already: set[str]) -> list[_Line]:
        """What was not used lately, and what must be told again."""
        lines: list[_Line] = []
        words = self._words
        for _ in range(min(_LOOKED_AT, len(self._to_look_at))):
            if self._to_look_at[0].look_s > now_s:
                break
            lease = self._to_look_at.popleft()
            if self._known.get(lease.name) is not lease:
                continue
            self._look_later(lease, now_s)
            if lease.name in told_already or lease.name in self._asked:
                continue
            idle, held = not words[lease.lease + TOUCHED], words[lease.lease]
            words[lease.lease + TOUCHED] = 0
            line = self._line(lease, give=idle)
            stale = now_s - lease.told_s >= _RENEW_S.get(lease.window, _NEVER_S)
            if line[2].held != held or stale:
                lines.append(line)
            elif idle and lease.counts == BUDGET and words[lease.at + 2] == words[lease.at + 3]:
                del self._known[lease.name]  # all is spent: there is nothing to give back
        return lines

    def _look_later(self, lease: _Lease, now_s: float) -> None:
        lease.look_s = now_s + _IDLE_S
        self._to_look_at.append(lease)

    def _line(self, lease: _Lease, *, give: bool) -> _Line:
        """The limit as it stands; to `give` is to hold from now on only what is used."""
        words, at = self._words, lease.at
        size, lease.size = lease.size, -1
        self._asked.pop(lease.name, None)
        keep_ms = _KEEP_MS[lease.window]
        with self._table.locked(lease.shard):
            if f"{words[at]:016x}" != lease.name:
                self._known.pop(lease.name, None)  # the record counts another limit now
                return lease, -1, Told(lease.name, "", lease.most, 0, 0, -1, -1, keep_ms)
            used, free_in_ms = self._used(lease)
            held = words[lease.lease]
            if words[lease.lease + MOST] != lease.most or (give and size <= 0):
                held = used
            held = max(held, used)  # more was used than held: the others must do without it
            words[lease.lease], words[lease.lease + MOST] = held, lease.most
            period = str(words[at + 1]) if lease.counts == BUDGET else ""
        need = size - (held - used) if size > 0 else size
        if size > 0 and need <= 0:
            size = need = -1  # there is room by now
            lease.asked_s = 0.0
        told = Told(lease.name, period, lease.most, held, used, need, free_in_ms, keep_ms)
        return lease, size, told

    def _used(self, lease: _Lease) -> tuple[int, int]:
        """What the host used of it, and in how many ms some of that is free again; -1 unknown."""
        words, at = self._words, lease.at
        if lease.counts >= CONCURRENT:
            return words[at + 3], -1
        now_s, width_s = clock.monotonic_s(), windows.width_s(lease.window)
        bucket = int(now_s / width_s)
        if words[at + 1] != bucket:
            windows.advance(self._table, at, bucket)
        used = words[at + 3]
        if not used:
            return 0, -1
        return used, int(windows.free_after_s(self._table, at, 1, width_s, now_s) * 1000) + 1

    # -- exchanges

    async def _tell(self, lines: Sequence[_Line]) -> None:
        for first in range(0, max(len(lines), 1), _BATCH):
            some = lines[first : first + _BATCH]
            began_s = clock.monotonic_s()
            answer = await self._answered([told for _, _, told in some])
            self._heard(answer, began_s)
            for line, given in zip(some, answer.given, strict=True):
                line[0].told_s = began_s
                self._take(line, given, grace=answer.grace_ms > 0)

    async def _answered(self, told: list[Told]) -> Answer:
        words = self._words
        words[EXCHANGES] += 1
        answer = await self._exchange.tell(words[EXCHANGES], told)
        if isinstance(answer, int):
            words[EXCHANGES] = answer
            raise Lost("another gateway speaks for this host: is its data folder a copy?")
        return answer

    def _heard(self, answer: Answer, began_s: float) -> None:
        words, grace = self._words, answer.grace_ms > 0
        self._run = answer.run
        self._wanted += answer.wanted
        words[LEASED_UNTIL_MS] = int(began_s * 1000) + LEASE_MS
        words[IN_TOUCH] = not grace
        if grace:
            return  # how many hosts there are is not known yet
        words[HOSTS] = answer.known
        if self._lost:
            log.info("limits are agreed with the other hosts again; there are %d", answer.known)
            self._lost = ""

    def _take(self, line: _Line, given: Given, *, grace: bool) -> None:
        lease, size, told = line
        words, at = self._words, lease.lease
        with self._table.locked(lease.shard):
            if f"{words[lease.at]:016x}" != lease.name:
                return
            if told.period and words[lease.at + 1] != int(told.period):
                return  # the budget's next period has begun: this was of the last one
            words[at] += given.given
            if given.given:
                words[at + LOW], words[at + REFUSED_UNTIL_MS] = given.given // 2, 0
        if size > 0 and not given.given and not grace:
            if not self._may_wait(lease, told, given):
                self._refuse(lease, size, given)
                return
            lease.size, lease.ask_s = max(lease.size, size), clock.monotonic_s() + _ASK_AGAIN_S
            self._asked[lease.name] = lease
            return
        if size >= 0:
            # What came while this was under way waits from now on.
            lease.asked_s = clock.monotonic_s() if lease.size > 0 else 0.0
        if not told.held and not given.given and lease.size < 0:
            self._known.pop(lease.name, None)

    def _may_wait(self, lease: _Lease, told: Told, given: Given) -> bool:
        """Whether other hosts, who were asked to, can give back enough."""
        waits = clock.monotonic_s() - lease.asked_s < _RECALL_S
        enough = given.left + given.unused >= told.need
        return waits and enough and given.unused > max(told.most // 100, 1)

    def _refuse(self, lease: _Lease, size: int, given: Given) -> None:
        words, at, now_ms = self._words, lease.lease, int(clock.monotonic_s() * 1000)
        words[at + REFUSED], words[at + FREE_AT_MS] = size, now_ms + given.free_in_ms
        words[at + REFUSED_UNTIL_MS] = now_ms + _REFUSED_MS.get(lease.window, _REFUSED_LONG_MS)
        lease.size, lease.asked_s = -1, 0.0
        self._asked.pop(lease.name, None)
