"""What is used of limits now, for who looks on: without a lock, and without writing anything."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from core.contracts.route_table import Limit
from core.kernel import clock
from gateway.limits import plan, windows
from gateway.limits.shared_table import BUCKETS, FOLDER_NAME, MAGIC, SharedTable

_DAY_S = 86400


def used_now(data_dir: Path, limits: Iterable[Limit]) -> list[float | None]:
    """What this host has used of each limit, with what requests in flight hold of it.

    Args:
        data_dir: The data folder that the gateway's workers share.
        limits: Of any projects.

    Returns:
        Requests, tokens or USD for each limit; 0 for one that no request has met lately. None
        for all while no gateway of this release has counted anything here.
    """
    asked = list(limits)
    try:
        reader = _Reader(data_dir / FOLDER_NAME)
    except (OSError, ValueError):
        return [None] * len(asked)
    with closing(reader):
        return [reader.used(limit) for limit in asked]


class _Reader(SharedTable):
    """The table as others write it. Raises OSError, and ValueError for another layout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._locks = []
        self.file = os.open(folder / "table.bin", os.O_RDONLY | os.O_CLOEXEC)
        try:
            mapped = mmap.mmap(self.file, 0, access=mmap.ACCESS_READ)
            if int.from_bytes(mapped[:8], "little") != MAGIC:
                raise ValueError("the table has another layout")
        except ValueError:
            os.close(self.file)
            raise
        self._lay_out(mapped)

    def used(self, limit: Limit) -> float:
        """Requests, tokens or USD."""
        key = plan.hash_of_limit(limit)
        if limit.metric in ("requests", "tokens"):
            record = self._windows.find(key)
            return 0 if record is None else self._in_window(self.window_at(record), limit.window)
        record = self._cells.find(key)
        if record is None:
            return 0
        at = self.cell_at(record)
        used = self.words[at + 3]
        if limit.metric == "concurrent":
            return used
        if not _is_of_now(self.words[at + 1], limit.window):
            used -= self.words[at + 2]
        return used / plan.NANO

    def _in_window(self, at: int, window: str) -> int:
        newest = self.words[at + 1]
        now = int(clock.monotonic_s() / windows.width_s(window))
        if now - newest <= -BUCKETS:
            return 0  # counted before the machine was last started
        oldest = max(now, newest) - BUCKETS + 1
        first = at * 2 + windows.HEADER_COUNTS
        before = sum(self.counts[first + bucket % BUCKETS] for bucket in range(oldest, newest))
        of_newest = self.words[at + 3] - self.words[at + 2]
        return before + (of_newest if newest >= oldest else 0)


def _is_of_now(period: int, window: str) -> bool:
    """Whether a budget's count is of this day or month, or the next: the clock was set back."""
    now_unix_s = clock.unix_s()
    if window == "month":
        moment = time.gmtime(now_unix_s)
        return period - (moment.tm_year * 12 + moment.tm_mon - 1) in (0, 1)
    return period - int(now_unix_s // _DAY_S) in (0, 1)
