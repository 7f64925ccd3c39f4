"""What each worker holds: so that a killed worker's reservations can be given back.

A worker has a place of its own in the table, held by a lock that the kernel frees when it dies,
and writes a reservation there before it touches a counter. An entry, in words:

    0  state             2  tokens held      4  shard
    1  µs of admission   3  nano-USD held    5  how many counters; from word 6: 4 bytes each

A counter is a kind in the high byte and a record's number. An entry whose worker died while it
was written or settled is not taken out of rate windows again: those stay wrong by at most that
one request, and only until it leaves the window. What is held of budgets and of concurrent
requests is always counted anew from the ledgers, so it is exact.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from core.kernel import clock
from gateway.limits import windows
from gateway.limits.shared_table import (
    ALONE,
    ENTRIES,
    ENTRY_BYTES,
    LEDGERS_USED,
    MAX_WORKERS,
    SharedTable,
)

FREE, CHANGING, HELD = 0, 1, 2
ENTRY_WORDS = ENTRY_BYTES // 8
REFS_AT = 48
MAX_REFS = (ENTRY_BYTES - REFS_AT) // 4

# Kinds of counters an entry refers to; rate windows first, in the order of `windows.PERIODS_S`.
CONCURRENT, BUDGET = 3, 4
_WIDTHS_S = tuple(windows.width_s(window) for window in windows.PERIODS_S)
_KIND_SHIFT = 24
_STEP = 32


def entry_writer(counters: int) -> Callable[..., None]:
    """Writes all of an entry but its state: into a buffer, from its second word on.

    Args:
        counters: How many it refers to. It takes µs, tokens, nano-USD, shard, how many, and them
            as bytes.
    """
    return struct.Struct(f"=5q{counters * 4}s").pack_into


def ref(kind: int, index: int) -> int:
    """A counter as an entry names it."""
    return kind << _KIND_SHIFT | index


class NoPlace(Exception):
    """Every place for a worker is taken."""


class Ledger:
    """The place of one worker in the table.

    `alone` is what the table says while this is the only worker. Raises NoPlace.
    """

    def __init__(self, table: SharedTable) -> None:
        self._table = table
        self.worker, self._lock = self._claimed()
        self.alone = self.worker + 1
        self._note_others()
        give_back(table, self.worker)  # what the last one here left
        self.free: list[int] = []

    def take(self) -> int | None:
        """A free entry's first word; None when this worker holds as much as it can."""
        if not self.free:
            self._extend()
        return self.free.pop() if self.free else None

    def _extend(self) -> None:
        # Only as many entries are ever touched, and looked at by others, as were once held.
        table, used = self._table, self._table.words[LEDGERS_USED + self.worker]
        more = min(_STEP, ENTRIES - used)
        table.words[LEDGERS_USED + self.worker] = used + more
        first = table.ledger_at(self.worker) + used * ENTRY_WORDS
        self.free.extend(first + n * ENTRY_WORDS for n in reversed(range(more)))

    def _claimed(self) -> tuple[int, int]:
        for worker in range(MAX_WORKERS):
            lock = _lock_if_dead(self._table, worker)
            if lock is not None:
                return worker, lock
        raise NoPlace(f"{MAX_WORKERS} gateway workers run on this data folder already")

    def look_around(self) -> None:
        """Find out when this worker has become the only one; for now and then."""
        if self._table.words[ALONE] != self.alone and not self._others_live():
            self._note_others()

    def _note_others(self) -> None:
        # A worker writes this when it comes, so that no other one goes on as if it were alone.
        with self._table.all_locked():
            self._table.words[ALONE] = 0 if self._others_live() else self.alone

    def _others_live(self) -> bool:
        for worker in range(MAX_WORKERS):
            if worker == self.worker or not _lock_path(self._table, worker).exists():
                continue
            lock = _lock_if_dead(self._table, worker)
            if lock is None:
                return True
            os.close(lock)
        return False

    def expire(self, admitted_before_us: int) -> int:
        """Give back this worker's own reservations of before a moment; how many there were."""
        stale = [
            at
            for at in _entries(self._table, self.worker)
            if self._table.words[at + 1] < admitted_before_us
        ]
        _give_back(self._table, stale)
        self.free.extend(stale)
        return len(stale)

    def close(self) -> None:
        """Give the place back."""
        os.close(self._lock)


