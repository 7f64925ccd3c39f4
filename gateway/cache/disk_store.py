"""Kept answers of one host: a SQLite file that its workers share, bounded for each project.

The least recently used answers of a project go first. One thread reads and one writes, so that the
event loop never waits for the disk and a reader never for a writer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from core.contracts.response_cache import FILE_NAME, FOLDER_NAME
from core.contracts.route_table import Cache
from core.kernel import clock
from gateway.cache.entries import CacheFailed, Entry, packed, unpacked

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

# The sums are kept by the file itself, so that no worker has to add them up.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY,
    project_id TEXT NOT NULL,
    generation INTEGER NOT NULL,
    created_s REAL NOT NULL,
    used_s REAL NOT NULL,
    content BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS answers_by_use ON answers (project_id, used_s);
CREATE INDEX IF NOT EXISTS answers_by_age ON answers (project_id, generation, created_s);
CREATE TABLE IF NOT EXISTS used (
    project_id TEXT PRIMARY KEY, answers INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON answers BEGIN
    INSERT INTO used VALUES (new.project_id, 1, length(new.content)) ON CONFLICT DO UPDATE
        SET answers = answers + 1, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON answers BEGIN
    UPDATE used SET answers = answers - 1, bytes = bytes - length(old.content)
        WHERE project_id = old.project_id;
END;
"""
_BUSY_S = 2.0
_IN_TIME_S = 0.25
_MAX_WAITING_BYTES = 16_000_000
# When an answer was used last is written down once in so many seconds.
_TOUCH_S = 30.0
_LOG_EVERY_S = 60.0


class DiskStore:
    """The store, as one worker uses it. The file is made with the first answer.

    Args:
        data_dir: The data folder.
    """

    def __init__(self, data_dir: Path) -> None:
        self.dropped = 0
        self._folder = data_dir / FOLDER_NAME
        self._reader: ThreadPoolExecutor | None = None
        self._writer: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        # Who makes it a file with a log does so alone: SQLite waits for nobody there.
        self._opening = threading.Lock()
        self._logged_s = float("-inf")

    async def get(self, project_id: str, key: bytes, cache: Cache) -> Entry | None:
        """See `AnswerStore`."""
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, "cache-reader")
        asked = asyncio.get_running_loop().run_in_executor(
            self._reader, self._read, project_id, key
        )
        try:
            # Not `wait_for`, which can lose a cancellation.
            async with asyncio.timeout(_IN_TIME_S):
                found = await asked
        except (sqlite3.Error, OSError, TimeoutError) as error:
            raise CacheFailed(str(error) or "the disk does not answer in time") from None
        if found is None:
            return None
        content, used_s = found
        entry = unpacked(content)
        if entry.age_s >= cache.ttl_s:
            return None
        if clock.unix_s() - used_s > _TOUCH_S:
            self._write(0, lambda database: _touch(database, key))
        return entry

    def put(self, project_id: str, key: bytes, cache: Cache, entry: Entry) -> None:
        """See `AnswerStore`."""

        def keep(database: sqlite3.Connection) -> None:
            content = packed(entry)
            if len(content) > cache.max_bytes:
                raise ValueError("it is larger than all that its project may keep")
            _put(database, project_id, key, cache, content, entry.created_unix_s)

        self._write(len(entry.body), keep)

    def use(self, caches: Mapping[str, Cache]) -> None:
        """See `AnswerStore`."""
        if (self._folder / FILE_NAME).exists():
            known = dict(caches)
            self._write(0, lambda database: _delete_old(database, known))

    async def close(self) -> None:
        """See `AnswerStore`."""
        pools = [pool for pool in (self._reader, self._writer) if pool is not None]
        for pool in pools:
            await asyncio.to_thread(pool.shutdown)
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def _read(self, project_id: str, key: bytes) -> tuple[bytes, float] | None:
        if not (self._folder / FILE_NAME).exists():
            return None
        found = self._opened().execute(
            "SELECT content, used_s FROM answers WHERE key = ? AND project_id = ?",
            (key, project_id),
        )
        row: tuple[bytes, float] | None = found.fetchone()
        return row

    def _write(self, size_bytes: int, work: Callable[[sqlite3.Connection], None]) -> None:
        """Let the writing thread do this, in one transaction."""
        with self._lock:
            if self._waiting_bytes + size_bytes > _MAX_WAITING_BYTES:
                self._drop("they come faster than they can be written")
                return
            self._waiting_bytes += size_bytes
        if self._writer is None:
            self._writer = ThreadPoolExecutor(1, "cache-writer")
        self._writer.submit(self._written, size_bytes, work)

    def _written(self, size_bytes: int, work: Callable[[sqlite3.Connection], None]) -> None:
        try:
            database = self._opened()
            with database:
                work(database)
        except (sqlite3.Error, OSError, ValueError) as error:
            self._drop(str(error))
        finally:
            with self._lock:
                self._waiting_bytes -= size_bytes

    def _opened(self) -> sqlite3.Connection:
        """This thread's connection."""
        known: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if known is None:
            with self._opening:
                known = self._local.connection = self._connected()
                self._connections.append(known)
        return known

    def _connected(self) -> sqlite3.Connection:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / FILE_NAME
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        # Closed by another thread, when this one has ended.
        connection = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
        try:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            # What is deleted is not to be found in the file's free pages.
            connection.execute("PRAGMA secure_delete = ON")
            connection.executescript(_SCHEMA)
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _drop(self, why: str) -> None:
        self.dropped += 1
        now_s = clock.monotonic_s()
        if now_s - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = now_s
            log.error("%d answers could not be kept so far: %s", self.dropped, why)


