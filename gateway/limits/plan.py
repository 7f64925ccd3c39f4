"""The limits that hold for one key and one model, with their places in the shared table."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from operator import itemgetter

from core.contracts.route_table import ApiKey, Limit
from gateway.limits import ledger, windows
from gateway.limits.leases import BUDGET, CONCURRENT, REQUESTS, TOKENS, Share
from gateway.limits.periods import Calendar
from gateway.limits.shared_table import MAGIC, SharedTable, hash_of

HOLD_S = 3600.0  # a reservation that is not settled in this time is given back
NANO = 1_000_000_000
# What limits count, in the order of a plan.
_COUNTS = {"requests": REQUESTS, "tokens": TOKENS, "concurrent": CONCURRENT, "usd": BUDGET}
_WIDTHS_S = {window: windows.width_s(window) for window in windows.PERIODS_S}
_KINDS = {window: kind for kind, window in enumerate(windows.PERIODS_S)}
# Where a plan's amounts stand in (1, tokens, cost).
_AMOUNTS = {"requests": 0, "tokens": 1, "concurrent": 0, "usd": 2}

Scope = tuple[str, str, str]
Kinds = tuple[tuple[str, str], ...]
Subjects = tuple[tuple[str, str], ...]
_Read = Callable[[memoryview], tuple[int, ...]]


class Shape:
    """What plans with the same kinds of limits have in common; a gateway knows a few.

    Attributes:
        amounts: From (1, tokens, cost) what each limit counts of a request, and one more.
        tokens: The numbers of the limits that count tokens.
        concurrent: Where those of requests at once stand among a plan's limits.
        budgets: Where budgets stand.
        estimates: Whether tokens or costs are limited, so that they must be estimated.
        marks: What a plan's `marks` must read, until `ends_s` on the monotonic clock, and from
            `begins_unix_s` to `ends_unix_s` on the other.
        write_entry: Writes a ledger's entry.
    """

    __slots__ = (
        "_kinds", "amounts", "begins_unix_s", "budgets", "concurrent", "ends_s", "ends_unix_s",
        "estimates", "marks", "tokens", "write_entry",
    )  # fmt: skip

    def __init__(self, kinds: Kinds) -> None:
        metrics = [metric for metric, _ in kinds]
        self._kinds = kinds
        self.amounts = itemgetter(*(_AMOUNTS[metric] for metric in metrics), 0)
        self.tokens = tuple(n for n, metric in enumerate(metrics) if metric == "tokens")
        budgets = len(metrics) - metrics.count("usd")
        self.budgets = slice(budgets, None)
        self.concurrent = slice(budgets - metrics.count("concurrent"), budgets)
        self.estimates = "tokens" in metrics or "usd" in metrics
        self.marks: tuple[int, ...] = ()
        self.ends_s = self.begins_unix_s = self.ends_unix_s = -inf
        self.write_entry = ledger.entry_writer(len(metrics) - metrics.count("requests"))

    def turn_to(self, now_s: float, calendar: Calendar) -> None:
        """Take another moment as the present."""
        self.ends_s = inf
        marks = []
        for metric, window in self._kinds:
            if metric == "usd":
                marks.append(calendar.period(window))
            elif metric == "concurrent":
                marks.append(0)
            else:
                width_s = _WIDTHS_S[window]
                marks.append(int(now_s / width_s))
                self.ends_s = min(self.ends_s, (marks[-1] + 1) * width_s)
        self.marks = (*marks, MAGIC)
        if "usd" in (metric for metric, _ in self._kinds):
            self.begins_unix_s, self.ends_unix_s = calendar.begins_unix_s, calendar.ends_unix_s
        else:
            self.begins_unix_s, self.ends_unix_s = -inf, inf


@dataclass(slots=True)
class Plan:
    """All limits that hold at once for a request.

    Attributes:
        limits: In the order of what they count: requests, tokens, requests at once, USD.
        shape: Their kinds.
        generation: In which the places hold.
        places: For each limit the word of the table that counts, word 3 of its record.
        checked: The marks of its shape that its records were last seen to have.
        counts: Reads from the table's words what counts now, with the first word behind the only
            limit: an itemgetter of a single item would give no tuple.
        most: The limits as whole numbers: requests, tokens, nano-USD; -1 for those of 0.
        refs: The counters to give back when the worker dies, as bytes of a ledger's entry.
        shares: The limits once more, as hosts share them; empty when they do not.
    """

    limits: tuple[Limit, ...]
    shape: Shape
    shard: int
    lock: int
    generation: int = -1
    places: tuple[int, ...] = ()
    checked: tuple[int, ...] = ()
    counts: _Read = tuple
    most: tuple[int, ...] = ()
    refs: bytes = b""
    shares: tuple[Share, ...] = ()


@dataclass(slots=True)
class Known:
    """What plans have in common, each kept once: there may be ten thousand plans."""

    shapes: dict[Kinds, Shape] = field(default_factory=dict)
    words: dict[int, int] = field(default_factory=dict)
    most: dict[tuple[int, ...], tuple[int, ...]] = field(default_factory=dict)


def by_scope(limits: Iterable[Limit]) -> dict[Scope, list[Limit]]:
    """The limits by project, level and subject."""
    found: dict[Scope, list[Limit]] = {}
    for limit in limits:
        found.setdefault((limit.project_id, limit.level, limit.subject), []).append(limit)
    return found


def subjects_of(key: ApiKey, model: str) -> Subjects:
    """Whose limits hold when a key calls a model."""
    return (("key", key.id), ("user", key.user_id), ("project", key.project_id), ("model", model))


def make(
    limits: dict[Scope, list[Limit]],
    table: SharedTable,
    known: Known,
    project_id: str,
    subjects: Subjects,
) -> Plan | None:
    """The plan for all limits of these subjects; None when there are none."""
    found = [
        limit
        for level, subject in subjects
        for limit in limits.get((project_id, level, subject), ())
    ]
    if not found:
        return None
    if len(found) > ledger.MAX_REFS:
        raise ValueError(f"{len(found)} limits hold for {subjects}, {ledger.MAX_REFS} can")
    found.sort(key=counts_of)
    kinds = tuple((limit.metric, limit.window) for limit in found)
    shape = known.shapes.get(kinds)
    if shape is None:
        shape = known.shapes[kinds] = Shape(kinds)
    return Plan(tuple(found), shape, *table.lock_of(project_id))


def place(plan: Plan, table: SharedTable, known: Known, *, shared: bool) -> None:
    """Find the records of a plan. Raises TableFull, Stuck.

    Args:
        plan: Gets its places.
        table: Where they are.
        known: What plans have in common.
        shared: Whether hosts share limits.
    """
    rates = [limit for limit in plan.limits if is_rate(limit)]
    others = plan.limits[len(rates) :]
    windows_at, cells_at, plan.generation = table.place(
        [(hash_of_limit(limit), idle_s(limit.window)) for limit in rates],
        [hash_of_limit(limit) for limit in others],
    )
    places = [*windows_at, *cells_at]
    plan.places = tuple(_word(known, *each) for each in zip(plan.limits, places, strict=True))
    plan.checked = ()
    # It keeps the same tuple, so that ten thousand plans have one each.
    plan.counts = itemgetter(*plan.places) if len(places) > 1 else itemgetter(*plan.places, 0)
    # A limit of 0 lets nothing through, not even what is taken to cost nothing.
    most = tuple(most_of(limit) or -1 for limit in plan.limits)
    plan.most = known.most.setdefault(most, most)
    records = [table.index_of_window(at) for at in windows_at]
    records += [table.index_of_cell(at) for at in cells_at]
    plan.refs = _refs(plan.limits, records)
    if shared:
        plan.shares = tuple(
            _share(limit, at, record, table, plan.shard)
            for limit, at, record in zip(plan.limits, places, records, strict=True)
        )


def is_rate(limit: Limit) -> bool:
    """Whether it counts in a sliding window."""
    return limit.metric in ("requests", "tokens")


def _word(known: Known, limit: Limit, at: int) -> int:
    word = at + 3
    return word if limit.level == "key" else known.words.setdefault(word, word)


def most_of(limit: Limit) -> int:
    """The limit as a whole number: requests, tokens or nano-USD."""
    if limit.metric == "usd":
        return round(limit.amount * NANO)
    return min(int(limit.amount), windows.MAX_COUNT)


def counts_of(limit: Limit) -> int:
    """What it counts, as a number of `leases`."""
    return _COUNTS[limit.metric]


def hash_of_limit(limit: Limit) -> int:
    """The same for the same thing counted, whatever the amount."""
    return hash_of(
        limit.project_id, limit.level, limit.subject, limit.metric, limit.window
    )  # fmt: skip


def idle_s(window: str) -> float:
    """After how long without a request nothing can refer to a window any more."""
    return windows.PERIODS_S[window] * 1.01 + HOLD_S


def _share(limit: Limit, at: int, record: int, table: SharedTable, shard: int) -> Share:
    lease_of = table.lease_of_window if is_rate(limit) else table.lease_of_cell
    counts, most = counts_of(limit), most_of(limit)
    return Share(lease_of(record), at, counts, most, limit, record, shard)


def _refs(limits: Iterable[Limit], records: Iterable[int]) -> bytes:
    kinds = {"concurrent": ledger.CONCURRENT, "usd": ledger.BUDGET}
    counters = [
        ledger.ref(_KINDS[limit.window] if is_rate(limit) else kinds[limit.metric], record)
        for limit, record in zip(limits, records, strict=True)
        if limit.metric != "requests"
    ]
    return struct.pack(f"={len(counters)}I", *counters)
