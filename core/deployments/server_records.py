"""What model servers write about themselves, so that whoever comes next can find them.

One small file a server, `<data folder>/run/servers/<replica id>.json`. A process is only
believed to be the recorded one when its start time is the same: pids are used again.
The supervisor imports this module: it must not reach SQLAlchemy.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

_TERM_GRACE_S = 8.0


class ServerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A model server; `port` is 0 while it loads its model."""

    replica_id: str
    deployment_id: str
    pid: int
    created: float
    port: int = 0


def folder(data_dir: Path) -> Path:
    """Where the records are."""
    return data_dir / "run" / "servers"


def write(data_dir: Path, record: ServerRecord) -> None:
    """Write a record, atomically."""
    path = folder(data_dir) / f"{record.replica_id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(msgspec.json.encode(record))
    partial.replace(path)


def read_all(data_dir: Path) -> dict[str, ServerRecord]:
    """Every record, by replica; a damaged one is left out."""
    found = {}
    for path in folder(data_dir).glob("*.json"):
        with suppress(msgspec.DecodeError, FileNotFoundError):
            record = msgspec.json.decode(path.read_bytes(), type=ServerRecord)
            found[record.replica_id] = record
    return found


def remove(data_dir: Path, replica_id: str) -> None:
    """Forget a server that has ended."""
    (folder(data_dir) / f"{replica_id}.json").unlink(missing_ok=True)


def process(record: ServerRecord) -> psutil.Process | None:
    """The running process of a record; None when it has ended."""
    try:
        found = psutil.Process(record.pid)
        if abs(found.create_time() - record.created) > 1.0:
            return None
        return None if found.status() == psutil.STATUS_ZOMBIE else found
    except psutil.Error:
        return None


def stop_all(data_dir: Path) -> int:
    """Stop every recorded server (SIGTERM, then SIGKILL); how many there were."""
    records = read_all(data_dir)
    running = [found for record in records.values() if (found := process(record)) is not None]
    for server in running:
        with suppress(psutil.Error):
            server.terminate()
    deadline_s = time.monotonic() + _TERM_GRACE_S
    left = running
    while left and time.monotonic() < deadline_s:
        time.sleep(0.1)
        left = [server for server in left if _runs(server)]
    for server in left:
        with suppress(psutil.Error):
            server.kill()
    for replica_id in records:
        remove(data_dir, replica_id)
    return len(running)


def _runs(server: psutil.Process) -> bool:
    try:
        return server.is_running() and server.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
