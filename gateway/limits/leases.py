"""What this host may admit of each limit, when several hosts share it.

All hosts together never hold more of a limit than it allows. What a host holds and has not used
it admits without a word to the others; the one worker that speaks for the host
(`gateway.limits.hosts`) takes more and gives back. A lease in the table, in words:

    0  how much of the limit this host holds, used or not
    1  a request that leaves less than this unused has more asked for, ahead of need
    2  how much was refused last     3  ms until when nobody asks for so much again
    4  ms at which another host has some free again
    5  whether it was used since it was last looked at
    6  the limit by which word 0 was given; with another one nothing is held

A worker tells what it needs through a named pipe, in messages that the kernel keeps whole.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from core.contracts.route_table import Limit
from gateway.limits.shared_table import HOSTS, IN_TOUCH, LEASED_UNTIL_MS, SharedTable

LEASE_MS = 5000  # for how long a host goes on with what it holds, without a word from Valkey
LOW, REFUSED, REFUSED_UNTIL_MS, FREE_AT_MS, TOUCHED, MOST = 1, 2, 3, 4, 5, 6
REQUESTS, TOKENS, CONCURRENT, BUDGET = range(4)
WINDOWS = ("", "minute", "hour", "day", "month")

_WANT = struct.Struct("=BBHIqq")
_READ_BYTES = _WANT.size * 1024


class Share(NamedTuple):
    """One limit of a plan as hosts share it: its lease, its counter, what it counts."""

    lease: int
    at: int
    counts: int
    most: int
    limit: Limit
    record: int
    shard: int


class Want(NamedTuple):
    """What a worker asks for: room for a request of so much, or with 0 a slice ahead of need."""

    counts: int
    window: str
    shard: int
    record: int
    size: int
    most: int


class Lacking(NamedTuple):
    """A request that is admitted once its host holds more: of which limits, and its counts."""

    wants: tuple[tuple[Share, int], ...]


class Short(NamedTuple):
    """A request that is refused: by which limit, and after how many ms it may be tried again.

    `elsewhere` says that another host has something free then; `away` that the other hosts cannot
    be asked, and that the limit says to refuse then.
    """

    share: Share
    free_in_ms: int
    elsewhere: bool = False
    away: bool = False


class Leases:
    """The leases as one worker sees them. The shard of a plan must be locked for `check`."""

    def __init__(self, table: SharedTable) -> None:
        self._table = table
        self.pipe = _open_pipe(table.folder / "wants")

    def check(
        self, shares: tuple[Share, ...], tokens: int, cost: int, now_s: float
    ) -> Lacking | Short | None:
        """Whether this host holds enough for a request, of every limit; None when it does."""
        words, now_ms = self._table.words, int(now_s * 1000)
        counted = (1, tokens, 1, cost)
        in_force = 0 <= words[LEASED_UNTIL_MS] - now_ms <= LEASE_MS
        if not in_force or not words[IN_TOUCH]:
            return self._alone(shares, counted, in_force=in_force)
        wants: list[tuple[Share, int]] = []
        for share in shares:
            lease, at, counts, most, _, _, _ = share
            used = words[at + 3]
            held = words[lease] if words[lease + MOST] == most else 0
            count = counted[counts]
            unused = held - used - count
            words[lease + TOUCHED] = 1
            if unused >= words[lease + LOW]:
                continue
            if unused >= 0:
                words[lease + LOW] = 0  # asked once
                self._send(share, 0)
                continue
            until_ms = words[lease + REFUSED_UNTIL_MS]
            if until_ms > now_ms and count >= words[lease + REFUSED]:
                free_in_ms = words[lease + FREE_AT_MS] - now_ms
                if free_in_ms > 0:
                    return Short(share, free_in_ms, elsewhere=True)
                return Short(share, until_ms - now_ms)
            wants.append((share, max(count, 1)))
        return Lacking(tuple(wants)) if wants else None

    def _alone(
        self, shares: tuple[Share, ...], counted: tuple[int, ...], *, in_force: bool
    ) -> Short | None:
        words, hosts = self._table.words, self._table.words[HOSTS]
        for share in shares:
            lease, at, counts, most, limit, _, _ = share
            used = words[at + 3]
            held = words[lease] if in_force and words[lease + MOST] == most else 0
            if limit.when_alone == "share" and hosts:
                own = most // hosts
                held = max(held, own or min(most, 1))
            elif used + counted[counts] > held:
                return Short(share, 1000, away=True)
            if used + counted[counts] > held:
                return Short(share, 1000)
        return None

    def ask(self, lacking: Lacking) -> None:
        """Ask the host's speaker for what a request lacks."""
        for share, size in lacking.wants:
            self._send(share, size)

    def _send(self, share: Share, size: int) -> None:
        want = _WANT.pack(
            share.counts, WINDOWS.index(share.limit.window), share.shard, share.record,
            size, share.most,
        )  # fmt: skip
        with suppress(BlockingIOError):  # the pipe is full: it is asked again
            os.write(self.pipe, want)

    def wants(self) -> Iterator[Want]:
        """What workers asked for since; for the speaker."""
        while True:
            try:
                content = os.read(self.pipe, _READ_BYTES)
            except BlockingIOError:
                return
            for counts, window, shard, record, size, most in _WANT.iter_unpack(content):
                yield Want(counts, WINDOWS[window], shard, record, size, most)

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.pipe)


def _open_pipe(path: Path) -> int:
    with suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    # Open for both, so that it is never at its end, and its messages outlive a killed worker.
    return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
