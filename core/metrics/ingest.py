"""Ingestion: sealed segments go into the store once each, then their files go.

The rows of a segment and its id are written in one transaction, then the file is deleted. A
process killed between the two finds the id in the store at its next start, and only deletes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from core.kernel import clock
from core.kernel.errors import Unavailable
from core.kernel.settings import settings
from core.metrics import segments, store
from core.metrics.adapters.duckdb_store import FILE_NAME, DuckDbStore
from core.metrics.schemas import Segment
from core.metrics.store import WritableStore
from core.prices.schemas import THIS_MACHINE

POLL_S = 0.4
_UPTIME_FLUSH_S = 15.0
_BATCH_BYTES = 16 * 1024 * 1024
_OPEN_TRIES = 50

_log = logging.getLogger(__name__)


def ingest_once(metrics: WritableStore, data_dir: Path) -> int:
    """Ingest every sealed segment on disk; the number of rows added."""
    waiting = segments.sealed(data_dir)
    if not waiting:
        return 0
    known = metrics.known_segments([segment.id for segment in waiting])
    for segment in waiting:
        if segment.id in known:
            segments.finish(segment, known[segment.id])
    fresh = [segment for segment in waiting if segment.id not in known]
    return sum(_ingest_batch(metrics, batch) for batch in _batches(fresh))


def _batches(fresh: list[segments.SealedFile]) -> Iterator[list[segments.SealedFile]]:
    batch: list[segments.SealedFile] = []
    size_bytes = 0
    for segment in fresh:
        batch.append(segment)
        size_bytes += segment.size_bytes
        if size_bytes >= _BATCH_BYTES:
            yield batch
            batch, size_bytes = [], 0
    if batch:
        yield batch


def _ingest_batch(metrics: WritableStore, batch: list[segments.SealedFile]) -> int:
    read = [segments.read(file) for file in batch]
    try:
        added = metrics.add_segments(read)
    except (ValueError, OverflowError) as error:  # a value that no column can hold
        if len(batch) > 1:  # one bad segment must not keep the others out
            return sum(_ingest_batch(metrics, [file]) for file in batch)
        _log.warning("segment %s cannot be stored: %s", batch[0].id, error)
        read = [Segment(batch[0].id, [], read[0].damaged_lines + len(read[0].facts))]
        added = metrics.add_segments(read)
    for file, segment in zip(batch, read, strict=True):
        if segment.damaged_lines:
            _log.warning("segment %s has %d damaged lines", file.id, segment.damaged_lines)
        segments.finish(file, segment.damaged_lines)
    return added


def open_store(data_dir: Path) -> WritableStore:
    """Open the store's file. Unavailable when another process has it."""
    return DuckDbStore(data_dir / FILE_NAME)


def _open_patiently(data_dir: Path) -> WritableStore:
    # A command may have the file for the length of its own call.
    for _ in range(_OPEN_TRIES):
        try:
            return open_store(data_dir)
        except Unavailable:
            time.sleep(0.1)
    return open_store(data_dir)


class Ingester:
    """The thread that owns the store for as long as the app runs.

    It also keeps the record of uptime that the cost of the machine is computed from.
    """

    def __init__(self, data_dir: Path | None = None, *, cluster_id: str = THIS_MACHINE) -> None:
        """Prepare; `data_dir` is the settings' by default."""
        self._data_dir = data_dir or settings().data_dir
        self._cluster_id = cluster_id
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._up_s: dict[int, float] = defaultdict(float)
        self._counted_until_s = 0.0
        self._flushed_s = 0.0

    def start(self) -> None:
        """Open the store and begin. Unavailable when another process keeps the file."""
        opened = _open_patiently(self._data_dir)
        store.set_writer(opened)
        self._stopping.clear()
        self._counted_until_s = self._flushed_s = clock.monotonic_s()
        self._thread = threading.Thread(
            target=self._run, args=(opened,), name="metrics-ingester", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ingest what is there, then close the store."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=30)
            self._thread = None

    def _run(self, opened: WritableStore) -> None:
        failing = False
        while not self._stopping.wait(POLL_S):
            failing = self._tick(opened, failing)
        self._tick(opened, failing, flush=True)
        store.set_writer(None)
        opened.close()

    def _tick(self, opened: WritableStore, failing: bool, *, flush: bool = False) -> bool:
        try:
            ingest_once(opened, self._data_dir)
            self._count_uptime(opened, flush=flush)
        except Exception:  # noqa: BLE001 a full disk must not end ingestion: the next tick retries
            if not failing:
                _log.exception("request facts cannot be ingested; they wait on disk")
            return True
        return False

    def _count_uptime(self, opened: WritableStore, *, flush: bool) -> None:
        now_s = clock.monotonic_s()
        self._up_s[int(clock.unix_s() // 60)] += now_s - self._counted_until_s
        self._counted_until_s = now_s
        if flush or now_s - self._flushed_s >= _UPTIME_FLUSH_S:
            opened.add_uptime(self._cluster_id, self._up_s)
            self._up_s.clear()
            self._flushed_s = now_s
