"""The counters of one host, in a file that every worker of a data folder maps.

The file stands in `<data folder>/limits`. Its size is fixed when it is made and its disk space is
taken at once, so memory cannot grow and a full disk cannot break a worker later. It outlives
workers and restarts: a month's budget is not forgotten.

    header        generation, size, what hosts share
    windows       one record of 512 bytes a rate limit: a ring of 116 buckets
    cells         one record of 64 bytes a budget or a limit of concurrent requests
    leases        what this host may admit, 64 bytes for each window and cell, when hosts share
                  limits (`gateway.limits.leases`)
    slots         by which records are found (`gateway.limits.record_index`)
    ledgers       what each worker holds now (`gateway.limits.ledger`)

The first words of a window's and of a cell's record say the same things:

    0  hash of what it counts            3  all that counts: with the newest bucket, or with
    1  the bucket or period it is in        what is held
    2  earlier buckets, or what is spent 4  when another limit may have it

Records are found by the hash of what they count, so workers agree on them without a word.

Atomicity: `flock` on one of 16 lock files, chosen by the project. The kernel frees it when its
holder dies, so no worker can be stuck behind a dead one, and it costs 0.7 µs. A worker that is the
only one may keep its locks for a turn of its event loop. What a worker that dies inside leaves half
done is put right by others: see `windows` and `ledger`.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from core.kernel import clock
from gateway.limits.record_index import RecordIndex

FOLDER_NAME = "limits"
SHARDS = 16
MAX_WORKERS = 32
ENTRIES = 1024
ENTRY_BYTES = 256
BUCKETS = 116
RECORDS = 40_000

MAGIC = 0x42554C33  # "BUL3": the layout below
_HEADER_BYTES = 4096
_WINDOW_BYTES = 512
_CELL_BYTES = 64
_LEASE_BYTES = 64
_SLOT_BYTES = 4
_STUCK_S = 1.0
_YIELDS = 50

# Where things stand in the header, in words of 8 bytes.
HOST_ID = 2
GENERATION = 3
LEASED_UNTIL_MS = 4
HOSTS = 5
IN_TOUCH = 6
EXCHANGES = 7
_WINDOWS_HEAD = 8  # and one word more
_CELLS_HEAD = 10
ALONE = 12  # 1 and the number of the worker that is the only one; 0 while others may live
LEDGERS_USED = 64  # and one word more for each worker

_EXCLUSIVE_NOW = fcntl.LOCK_EX | fcntl.LOCK_NB


class Stuck(Exception):
    """A lock was not given up in time: its holder lives and stands still."""


class SharedTable:
    """The mapped file. For one thread of a process: two threads would share its locks.

    Args:
        folder: Where the file and the locks are; made when missing.
        records: How many rate limits, and how many other limits, have room.

    Attributes:
        words: The file as signed words of 8 bytes.
        set_word: Writes one of them.
        counts: The file as unsigned words of 4 bytes.
        content: The file as bytes.
        file: Its descriptor.
        kept: The locks that this process has until `give_up`.

    Raises OSError when the disk has no room.
    """

    def __init__(self, folder: Path, records: int = RECORDS) -> None:
        self.folder = folder
        self.kept: set[int] = set()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._locks = [_open(folder / f"shard.{number:02d}.lock") for number in range(SHARDS)]
        with self.all_locked():
            self.file = self._made(records)
        self._lay_out(mmap.mmap(self.file, os.fstat(self.file).st_size))

    def _lay_out(self, mapped: mmap.mmap) -> None:
        self._map = mapped
        self.content = memoryview(self._map)
        self.words = self.content.cast("q")
        self.set_word = self.words.__setitem__
        self.counts = self.content.cast("I")
        self.records = self.words[1]
        self._cells_at = _HEADER_BYTES + self.records * _WINDOW_BYTES
        self._leases_at = self._cells_at + self.records * _CELL_BYTES
        slots_at = self._leases_at + 2 * self.records * _LEASE_BYTES
        self._ledgers_at = slots_at + 2 * self.records * 2 * _SLOT_BYTES
        views = (self.words, self.counts)
        self._windows = RecordIndex(
            *(*views, _WINDOWS_HEAD, slots_at // 4, self.records),
            self.window_at, self._clear_window,
        )  # fmt: skip
        self._cells = RecordIndex(
            *(*views, _CELLS_HEAD, slots_at // 4 + 2 * self.records, self.records),
            self.cell_at, self._clear_cell,
        )  # fmt: skip

    def _made(self, records: int) -> int:
        path = self.folder / "table.bin"
        of_a_limit = _WINDOW_BYTES + _CELL_BYTES + 2 * (_LEASE_BYTES + 2 * _SLOT_BYTES)
        size = _HEADER_BYTES + records * of_a_limit
        size += MAX_WORKERS * ENTRIES * ENTRY_BYTES
        file = _open(path)
        head = os.pread(file, 16, 0)
        if head == struct.pack("=2q", MAGIC, records) and os.fstat(file).st_size == size:
            return file
        # Another layout or size: begin anew. Workers of another release keep the old file.
        os.close(file)
        path.unlink()
        file = _open(path)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
        else:
            os.ftruncate(file, size)
        host_id = int.from_bytes(os.urandom(8), "little") >> 1
        head = struct.pack("=3q", MAGIC, records, host_id)
        os.pwrite(file, head, 0)
        return file

    def close(self) -> None:
        """Give the file and the locks back."""
        for view in (self.words, self.counts, self.content):
            view.release()
        self._map.close()
        for file in (self.file, *self._locks):
            os.close(file)

    # -- locks

    def lock_of(self, project_id: str) -> tuple[int, int]:
        """The shard of a project, and its lock to give to `acquire` and `release`."""
        shard = hash_of(project_id) % SHARDS
        return shard, self._locks[shard]

    def give_up(self) -> None:
        """Keep no lock any longer."""
        while self.kept:
            release(self.kept.pop())

    @contextmanager
    def locked(self, shard: int) -> Iterator[None]:
        """Hold one shard."""
        self.give_up()
        acquire(self._locks[shard])
        try:
            yield
        finally:
            release(self._locks[shard])

    @contextmanager
    def all_locked(self) -> Iterator[None]:
        """Hold every shard, in order; for what is rare."""
        self.give_up()
        held: list[int] = []
        try:
            for lock in self._locks:
                acquire(lock)
                held.append(lock)
            yield
        finally:
            for lock in held:
                release(lock)

    # -- records

    def place(
        self, windows: Sequence[tuple[int, float]], cells: Sequence[int]
    ) -> tuple[list[int], list[int], int]:
        """Find or make records, under every lock.

        Args:
            windows: For each rate limit its hash, and the seconds after which it is idle.
            cells: For each other limit its hash.

        Returns:
            The first word of each, and the generation in which that holds.

        Raises:
            TableFull: There is no room.
            Stuck: Another worker stands still.
        """
        with self.all_locked():
            found_windows = [self._window(key, idle_s) for key, idle_s in windows]
            found_cells = [self._cell(key) for key in cells]
            return found_windows, found_cells, self.words[GENERATION]

    def window_at(self, index: int) -> int:
        """The first word of a window's record."""
        return (_HEADER_BYTES + index * _WINDOW_BYTES) // 8

    def cell_at(self, index: int) -> int:
        """The first word of a cell's record."""
        return (self._cells_at + index * _CELL_BYTES) // 8

    def lease_of_window(self, index: int) -> int:
        """The first word of a window's lease."""
        return (self._leases_at + index * _LEASE_BYTES) // 8

    def lease_of_cell(self, index: int) -> int:
        """The first word of a cell's lease."""
        return (self._leases_at + (self.records + index) * _LEASE_BYTES) // 8

    def ledger_at(self, worker: int) -> int:
        """The first word of a worker's ledger."""
        return (self._ledgers_at + worker * ENTRIES * ENTRY_BYTES) // 8

    def index_of_window(self, at: int) -> int:
        """The number of the window whose record begins at a word."""
        return (at * 8 - _HEADER_BYTES) // _WINDOW_BYTES

    def index_of_cell(self, at: int) -> int:
        """The number of the cell whose record begins at a word."""
        return (at * 8 - self._cells_at) // _CELL_BYTES

    def _window(self, key: int, idle_s: float) -> int:
        words, now_ms = self.words, int(clock.monotonic_s() * 1000)

        def is_idle(at: int) -> bool:
            # A time far ahead was written before this machine was last started.
            return not now_ms <= words[at + 4] <= now_ms + 1000 * _FAR_S

        record = self._windows.find(key)
        if record is None:
            record = self._windows.take(key, is_idle)
        at = self.window_at(record)
        words[at + 4] = now_ms + int(idle_s * 1000)
        return at

    def _cell(self, key: int) -> int:
        words, today = self.words, int(clock.unix_s() // 86400)

        def is_idle(at: int) -> bool:
            # A day far ahead was written while the clock was wrong.
            held = words[at + 3] - words[at + 2]
            return not held and not today <= words[at + 4] <= today + _MOST_DAYS

        record = self._cells.find(key)
        if record is None:
            record = self._cells.take(key, is_idle)
        return self.cell_at(record)

    def _clear_window(self, record: int) -> None:
        self._clear(self.window_at(record), _WINDOW_BYTES, self.lease_of_window(record))

    def _clear_cell(self, record: int) -> None:
        self._clear(self.cell_at(record), _CELL_BYTES, self.lease_of_cell(record))

    def _clear(self, at: int, size_bytes: int, lease_at: int) -> None:
        self.words[GENERATION] += 1  # others may still know this record by its old limit
        self.content[at * 8 : at * 8 + size_bytes] = bytes(size_bytes)
        self.content[lease_at * 8 : lease_at * 8 + _LEASE_BYTES] = bytes(_LEASE_BYTES)


_FAR_S = 3 * 86400
_MOST_DAYS = 32


def hash_of(*parts: str) -> int:
    """A positive hash of 63 bits, the same in every process."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1 or 1


def acquire(lock: int) -> None:
    """Take a lock. Raises Stuck after a second: a stopped worker must not stop the others."""
    try:
        fcntl.flock(lock, _EXCLUSIVE_NOW)
    except BlockingIOError:
        _acquire_patiently(lock)


def _acquire_patiently(lock: int) -> None:
    # A holder needs microseconds: giving way is quicker than to sleep and be woken.
    give_up_s = clock.monotonic_s() + _STUCK_S
    tries = 0
    while True:
        os.sched_yield() if tries < _YIELDS else time.sleep(0.0002)
        tries += 1
        try:
            fcntl.flock(lock, _EXCLUSIVE_NOW)
        except BlockingIOError:
            if clock.monotonic_s() > give_up_s:
                raise Stuck("another worker holds the limits and stands still") from None
        else:
            return


def release(lock: int) -> None:
    """Give a lock up."""
    fcntl.flock(lock, fcntl.LOCK_UN)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
