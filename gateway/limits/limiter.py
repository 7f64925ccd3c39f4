"""Holds what a request may use before it begins, and settles what it used when it ends.

All limits of a request hold at once: it is admitted by every one of them, or counts in none.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from core.contracts.route_table import ApiKey, Limit
from core.kernel import clock
from gateway.limits import ledger, plan, windows
from gateway.limits.leases import Lacking, Leases, Short
from gateway.limits.ledger import CHANGING, FREE, HELD, Ledger
from gateway.limits.plan import HOLD_S, NANO, Plan, Scope
from gateway.limits.shared_table import BUCKETS, RECORDS, SharedTable, acquire, release
from gateway.limits.windows import HEADER_COUNTS

_now_s = clock.monotonic_s
_flock = fcntl.flock
_LOCK, _UNLOCK = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN
_DAY_S = 86400
_CONCURRENT_RETRY_S = 1.0
_MOST_PLANS = 50_000
_MOST_PLANS = 20_000


@dataclass(slots=True)
class Reservation:
    """What a request holds; `entry` is 0 when nothing has to be settled.

    `tokens` and `cost_nano_usd` are what was held, `admitted_s` is on the monotonic clock.
    """

    plan: Plan
    entry: int
    tokens: int
    cost_nano_usd: int
    admitted_s: float

    @property
    def cost_usd(self) -> float:
        """What was held of budgets, in USD."""
        return self.cost_nano_usd / NANO


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which limit refused, and after how many seconds it may admit.

    `too_large` says that the request alone is over the limit: it never will be admitted. `away`
    says that it is not known what other hosts used, and that the limit says to refuse then.
    """

    limit: Limit
    retry_after_s: float
    too_large: bool
    away: bool = False


class Busy(Exception):
    """This worker holds as many reservations as it can."""


