"""What model servers write about themselves, so that whoever comes next can find them.

Three small files a server, in `<data folder>/run/servers`: `<replica id>.config`, written by who
starts it, is its permission to run; `<replica id>.lock` is locked by the server for as long as
it lives, so that a replica never has two; `<replica id>.json` is its record. Process ids are used
again, so a process is only believed to be the recorded one when its command line names the
replica's config (its start time would not do: it moves when the clock is set).
The supervisor imports this module: it must not reach SQLAlchemy.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec
import psutil

_TERM_GRACE_S = 8.0
_CLAIM_S = 2.0
_POLL_S = 0.1

# Descriptors of the locks this process holds; they are let go when it ends.
_claims: list[int] = []


class ServerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A model server; `port` is 0 while it loads its model."""

    replica_id: str
    deployment_id: str
    pid: int
    port: int = 0


def folder(data_dir: Path) -> Path:
    """Where the files are."""
    return data_dir / "run" / "servers"


def config_path(data_dir: Path, replica_id: str) -> Path:
    """The config of a server; without it the server ends itself."""
    return folder(data_dir) / f"{replica_id}.config"


def claim(data_dir: Path, record: ServerRecord) -> bool:
    """Make this process the one server of its replica, until it ends, and write its record.

    False when the replica has a server already, or is not wanted any more.
    """
    lock = folder(data_dir) / f"{record.replica_id}.lock"
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    deadline_s = time.monotonic() + _CLAIM_S
    while not _locked(descriptor):
        # The server before this one may not be quite gone.
        if time.monotonic() > deadline_s:
            os.close(descriptor)
            return False
        time.sleep(_POLL_S)
    _claims.append(descriptor)
    write(data_dir, record)
    # Asked after writing: who withdraws the permission first and then reads the records, as
    # `stop_all` does, misses nobody.
    return permitted(data_dir, record.replica_id)


def permitted(data_dir: Path, replica_id: str) -> bool:
    """Whether the server of this replica may go on."""
    return config_path(data_dir, replica_id).exists()


def write(data_dir: Path, record: ServerRecord) -> None:
    """Write a record, atomically."""
    path = folder(data_dir) / f"{record.replica_id}.json"
    partial = path.with_suffix(f".{os.getpid()}.partial")
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
    """Remove the record of a server that has ended; its replica gets another one."""
    (folder(data_dir) / f"{replica_id}.json").unlink(missing_ok=True)


def forget(data_dir: Path, replica_id: str) -> None:
    """Remove every file of a replica that shall have no server any more."""
    for path in folder(data_dir).glob(f"{replica_id}.*"):
        path.unlink(missing_ok=True)


def process(record: ServerRecord) -> psutil.Process | None:
    """The running process of a record; None when it has ended."""
    try:
        found = psutil.Process(record.pid)
        # A zombie has no command line.
        mine = any(f"{record.replica_id}.config" in word for word in found.cmdline())
    except psutil.Error:
        return None
    return found if mine else None


def stop_all(data_dir: Path) -> int:
    """Stop every recorded server (SIGTERM, then SIGKILL); how many there were."""
    for config in folder(data_dir).glob("*.config"):
        config.unlink(missing_ok=True)
    records = read_all(data_dir)
    running = [found for record in records.values() if (found := process(record)) is not None]
    for server in running:
        with suppress(psutil.Error):
            server.terminate()
    deadline_s = time.monotonic() + _TERM_GRACE_S
    left = running
    while left and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
        left = [server for server in left if _runs(server)]
    for server in left:
        with suppress(psutil.Error):
            server.kill()
    for replica_id in records:
        forget(data_dir, replica_id)
    return len(running)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _runs(server: psutil.Process) -> bool:
    try:
        return server.is_running() and server.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
