"""Starts model servers as processes of this machine, and reads their logs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from core.deployments import server_records
from core.deployments.model_server import ServerConfig
from core.kernel.settings import ROOT, settings

_MAX_LOG_BYTES = 8_000_000
_KEPT_LOG_BYTES = 1_000_000
_REASON_LINES = 400
_ERROR_MARKS = ("error", "failed", "exception", "out of memory")
_NOISE = ("Failed to init server", "Traceback")


def log_path(deployment_id: str, position: int) -> Path:
    """Where a replica's log is kept."""
    return settings().data_dir / "logs" / "deployments" / deployment_id / f"{position}.log"


def start(config: ServerConfig, position: int) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, so that it outlives the app."""
    data_dir = settings().data_dir
    path = server_records.folder(data_dir) / f"{config.replica_id}.config"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(config))
    log = log_path(config.deployment_id, position)
    log.parent.mkdir(parents=True, exist_ok=True)
    shorten_log(log)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", settings().model_server_module, str(path)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def forget(replica_id: str) -> None:
    """Remove what a server that has ended left in the run folder."""
    data_dir = settings().data_dir
    server_records.remove(data_dir, replica_id)
    (server_records.folder(data_dir) / f"{replica_id}.config").unlink(missing_ok=True)


def shorten_log(log: Path) -> None:
    """Keep the end of a log that has grown too long; the server goes on appending to it."""
    if not log.exists() or log.stat().st_size <= _MAX_LOG_BYTES:
        return
    with log.open("r+b") as file:
        file.seek(-_KEPT_LOG_BYTES, os.SEEK_END)
        tail = file.read()
        file.seek(0)
        file.write(tail[tail.find(b"\n") + 1 :])
        file.truncate()


def failure_reason(deployment_id: str, position: int) -> str:
    """The last line of a log that reads like an error; "" when there is none."""
    log = log_path(deployment_id, position)
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - 64_000, 0))
        lines = file.read().decode("utf-8", "replace").splitlines()[-_REASON_LINES:]
    for line in reversed(lines):
        marked = any(mark in line.lower() for mark in _ERROR_MARKS)
        if marked and not any(mark in line for mark in _NOISE):
            return line.strip()[:300]
    return ""
