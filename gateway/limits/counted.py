"""Every limit that a host has counted something of, for the worker that begins to speak for it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from core.contracts.route_table import Limit
from gateway.limits import plan
from gateway.limits.leases import CONCURRENT, Want
from gateway.limits.shared_table import SharedTable


def counted(table: SharedTable, limits: Iterable[Limit]) -> list[Want]:
    """The limits with something used or held, as if a worker had asked for each.

    What is held of limits that are no more is given up.
    """
    by_hash = {plan.hash_of_limit(limit): limit for limit in limits}
    found: list[Want] = []
    for is_cell, index, hash_, lease in _records(table):
        limit = by_hash.get(hash_)
        if limit is None:
            table.words[lease] = 0
            continue
        counts = plan.counts_of(limit)
        if (counts >= CONCURRENT) == is_cell:
            shard, _ = table.lock_of(limit.project_id)
            found.append(Want(counts, limit.window, shard, index, -1, plan.most_of(limit)))
    return found


def _records(table: SharedTable) -> Iterator[tuple[bool, int, int, int]]:
    """Kind, number, hash and lease of each record in use."""
    for is_cell, at_of, lease_of in (
        (False, table.window_at, table.lease_of_window),
        (True, table.cell_at, table.lease_of_cell),
    ):
        first, step = at_of(0), at_of(1) - at_of(0)
        # Read, not mapped: the pages of every record would count as this worker's memory.
        content = os.pread(table.file, table.records * step * 8, first * 8)
        words = memoryview(content).cast("q")
        for index, hash_ in enumerate(words[::step].tolist()):
            at = index * step
            if hash_ and (words[at + 3] or not is_cell):
                yield is_cell, index, hash_, lease_of(index)