def _put(
    database: sqlite3.Connection,
    project_id: str,
    key: bytes,
    cache: Cache,
    content: bytes,
    created_s: float,
) -> None:
    # Not replaced: that would not call the trigger for what goes.
    database.execute("DELETE FROM answers WHERE key = ?", (key,))
    database.execute(
        "INSERT INTO answers (key, project_id, generation, created_s, used_s, content) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (key, project_id, cache.generation, created_s, created_s, content),
    )
    number = 1  # one makes room for one, as a rule; more where the bound was lowered
    while _used_bytes(database, project_id) > cache.max_bytes:
        evicted = database.execute(
            "DELETE FROM answers WHERE key IN (SELECT key FROM answers WHERE project_id = ? "
            "AND key <> ? ORDER BY used_s LIMIT ?)",
            (project_id, key, number),
        )
        if not evicted.rowcount:
            return
        number *= 2


def _used_bytes(database: sqlite3.Connection, project_id: str) -> int:
    found = database.execute("SELECT bytes FROM used WHERE project_id = ?", (project_id,))
    return int(found.fetchone()[0])


def _touch(database: sqlite3.Connection, key: bytes) -> None:
    database.execute("UPDATE answers SET used_s = ? WHERE key = ?", (clock.unix_s(), key))


def _delete_old(database: sqlite3.Connection, caches: Mapping[str, Cache]) -> None:
    kept = [row[0] for row in database.execute("SELECT project_id FROM used")]
    for project_id in kept:
        cache = caches.get(project_id)
        if cache is None:
            database.execute("DELETE FROM answers WHERE project_id = ?", (project_id,))
            database.execute("DELETE FROM used WHERE project_id = ?", (project_id,))
            continue
        database.execute(
            "DELETE FROM answers WHERE project_id = ? AND generation < ?",
            (project_id, cache.generation),
        )
        database.execute(
            "DELETE FROM answers WHERE project_id = ? AND generation = ? AND created_s < ?",
            (project_id, cache.generation, clock.unix_s() - cache.ttl_s),
        )
    # Read to its end: it gives back a page for each row.
    database.execute("PRAGMA incremental_vacuum").fetchall()
