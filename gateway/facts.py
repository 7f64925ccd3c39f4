"""Writes request facts to bounded segments on disk, off the request path.

A request only appends to a list; one thread writes the list out, seals segments and counts what
could not be kept. See `core.contracts.request_fact` for the files. A worker holds a lock on the
segment it writes, so that another can tell a live worker's segment from a dead one's.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path

import msgspec

from core.contracts.request_fact import (
    DROPPED_FILE_NAME,
    FOLDER_NAME,
    OPEN_SUFFIX,
    SEALED_SUFFIX,
    DroppedFacts,
    RequestFact,
)
from core.kernel import clock, ids

log = logging.getLogger(__name__)

_BATCH_S = 0.1
_SEAL_BYTES = 4_000_000
_ORPHANS_S = 5.0
_MAX_QUEUED = 50_000
_MAX_BATCH = 512  # what of memory a batch took once is not given back
_LOG_EVERY_S = 10.0


class _Full(Exception):
    """A batch cannot be kept: the limit is reached, or the disk is full."""


class _Segment:
    """The segment being written, locked by this worker."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"{ids.new_id('seg')}{OPEN_SUFFIX}"
        self.opened_s = clock.monotonic_s()
        self.written_bytes = 0
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        if not _is_at(self.path, self._descriptor):
            # Between the two calls above, another worker took it for an orphan.
            os.close(self._descriptor)
            raise OSError(errno.EAGAIN, "the new segment was taken")

    def write(self, lines: bytes) -> None:
        """Append whole lines, or nothing. Raises OSError."""
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            os.ftruncate(self._descriptor, self.written_bytes)
            os.lseek(self._descriptor, self.written_bytes, os.SEEK_SET)
            raise
        self.written_bytes += len(lines)

    def seal(self) -> None:
        """Give it its final name, or remove it when it is empty. Raises OSError."""
        if self.written_bytes:
            os.fsync(self._descriptor)
            self.path.rename(self.path.with_suffix(SEALED_SUFFIX))
        else:
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Give up the lock."""
        os.close(self._descriptor)


class FactWriter:
    """The one writer of a gateway worker.

    Args:
        data_dir: The data folder.
        max_bytes: Disk space for all segments; what is over it is dropped and counted.
        seal_s: How long a segment is written before it is sealed.
    """

    def __init__(self, data_dir: Path, max_bytes: int, *, seal_s: float = 0.8) -> None:
        self.seal_s = seal_s
        self.worker_id = ids.new_id("gww")
        self.dropped = 0
        self._folder = data_dir / FOLDER_NAME
        self._max_bytes = max_bytes
        self._queue: deque[RequestFact] = deque()
        self._encoder = msgspec.json.Encoder()
        self._segment: _Segment | None = None
        self._used_bytes = 0
        self._unsaved_dropped = 0
        self._drop_lock = threading.Lock()
        self._logged_s = -_LOG_EVERY_S
        self._something = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="facts", daemon=True)

    def start(self) -> None:
        """Seal what dead workers left, then begin."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        seal_orphans(self._folder)
        self._thread.start()

    def add(self, fact: RequestFact) -> None:
        """Keep a fact; costs an append."""
        if len(self._queue) >= _MAX_QUEUED:
            self._drop(1, "the writer does not keep up")
            return
        self._queue.append(fact)
        if not self._something.is_set():
            self._something.set()

    def stop(self) -> None:
        """Write and seal what is left."""
        self._stopping.set()
        self._something.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        orphans_at_s = clock.monotonic_s() + _ORPHANS_S
        while not self._stopping.is_set():
            # Asleep while nothing happens; awake in time to seal what is open.
            self._something.wait(_BATCH_S if self._segment else _ORPHANS_S)
            self._stopping.wait(_BATCH_S)
            self._something.clear()
            self.flush()
            if clock.monotonic_s() >= orphans_at_s:
                seal_orphans(self._folder)
                orphans_at_s = clock.monotonic_s() + _ORPHANS_S
        self.flush()
        self._seal()

    def flush(self) -> None:
        """Write the queue out; seal when it is time. A full disk drops, counts and goes on."""
        for left in range(len(self._queue), 0, -_MAX_BATCH):
            self._write_or_drop([self._queue.popleft() for _ in range(min(left, _MAX_BATCH))])
        if self._is_due():
            self._seal()
        if self._unsaved_dropped:
            self._save_dropped()

    def _write_or_drop(self, batch: list[RequestFact]) -> None:
        try:
            self._write(self._encoder.encode_lines(batch))
        except (OSError, _Full) as error:
            self._drop(len(batch), str(error))

    def _is_due(self) -> bool:
        if self._segment is None:
            return False
        age_s = clock.monotonic_s() - self._segment.opened_s
        return age_s > self.seal_s or self._segment.written_bytes > _SEAL_BYTES

    def _write(self, lines: bytes) -> None:
        if self._segment is None:
            self._used_bytes = _used_bytes(self._folder)
        if self._used_bytes + len(lines) > self._max_bytes:
            raise _Full(
                f"{self._used_bytes} bytes of facts wait to be ingested, "
                f"{self._max_bytes} are allowed"
            )
        if self._segment is None:
            self._segment = _Segment(self._folder)
        self._segment.write(lines)
        self._used_bytes += len(lines)

    def _seal(self) -> None:
        if self._segment is None:
            return
        try:
            self._segment.seal()
        except FileNotFoundError:
            log.error("segment %s is gone: somebody removed it", self._segment.path.name)
            self._segment.close()
        except OSError as error:
            log.error("segment %s is not sealed yet: %s", self._segment.path.name, error)
            return
        self._segment = None

    def _drop(self, number: int, reason: str) -> None:
        with self._drop_lock:
            self.dropped += number
            self._unsaved_dropped += number
        now_s = clock.monotonic_s()
        if now_s - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = now_s
            log.error("%d request facts were dropped so far: %s", self.dropped, reason)

    def _save_dropped(self) -> None:
        """Add to the count on disk, which all workers share and which survives them."""
        number = self._unsaved_dropped
        path = self._folder / DROPPED_FILE_NAME
        try:
            # Overwritten in place: on a full disk there is no room for a second file.
            with path.open("a+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.seek(0)
                total = DroppedFacts(dropped=_dropped(file.read()).dropped + number)
                content = msgspec.json.encode(total).ljust(64) + b"\n"
                with path.open("r+b", buffering=0) as writable:
                    writable.write(content)
        except OSError:
            return  # tried again with the next flush
        with self._drop_lock:
            self._unsaved_dropped -= number


def seal_orphans(folder: Path) -> int:
    """Seal the segments whose worker is dead; returns how many. A torn last line is dropped."""
    sealed = 0
    for path in folder.glob(f"*{OPEN_SUFFIX}"):
        try:
            sealed += _seal_orphan(path)
        except FileNotFoundError:
            continue  # its worker, or another one, was faster
        except OSError as error:
            log.error("orphaned segment %s is not sealed yet: %s", path.name, error)
    return sealed


def _seal_orphan(path: Path) -> bool:
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False  # its worker lives
        if not _is_at(path, file.fileno()):
            return False
        whole_bytes = file.read().rfind(b"\n") + 1
        if not whole_bytes:
            path.unlink()
            return False
        file.truncate(whole_bytes)
        os.fsync(file.fileno())
        path.rename(path.with_suffix(SEALED_SUFFIX))
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    with suppress(FileNotFoundError):
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    return False


def _used_bytes(folder: Path) -> int:
    used = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.name.endswith((SEALED_SUFFIX, OPEN_SUFFIX)):
                    used += entry.stat().st_size
    return used


def _dropped(content: bytes) -> DroppedFacts:
    try:
        return msgspec.json.decode(content, type=DroppedFacts)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return DroppedFacts()