class Limiter:
    """The limits as one worker sees them. For one thread.

    Args:
        folder: Where the workers of this host share their table.
        records: How many limits have room; the same for all workers.
        shared: Whether other hosts share the limits.

    Raises OSError when the disk has no room, NoPlace when there are too many workers.
    """

    def __init__(self, folder: Path, records: int = RECORDS, *, shared: bool = False) -> None:
        self.table = SharedTable(folder, records)
        self.leases = Leases(self.table) if shared else None
        self._ledger = Ledger(self.table)
        self._limits: dict[Scope, list[Limit]] = {}
        self._plans: dict[str, dict[str, Plan | None]] = {}
        self._places: plan.Known = {}
        self._day = self._month = self._month_end_day = 0

    def use(self, limits: Iterable[Limit]) -> None:
        """Take the limits of a new route table; what was counted stays."""
        self._limits = plan.by_scope(limits)
        self._plans, self._places = {}, {}

    def plan_for(self, key: ApiKey, model: str) -> Plan | None:
        """The limits for a key that calls a model of its project; None when there are none."""
        try:
            return self._plans[model][key.id]
        except KeyError:
            made = plan.make(self._limits, self.table, key, model)
            known = self._plans.setdefault(model, {})
            if len(known) >= _MOST_PLANS:
                known.clear()  # access tokens have as many users as their issuer
            known[key.id] = made
            return made

    def reserve(
        self, held: Plan, tokens: int = 0, cost_usd: float = 0.0
    ) -> Reservation | Refusal | Lacking:
        """Hold one request, with the tokens and the cost it is expected to take.

        Returns:
            What it holds, or the limit that refuses it. With other hosts also what this host
            must ask for, before the request can be tried again.

        Raises:
            TableFull: No record is free for one of its limits.
            Stuck: Another worker stands still.
            Busy: Too many requests with limits are in flight here.
        """
        words, lock = self.table.words, held.lock
        cost = round(cost_usd * NANO)
        try:
            _flock(lock, _LOCK)
        except BlockingIOError:
            acquire(lock)
        try:
            while held.generation != words[3]:
                self._place(held)
            # Read under the lock, so that time never goes back from one holder to the next.
            now_s = _now_s()
            for window in held.windows:
                at, width_s, most, is_tokens, _ = window
                bucket = int(now_s / width_s)
                if words[at + 1] != bucket:
                    self._advance(window, bucket, now_s)
                if words[at + 2] + (tokens if is_tokens else 1) > most:
                    return self._window_refusal(window, tokens, now_s)
            if held.cells:
                self._begin_periods(held)
                for cell in held.cells:
                    at, most, budget, _ = cell
                    if words[at + 2] + words[at + 3] + (cost if budget else 1) > most:
                        return self._cell_refusal(cell, cost)
            if self.leases is not None:
                short = self.leases.check(held.shares, tokens, cost, now_s)
                if short is not None:
                    return self._shared_refusal(short, now_s)
            return self._admit(held, tokens, cost, now_s)
        finally:
            _flock(lock, _UNLOCK)

    def _admit(self, held: Plan, tokens: int, cost: int, now_s: float) -> Reservation:
        words, counts = self.table.words, self.table.counts
        entry = 0
        if held.refs:
            entry = self._enter(held, tokens, cost, now_s)
        for at, _, _, is_tokens, _ in held.windows:
            count = tokens if is_tokens else 1
            counts[at * 2 + HEADER_COUNTS + words[at + 1] % BUCKETS] += count
            words[at + 2] += count
        for at, _, budget, _ in held.cells:
            words[at + 3] += cost if budget else 1
        if entry:
            words[entry] = HELD
        return Reservation(held, entry, tokens, cost, now_s)

    def _enter(self, held: Plan, tokens: int, cost: int, now_s: float) -> int:
        free = self._ledger.free
        entry = free.pop() if free else self._ledger.take()
        if entry is None:
            raise Busy("this worker holds as many requests with limits as it can")
        content, begin, refs = self.table.content, entry * 8, held.refs
        first = begin + ledger.REFS_AT
        content[first : first + len(refs)] = refs
        ledger.write_entry(
            content, begin, CHANGING, int(now_s * 1e6), tokens, cost, held.shard, len(refs) // 4
        )
        return entry

    def reconcile(self, reservation: Reservation, tokens: int = 0, cost_usd: float = 0.0) -> None:
        """Put what a request took in the place of what it held; tokens count when it began.

        Raises Stuck: it stays held, and is given back when it expires.
        """
        entry, held = reservation.entry, reservation.plan
        if not entry:
            return
        reservation.entry = 0
        words, table = self.table.words, self.table
        cost, admitted_s = round(cost_usd * NANO), reservation.admitted_s
        acquire(held.lock)
        try:
            while held.generation != words[3]:
                self._place(held)
            holds = words[entry] == HELD and words[entry + 1] == int(admitted_s * 1e6)
            more = tokens - (reservation.tokens if holds else 0)
            if holds:
                words[entry] = CHANGING
            if more:
                for at, width_s, _, is_tokens, _ in held.windows:
                    if is_tokens:
                        windows.add(table, at, int(admitted_s / width_s), more)
            for at, _, budget, _ in held.cells:
                # Spent before it is no longer held: a worker killed in between is too strict.
                if budget:
                    words[at + 2] += cost
                if holds:
                    words[at + 3] -= reservation.cost_nano_usd if budget else 1
            if holds:
                words[entry] = FREE
                self._ledger.free.append(entry)
        finally:
            release(held.lock)

    def sweep(self) -> int:
        """Give back what dead workers held, and what was held too long; how many there were."""
        given = ledger.give_back_of_dead(self.table, self._ledger.worker)
        return given + self._ledger.expire(ledger.now_us() - int(HOLD_S * 1e6))

    def close(self) -> None:
        """Leave the table to the other workers."""
        self._ledger.close()
        if self.leases is not None:
            self.leases.close()
        self.table.close()

    # -- what a reservation needs now and then

    def _place(self, held: Plan) -> None:
        # The shard is locked by this worker; every lock is taken, then this one again.
        release(held.lock)
        try:
            plan.place(held, self.table, self._places, shared=self.leases is not None)
        finally:
            acquire(held.lock)

    def _advance(self, window: plan.Window, bucket: int, now_s: float) -> None:
        words = self.table.words
        windows.advance(self.table, window.at, bucket)
        words[window.at + 3] = int((now_s + plan.idle_s(window.limit.window)) * 1000)

    def _begin_periods(self, held: Plan) -> None:
        now_unix_s = clock.unix_s()
        day = int(now_unix_s // _DAY_S)
        if day != self._day:
            self._begin_day(day, now_unix_s)
        words = self.table.words
        for at, _, budget, limit in held.cells:
            if not budget:
                continue
            period = self._month if limit.window == "month" else day
            begun = words[at + 1]
            # When the clock goes back, what was spent stays spent. By one period it is waited
            # for; one further ahead was never there, and would have to be waited for too long.
            if begun < period or begun > period + 1:
                if begun < period:
                    words[at + 2] = 0
                words[at + 1] = period
                words[at + 4] = self._month_end_day if limit.window == "month" else day
                words[self.table.lease_of_cell(self.table.index_of_cell(at))] = 0

    def _begin_day(self, day: int, now_unix_s: float) -> None:
        moment = time.gmtime(now_unix_s)
        self._day, self._month = day, moment.tm_year * 12 + moment.tm_mon - 1
        year, month = divmod(self._month + 1, 12)
        self._month_end_day = int(_unix_s(year, month + 1) // _DAY_S) - 1

    def _window_refusal(self, window: plan.Window, tokens: int, now_s: float) -> Refusal:
        at, width_s, most, is_tokens, limit = window
        count = tokens if is_tokens else 1
        need = self.table.words[at + 2] + count - most
        after_s = windows.free_after_s(self.table, at, need, width_s, now_s)
        return Refusal(limit, after_s, count > most)

    def _cell_refusal(self, cell: plan.Cell, cost: int) -> Refusal:
        limit = cell.limit
        if not cell.budget:
            return Refusal(limit, _CONCURRENT_RETRY_S, cell.most < 1)
        last_day = self._month_end_day if limit.window == "month" else self._day
        after_s = (last_day + 1) * _DAY_S - clock.unix_s()
        return Refusal(limit, max(after_s, 1.0), cost > cell.most)

    def _shared_refusal(self, short: Lacking | Short, now_s: float) -> Refusal | Lacking:
        if isinstance(short, Lacking):
            return short
        share, limit = short.share, short.share.limit
        after_s = max(short.free_in_ms / 1000, 0.0)
        if limit.metric == "usd" and not short.away:
            last_day = self._month_end_day if limit.window == "month" else self._day
            after_s = max((last_day + 1) * _DAY_S - clock.unix_s(), 1.0)
        elif limit.metric != "concurrent" and self.table.words[share.at + 2]:
            width_s = windows.width_s(limit.window)
            own_s = windows.free_after_s(self.table, share.at, 1, width_s, now_s)
            after_s = min(after_s, own_s) if short.elsewhere else own_s
        return Refusal(limit, after_s, too_large=False, away=short.away)


def _unix_s(year: int, month: int) -> float:
    return datetime(year, month, 1, tzinfo=UTC).timestamp()
