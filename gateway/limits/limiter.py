"""Holds what a request may use before it begins, and settles what it used when it ends.

All limits of a request hold at once: it is admitted by every one of them, or counts in none.
"""

from __future__ import annotations

import fcntl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import add, gt
from pathlib import Path

import msgspec

from core.contracts.route_table import ApiKey, Limit
from core.kernel import clock
from gateway.limits import ledger, plan, windows
from gateway.limits.leases import Lacking, Leases, Short
from gateway.limits.ledger import CHANGING, FREE, HELD, Ledger
from gateway.limits.periods import Calendar
from gateway.limits.plan import HOLD_S, NANO, Known, Plan, Scope
from gateway.limits.shared_table import ALONE, RECORDS, SharedTable, acquire, release

_now_s = clock.monotonic_s
_flock = fcntl.flock
_LOCK, _UNLOCK = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN
_CONCURRENT_RETRY_S = 1.0
_MOST_PLANS = 20_000


class Reservation(msgspec.Struct, gc=False):
    """What a request holds; `entry` is 0 when nothing has to be settled.

    `tokens` and `cost_nano_usd` are what was held, `admitted_us` is on the monotonic clock,
    `marks` are the buckets it counts in.
    """

    plan: Plan
    entry: int
    tokens: int
    cost_nano_usd: int
    admitted_us: int
    marks: tuple[int, ...]

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
        when_kept: Called when a lock is kept, which `flush` gives up: that must be soon, within
            a turn of the event loop. None keeps none.

    `limits_models` are the projects in which models have limits of their own.

    Raises OSError when the disk has no room, NoPlace when there are too many workers.
    """

    def __init__(
        self,
        folder: Path,
        records: int = RECORDS,
        *,
        shared: bool = False,
        when_kept: Callable[[], None] | None = None,
    ) -> None:
        self.table = SharedTable(folder, records)
        self.leases = Leases(self.table) if shared else None
        self._ledger = Ledger(self.table)
        self._when_kept = when_kept
        self._deferred: dict[int, list[tuple[Reservation, int, float]]] = {}
        self._limits: dict[Scope, list[Limit]] = {}
        self._plans: dict[str, dict[str, Plan | None]] = {}
        self._model_plans: dict[tuple[str, str], Plan | None] = {}
        self.limits_models: frozenset[str] = frozenset()
        self._known = Known()
        self._calendar = Calendar(clock.unix_s())

    def use(self, limits: Iterable[Limit]) -> None:
        """Take the limits of a new route table; what was counted stays."""
        self._limits = plan.by_scope(limits)
        self._plans, self._model_plans, self._known = {}, {}, Known()
        self.limits_models = frozenset(
            project_id for project_id, level, _ in self._limits if level == "model"
        )

    def plan_for(self, key: ApiKey, model: str) -> Plan | None:
        """The limits for a key that calls a model of its project; None when there are none."""
        try:
            return self._plans[model][key.id]
        except KeyError:
            made = self._made(key.project_id, plan.subjects_of(key, model))
            known = self._plans.setdefault(model, {})
            if len(known) >= _MOST_PLANS:
                known.clear()  # access tokens have as many users as their issuer
            known[key.id] = made
            return made

    def plan_of_model(self, project_id: str, model: str) -> Plan | None:
        """The limits of a model itself, whoever calls it; None when there are none."""
        place = (project_id, model)
        if place not in self._model_plans:
            self._model_plans[place] = self._made(project_id, (("model", model),))
        return self._model_plans[place]

    def plan_of_spending(self, key: ApiKey, models: Sequence[str]) -> Plan | None:
        """The limits of tokens and USD of a key and of models, for what is no request of its own.

        Made anew each time: only sessions ask for it, with each of their answers.
        """
        behind = (("model", name) for name in models[1:])
        subjects = tuple(dict.fromkeys((*plan.subjects_of(key, models[0]), *behind)))
        spending = {
            (key.project_id, *subject): [
                limit
                for limit in self._limits.get((key.project_id, *subject), ())
                if limit.metric in ("tokens", "usd")
            ]
            for subject in subjects
        }
        return plan.make(spending, self.table, self._known, key.project_id, subjects)

    def _made(self, project_id: str, subjects: plan.Subjects) -> Plan | None:
        return plan.make(self._limits, self.table, self._known, project_id, subjects)

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
        # What goes through all limits does so in C: this is a large part of a request's cost.
        words, lock, shape, kept = self.table.words, held.lock, held.shape, self.table.kept
        cost = round(cost_usd * NANO)
        if lock not in kept:
            self._acquire(lock)
        try:
            deferred = self._deferred.get(lock)
            if deferred:
                self._settle(deferred)
            while held.generation != words[3]:
                self._place(held)
            # Read under the lock, so that time never goes back from one holder to the next.
            now_s = _now_s()
            if now_s >= shape.ends_s or not (
                shape.begins_unix_s <= clock.unix_s() < shape.ends_unix_s
            ):
                self._turn(shape, now_s)
            marks = shape.marks
            if held.checked is not marks:
                # Until the shape turns no worker takes these records any further.
                self._begin(held, now_s)
                held.checked = marks
            counts = list(map(add, held.counts(words), shape.amounts((1, tokens, cost))))
            if any(map(gt, counts, held.most)):
                return self._refusal(held, (1, tokens, cost), now_s)
            if self.leases is not None:
                short = self.leases.check(held.shares, tokens, cost, now_s)
                if short is not None:
                    return self._shared_refusal(short, now_s)
            admitted_us = int(now_s * 1e6)
            entry = self._enter(held, tokens, cost, admitted_us) if held.refs else 0
            # `counts` has one more, which means nothing.
            deque(map(self.table.set_word, held.places, counts), 0)
            if entry:
                words[entry] = HELD
            return Reservation(held, entry, tokens, cost, admitted_us, marks)
        finally:
            if lock not in kept:
                _flock(lock, _UNLOCK)

    def _acquire(self, lock: int) -> None:
        """Lock a shard, and keep it while there is no other worker."""
        try:
            _flock(lock, _LOCK)
        except BlockingIOError:
            acquire(lock)
        if self._when_kept is not None and self.table.words[ALONE] == self._ledger.alone:
            self.table.kept.add(lock)
            self._when_kept()

    def _enter(self, held: Plan, tokens: int, cost: int, admitted_us: int) -> int:
        free, refs = self._ledger.free, held.refs
        entry = free.pop() if free else self._ledger.take()
        if entry is None:
            raise Busy("this worker holds as many requests with limits as it can")
        held.shape.write_entry(
            self.table.content, entry * 8 + 8,
            admitted_us, tokens, cost, held.shard, len(refs) // 4, refs,
        )  # fmt: skip
        self.table.words[entry] = CHANGING
        return entry

    def defer(self, reservation: Reservation, tokens: int = 0, cost_usd: float = 0.0) -> None:
        """Like `reconcile`, but with the next request of the same project, or with `flush`.

        Nothing is refused for what is deferred: it is settled before the next request is counted.
        """
        if reservation.entry:
            self._deferred.setdefault(reservation.plan.lock, []).append(
                (reservation, tokens, cost_usd)
            )

    def flush(self) -> None:
        """Settle what was deferred, and keep no lock any longer.

        Raises Stuck: the rest is left for the next call.
        """
        try:
            for lock, deferred in self._deferred.items():
                if deferred:
                    self._settle_locked(lock, deferred)
        finally:
            self.table.give_up()

    def reconcile(self, reservation: Reservation, tokens: int = 0, cost_usd: float = 0.0) -> None:
        """Put what a request took in the place of what it held; tokens count when it began.

        Raises Stuck: it stays held, and is given back when it expires.
        """
        if reservation.entry:
            self._settle_locked(reservation.plan.lock, [(reservation, tokens, cost_usd)])

    def _settle_locked(self, lock: int, ended: list[tuple[Reservation, int, float]]) -> None:
        kept = self.table.kept
        if lock not in kept:
            acquire(lock)
        try:
            self._settle(ended)
        finally:
            if lock not in kept:
                release(lock)

    def _settle(self, ended: list[tuple[Reservation, int, float]]) -> None:
        """Settle and remove all of them; their shard is locked.

        Those with the same limits and buckets in a row are counted together.
        """
        words = self.table.words
        while ended:
            held, marks = ended[-1][0].plan, ended[-1][0].marks
            while held.generation != words[3]:
                self._place(held)
            more = cost = held_cost = 0
            entries: list[int] = []
            while ended and ended[-1][0].plan is held and ended[-1][0].marks is marks:
                reservation, tokens, cost_usd = ended.pop()
                entry = reservation.entry
                if not entry:
                    continue
                reservation.entry = 0
                more += tokens
                cost += round(cost_usd * NANO)
                if words[entry] == HELD and words[entry + 1] == reservation.admitted_us:
                    words[entry] = CHANGING
                    more -= reservation.tokens
                    held_cost += reservation.cost_nano_usd
                    entries.append(entry)
            self._count(held, marks, more, cost, held_cost, len(entries))
            for entry in entries:
                words[entry] = FREE
            self._ledger.free += entries

    def _count(
        self, held: Plan, marks: tuple[int, ...], more: int, cost: int, held_cost: int, ended: int
    ) -> None:
        """Count more tokens, or fewer, in the buckets of `marks`, and what is spent."""
        words, shape, places = self.table.words, held.shape, held.places
        if more:
            for number in shape.tokens:
                at = places[number]
                if words[at - 2] == marks[number]:
                    words[at] += more
                else:
                    windows.add(self.table, at - 3, marks[number], more)
        for at in places[shape.budgets]:
            # Spent before it is no longer held: a worker killed in between is too strict.
            words[at - 1] += cost
            words[at] += cost - held_cost
        for at in places[shape.concurrent]:
            words[at] -= ended

    def sweep(self) -> int:
        """Give back what dead workers held, and what was held too long; how many there were."""
        self._ledger.look_around()
        given = ledger.give_back_of_dead(self.table, self._ledger.worker)
        return given + self._ledger.expire(ledger.now_us() - int(HOLD_S * 1e6))

    def close(self) -> None:
        """Leave the table to the other workers; what is deferred is left to them as held."""
        self._ledger.close()
        if self.leases is not None:
            self.leases.close()
        self.table.close()

    # -- what a reservation needs now and then

    def _place(self, held: Plan) -> None:
        # The shard is locked by this worker; every lock is taken, then this one again.
        release(held.lock)
        try:
            plan.place(held, self.table, self._known, shared=self.leases is not None)
        finally:
            acquire(held.lock)

    def _turn(self, shape: plan.Shape, now_s: float) -> None:
        now_unix_s, calendar = clock.unix_s(), self._calendar
        if not calendar.begins_unix_s <= now_unix_s < calendar.ends_unix_s:
            calendar.turn_to(now_unix_s)
        shape.turn_to(now_s, calendar)

    def _begin(self, held: Plan, now_s: float) -> None:
        """Take each of its records into the present bucket or period."""
        words = self.table.words
        for at, mark, limit in zip(held.places, held.shape.marks, held.limits):  # noqa: B905
            if words[at - 2] == mark:
                continue
            if plan.is_rate(limit):
                windows.advance(self.table, at - 3, mark)
                words[at + 1] = int((now_s + plan.idle_s(limit.window)) * 1000)
            else:
                self._begin_period(at - 3, mark, limit.window)

    def _begin_period(self, at: int, period: int, window: str) -> None:
        words = self.table.words
        begun = words[at + 1]
        # When the clock goes back, what was spent stays spent. By one period it is waited
        # for; one further ahead was never there, and would have to be waited for too long.
        if period <= begun <= period + 1:
            return
        spent, total = words[at + 2 : at + 4]
        if begun < period:
            spent, total = 0, total - spent
        windows.write_head(self.table.content, at * 8 + 8, period, spent, total)
        words[at + 4] = self._calendar.last_day(window)
        words[self.table.lease_of_cell(self.table.index_of_cell(at))] = 0

    def _refusal(self, held: Plan, amounts: tuple[int, int, int], now_s: float) -> Refusal:
        words = self.table.words
        asked = held.shape.amounts(amounts)
        used = held.counts(words)
        first = next(n for n, most in enumerate(held.most) if used[n] + asked[n] > most)
        limit, count, most = held.limits[first], asked[first], held.most[first]
        if limit.metric == "concurrent":
            return Refusal(limit, _CONCURRENT_RETRY_S, count > most)
        if limit.metric == "usd":
            return Refusal(limit, self._calendar.left_s(limit.window, clock.unix_s()), count > most)
        need, width_s = used[first] + count - most, windows.width_s(limit.window)
        after_s = windows.free_after_s(self.table, held.places[first] - 3, need, width_s, now_s)
        return Refusal(limit, after_s, count > most)

    def _shared_refusal(self, short: Lacking | Short, now_s: float) -> Refusal | Lacking:
        if isinstance(short, Lacking):
            return short
        share, limit = short.share, short.share.limit
        after_s = max(short.free_in_ms / 1000, 0.0)
        if limit.metric == "usd" and not short.away:
            after_s = self._calendar.left_s(limit.window, clock.unix_s())
        elif plan.is_rate(limit) and self.table.words[share.at + 3]:
            width_s = windows.width_s(limit.window)
            own_s = windows.free_after_s(self.table, share.at, 1, width_s, now_s)
            after_s = min(after_s, own_s) if short.elsewhere else own_s
        return Refusal(limit, after_s, too_large=False, away=short.away)
