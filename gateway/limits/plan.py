"""The limits that hold for one key and one model, with their places in the shared table."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from core.contracts.route_table import ApiKey, Limit
from gateway.limits import ledger, windows
from gateway.limits.leases import BUDGET, CONCURRENT, REQUESTS, TOKENS, Share
from gateway.limits.shared_table import SharedTable, hash_of

HOLD_S = 3600.0  # a reservation that is not settled in this time is given back
NANO = 1_000_000_000
_COUNTS = {"requests": REQUESTS, "tokens": TOKENS, "concurrent": CONCURRENT, "usd": BUDGET}
_WIDTHS_S = {window: windows.width_s(window) for window in windows.PERIODS_S}
_KINDS = {window: kind for kind, window in enumerate(windows.PERIODS_S)}

Scope = tuple[str, str, str]


class Window(NamedTuple):
    """A rate limit: `at` is its record's first word, `tokens` whether it counts tokens."""

    at: int
    width_s: float
    most: int
    tokens: bool
    limit: Limit


class Cell(NamedTuple):
    """A budget in nano-USD, or a limit of concurrent requests."""

    at: int
    most: int
    budget: bool
    limit: Limit


_Place = TypeVar("_Place", Window, Cell)
Known = dict[int, Window | Cell]


@dataclass(slots=True)
class Plan:
    """All limits that hold at once for a request.

    Attributes:
        estimates: Whether tokens or costs are limited, so that they must be estimated.
        refs: The counters to give back when the worker dies, as bytes of a ledger's entry.
        generation: In which the places hold.
        shares: The limits once more, as hosts share them; empty when they do not.
    """

    limits: tuple[Limit, ...]
    shard: int
    lock: int
    estimates: bool
    generation: int = -1
    windows: tuple[Window, ...] = ()
    cells: tuple[Cell, ...] = ()
    refs: bytes = b""
    shares: tuple[Share, ...] = ()


def by_scope(limits: Iterable[Limit]) -> dict[Scope, list[Limit]]:
    """The limits by project, level and subject."""
    found: dict[Scope, list[Limit]] = {}
    for limit in limits:
        found.setdefault((limit.project_id, limit.level, limit.subject), []).append(limit)
    return found


def make(
    limits: dict[Scope, list[Limit]], table: SharedTable, key: ApiKey, model: str
) -> Plan | None:
    """The plan for a key that calls a model; None when nothing limits it."""
    project_id = key.project_id
    subjects = (
        ("key", key.id), ("user", key.user_id), ("project", project_id), ("model", model)
    )  # fmt: skip
    found = tuple(
        limit
        for level, subject in subjects
        for limit in limits.get((project_id, level, subject), ())
    )
    if not found:
        return None
    if len(found) > ledger.MAX_REFS:
        raise ValueError(f"{len(found)} limits hold for key {key.id}, {ledger.MAX_REFS} can")
    shard, lock = table.lock_of(project_id)
    estimates = any(limit.metric in ("tokens", "usd") for limit in found)
    return Plan(found, shard, lock, estimates)


def place(plan: Plan, table: SharedTable, known: Known, *, shared: bool) -> None:
    """Find the records of a plan. Raises TableFull, Stuck.

    Args:
        plan: Gets its places.
        table: Where they are.
        known: What plans have in common; each is kept once.
        shared: Whether hosts share limits.
    """
    rates = [limit for limit in plan.limits if limit.metric in ("requests", "tokens")]
    others = [limit for limit in plan.limits if limit.metric in ("concurrent", "usd")]
    windows_at, cells_at, plan.generation = table.place(
        [(hash_of_limit(limit), idle_s(limit.window)) for limit in rates],
        [hash_of_limit(limit) for limit in others],
    )
    plan.windows = tuple(
        _once(known, Window(at, _WIDTHS_S[limit.window], most_of(limit), limit.metric == "tokens",
                            limit))
        for at, limit in zip(windows_at, rates, strict=True)
    )  # fmt: skip
    plan.cells = tuple(
        _once(known, Cell(at, most_of(limit), limit.metric == "usd", limit))
        for at, limit in zip(cells_at, others, strict=True)
    )
    plan.refs = _refs(plan.windows, plan.cells, table)
    if shared:
        plan.shares = _shares(plan, table)


def _once(known: Known, made: _Place) -> _Place:
    # Most limits hold for every key of a user or project: ten thousand plans refer to one object.
    if made.limit.level == "key":
        return made
    before = known.get(made.at)
    if before == made:
        return before
    known[made.at] = made
    return made


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


def _shares(plan: Plan, table: SharedTable) -> tuple[Share, ...]:
    places = [(each, table.index_of_window(each.at)) for each in plan.windows]
    of_windows = [
        _share(each, record, table.lease_of_window(record), plan.shard) for each, record in places
    ]
    cells = [(each, table.index_of_cell(each.at)) for each in plan.cells]
    of_cells = [
        _share(each, record, table.lease_of_cell(record), plan.shard) for each, record in cells
    ]
    return (*of_windows, *of_cells)


def _share(of: Window | Cell, record: int, lease: int, shard: int) -> Share:
    return Share(lease, of.at, counts_of(of.limit), of.most, of.limit, record, shard)


def _refs(rates: Sequence[Window], cells: Sequence[Cell], table: SharedTable) -> bytes:
    counters = [
        ledger.ref(_KINDS[rate.limit.window], table.index_of_window(rate.at))
        for rate in rates
        if rate.tokens
    ]
    counters += [
        ledger.ref(
            ledger.BUDGET if cell.budget else ledger.CONCURRENT, table.index_of_cell(cell.at)
        )
        for cell in cells
    ]
    return struct.pack(f"={len(counters)}I", *counters)
