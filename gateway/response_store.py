"""Responses that are kept: a bounded SQLite file that the workers of one host share.

It holds what callers of `/v1/responses` asked for and got, so that they can read it later, go on
from it, or leave it to run. Nothing is kept for a caller who sends `"store": false`. What is older
than the time to live goes first, then what is oldest. Several hosts have a file each: a response is
found on the host that made it.

Every call may wait for the disk: call it in a thread.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

FOLDER_NAME = "responses"
FILE_NAME = "responses.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY,
    project_id TEXT NOT NULL,
    previous_id TEXT,
    created_s REAL NOT NULL,
    beat_s REAL NOT NULL,
    status TEXT NOT NULL,
    items BLOB NOT NULL,
    response BLOB NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS responses_by_age ON responses (created_s);
"""
_EVICTED_AT_ONCE = 16
_LONGEST_CHAIN = 1000
_BUSY_S = 2.0


@dataclass(frozen=True, slots=True)
class Kept:
    """A response; `items` and `response` are JSON, times Unix seconds.

    `beat_s` is when the worker of one that is in progress last said that it lives.
    """

    id: str
    project_id: str
    previous_id: str | None
    created_s: float
    beat_s: float
    status: str
    items: bytes
    response: bytes


class ResponseStore:
    """The store, as one worker uses it. The file is made with the first response.

    Args:
        data_dir: The data folder.
        max_bytes: Of all responses; the oldest are dropped for new ones.
        ttl_s: How long one is kept.
    """

    def __init__(self, data_dir: Path, max_bytes: int, ttl_s: float) -> None:
        self._folder = data_dir / FOLDER_NAME
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def put(self, kept: Kept) -> None:
        """Keep a new response.

        Raises sqlite3.Error or OSError: the disk is full, or the file is damaged.
        """
        values = (
            kept.id, kept.project_id, kept.previous_id, kept.created_s, kept.beat_s,
            kept.status, kept.items, kept.response,
        )  # fmt: skip
        with self._lock, self._open() as database:
            database.execute(
                "INSERT INTO responses (id, project_id, previous_id, created_s, beat_s, status, "
                "items, response) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                values,
            )
            self._evict(database, kept.created_s)

    def end(self, id_: str, status: str, response: bytes) -> None:
        """The end of one that was in progress; nothing when it was cancelled or deleted."""
        with self._lock, self._open() as database:
            database.execute(
                "UPDATE responses SET status = ?, response = ? WHERE id = ? AND status = ?",
                (status, response, id_, "in_progress"),
            )

    def get(self, project_id: str, id_: str) -> Kept | None:
        """A response of a project; None when it is not kept, or not any more."""
        with self._lock, self._open() as database:
            row = database.execute(
                "SELECT id, project_id, previous_id, created_s, beat_s, status, items, response "
                "FROM responses WHERE id = ? AND project_id = ?",
                (id_, project_id),
            ).fetchone()
        return Kept(*row) if row else None

    def chain(self, project_id: str, id_: str) -> list[Kept] | None:
        """A response and those it goes on from, the first one first.

        None when one of them is not kept any more.
        """
        found: list[Kept] = []
        next_id: str | None = id_
        while next_id is not None and len(found) < _LONGEST_CHAIN:
            kept = self.get(project_id, next_id)
            if kept is None:
                return None
            found.append(kept)
            next_id = kept.previous_id
        return found[::-1]

    def delete(self, project_id: str, id_: str) -> bool:
        """Delete a response; whether there was one."""
        with self._lock, self._open() as database:
            return bool(
                database.execute(
                    "DELETE FROM responses WHERE id = ? AND project_id = ?", (id_, project_id)
                ).rowcount
            )

    def beat(self, ids: Collection[str], now_s: float) -> set[str]:
        """Say that these are still worked on; those of them that still may be."""
        marks = ", ".join("?" * len(ids))
        with self._lock, self._open() as database:
            rows = database.execute(
                f"UPDATE responses SET beat_s = ? WHERE status = 'in_progress' "  # noqa: S608
                f"AND id IN ({marks}) RETURNING id",
                (now_s, *ids),
            ).fetchall()
        return {str(row[0]) for row in rows}

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection:
        """The connection; as a context manager it is one transaction."""
        if self._connection is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            connection = sqlite3.connect(
                self._folder / FILE_NAME, timeout=_BUSY_S, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            # What is deleted is not to be found in the file's free pages.
            connection.execute("PRAGMA secure_delete = ON")
            connection.executescript(_SCHEMA)
            self._connection = connection
        return self._connection

    def _evict(self, database: sqlite3.Connection, now_s: float) -> None:
        database.execute("DELETE FROM responses WHERE created_s < ?", (now_s - self._ttl_s,))
        while _used_bytes(database) > self._max_bytes:
            dropped = database.execute(
                "DELETE FROM responses WHERE id IN "
                "(SELECT id FROM responses ORDER BY created_s LIMIT ?)",
                (_EVICTED_AT_ONCE,),
            ).rowcount
            if not dropped:
                return


def _used_bytes(database: sqlite3.Connection) -> int:
    """The pages in use: what is free in the file is used again."""
    pages, free_pages, page_bytes = (
        int(database.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free_pages) * page_bytes
