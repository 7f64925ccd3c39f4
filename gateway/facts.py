"""Writes request facts to bounded segments on disk, off the request path.

A request only appends to a list; one thread writes the list out, seals the segment every second
and counts what could not be kept. See `core.contracts.request_fact` for the files.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
from collections import deque
from pathlib import Path
from typing import BinaryIO

import msgspec

from core.contracts.request_fact import FOLDER_NAME, OPEN_SUFFIX, SEALED_SUFFIX, RequestFact
from core.kernel import clock, ids

log = logging.getLogger(__name__)

_FLUSH_S = 0.2
_SEAL_S = 0.6
_SEAL_BYTES = 4_000_000
_MAX_QUEUED = 50_000
_DROPPED_FILE = "dropped.json"


class FactWriter:
    """The one writer of a gateway worker."""

    def __init__(self, data_dir: Path, max_bytes: int) -> None:
        self.worker_id = ids.new_id("gww")
        self.dropped = 0
        self._folder = data_dir / FOLDER_NAME
        self._max_bytes = max_bytes
        self._queue: deque[RequestFact] = deque()
        self._encoder = msgspec.json.Encoder()
        self._file: BinaryIO | None = None
        self._path: Path | None = None
        self._opened_s = 0.0
        self._written = 0
        self._dropped_saved = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="facts", daemon=True)

    def start(self) -> None:
        """Seal what dead workers left, then begin."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.dropped = self._dropped_saved = self._read_dropped()
        for path in self._folder.glob(f"*{OPEN_SUFFIX}"):
            seal_orphan(path)
        self._thread.start()

    def add(self, fact: RequestFact) -> None:
        """Keep a fact; costs an append."""
        if len(self._queue) >= _MAX_QUEUED:
            self.dropped += 1
            return
        self._queue.append(fact)

    def stop(self) -> None:
        """Write and seal what is left."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def _loop(self) -> None:
        while not self._stopping.wait(_FLUSH_S):
            self.flush()
        self.flush()
        self._seal()

    def flush(self) -> None:
        """Write the queue out; seal when it is time. A full disk drops, counts and goes on."""
        batch = [self._queue.popleft() for _ in range(len(self._queue))]
        if batch:
            self._write(batch)
        if self._file is not None and (
            clock.monotonic_s() - self._opened_s > _SEAL_S or self._written > _SEAL_BYTES
        ):
            self._seal()
        if self.dropped != self._dropped_saved:
            self._save_dropped()

    def _write(self, batch: list[RequestFact]) -> None:
        lines = b"".join(self._encoder.encode(fact) + b"\n" for fact in batch)
        try:
            if self._file is None:
                self._open()
            assert self._file is not None
            self._file.write(lines)
            self._file.flush()
            self._written += len(lines)
        except OSError as error:
            self.dropped += len(batch)
            log.error("%d request facts are dropped: %s", len(batch), error.strerror)
            self._cut_back()

    def _open(self) -> None:
        used = sum(path.stat().st_size for path in self._folder.glob(f"*{SEALED_SUFFIX}"))
        if used > self._max_bytes:
            raise OSError(28, f"{used} bytes of facts wait already, {self._max_bytes} are allowed")
        path = self._folder / f"{ids.new_id('seg')}{OPEN_SUFFIX}"
        self._file = path.open("ab", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._path, self._written, self._opened_s = path, 0, clock.monotonic_s()

    def _cut_back(self) -> None:
        """Remove a line that was only written in part."""
        if self._file is None or self._path is None:
            return
        try:
            os.ftruncate(self._file.fileno(), self._written)
        except OSError as error:
            log.error("the segment %s keeps a torn line: %s", self._path.name, error.strerror)

    def _seal(self) -> None:
        if self._file is None or self._path is None:
            return
        try:
            if self._written:
                self._path.rename(self._path.with_suffix(SEALED_SUFFIX))
            else:
                self._path.unlink()
        except OSError as error:
            log.error("the segment %s is not sealed yet: %s", self._path.name, error.strerror)
            return
        self._file.close()
        self._file = self._path = None

    def _read_dropped(self) -> int:
        try:
            content = (self._folder / _DROPPED_FILE).read_bytes()
            return int(msgspec.json.decode(content, type=dict[str, int])["dropped"])
        except (OSError, msgspec.DecodeError, KeyError):
            return 0

    def _save_dropped(self) -> None:
        try:
            partial = self._folder / f".{_DROPPED_FILE}"
            partial.write_bytes(msgspec.json.encode({"dropped": self.dropped}))
            partial.replace(self._folder / _DROPPED_FILE)
            self._dropped_saved = self.dropped
        except OSError:
            return  # tried again with the next flush


def seal_orphan(path: Path) -> None:
    """Seal a segment whose worker is dead; its torn last line is dropped."""
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # its worker lives
        content = file.read()
        whole = content.rfind(b"\n") + 1
        file.truncate(whole)
        if whole:
            path.rename(path.with_suffix(SEALED_SUFFIX))
        else:
            path.unlink()