def give_back_of_dead(table: SharedTable, own: int) -> int:
    """Give back what dead workers held; how many reservations there were."""
    given = 0
    for worker in range(MAX_WORKERS):
        if worker == own or not table.words[LEDGERS_USED + worker]:
            continue
        lock = _lock_if_dead(table, worker)
        if lock is not None:
            given += give_back(table, worker)
            os.close(lock)
    return given


def give_back(table: SharedTable, worker: int) -> int:
    """Give back all that a worker holds; how many reservations there were."""
    entries = list(_entries(table, worker))
    _give_back(table, entries)
    table.words[LEDGERS_USED + worker] = 0
    return len(entries)


def held_by_cells(table: SharedTable, cells: set[int]) -> dict[int, int]:
    """What all ledgers together hold of some cells: requests, or nano-USD.

    Args:
        table: The table; the shard of the cells must be locked.
        cells: Counters as entries name them.
    """
    held = dict.fromkeys(cells, 0)
    for worker in range(MAX_WORKERS):
        for at in _entries(table, worker):
            for counter in _refs(table, at):
                if counter in held:
                    budget = counter >> _KIND_SHIFT == BUDGET
                    held[counter] += table.words[at + 3] if budget else 1
    return held


def _give_back(table: SharedTable, entries: list[int]) -> None:
    by_shard: dict[int, list[int]] = {}
    for at in entries:
        by_shard.setdefault(table.words[at + 4], []).append(at)
    for shard, of_shard in by_shard.items():
        with table.locked(shard):
            cells: set[int] = set()
            for at in of_shard:
                cells |= _free(table, at)
            for counter, amount in held_by_cells(table, cells).items():
                index = counter & (1 << _KIND_SHIFT) - 1
                at = table.cell_at(index)
                table.words[at + 3] = table.words[at + 2] + amount


def _free(table: SharedTable, at: int) -> set[int]:
    """Free an entry and take its tokens out of rate windows; the cells to count anew."""
    words = table.words
    state, admitted_us, tokens = words[at], words[at + 1], words[at + 2]
    counters = list(_refs(table, at))
    words[at] = FREE
    cells = {counter for counter in counters if counter >> _KIND_SHIFT >= CONCURRENT}
    if state == HELD:
        for counter in counters:
            if counter in cells:
                continue
            index = counter & (1 << _KIND_SHIFT) - 1
            bucket = int(admitted_us / 1e6 / _WIDTHS_S[counter >> _KIND_SHIFT])
            windows.add(table, table.window_at(index), bucket, -tokens)
    return cells


def _entries(table: SharedTable, worker: int) -> Iterator[int]:
    first = table.ledger_at(worker)
    used = table.words[LEDGERS_USED + worker]
    states = table.words[first : first + used * ENTRY_WORDS : ENTRY_WORDS]
    return (first + n * ENTRY_WORDS for n, state in enumerate(states) if state)


def _refs(table: SharedTable, at: int) -> memoryview:
    first = at * 2 + REFS_AT // 4
    return table.counts[first : first + table.words[at + 5]]


def _lock_if_dead(table: SharedTable, worker: int) -> int | None:
    lock = os.open(_lock_path(table, worker), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _lock_path(table: SharedTable, worker: int) -> Path:
    return table.folder / f"worker.{worker:02d}.lock"


def now_us() -> int:
    """Microseconds on the clock of admissions."""
    return int(clock.monotonic_s() * 1e6)
