"""Starts model servers as processes of this machine, and reads their logs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil

from core.deployments import server_records
from core.deployments.model_server import ServerConfig
from core.kernel import clock
from core.kernel.settings import ROOT, settings

_MAX_LOG_BYTES = 8_000_000
_KEPT_LOG_BYTES = 1_000_000
_REASON_BYTES = 64_000
_START_MARK = b"--- model server starts"
_ERROR_MARKS = ("error", "failed", "exception", "out of memory", "problem:")
# Said beside the real reason, in every failure.
_NOISE = ("Failed to init server", "Traceback")
_PREFIX = re.compile(r"^[\d.]+ [A-Z] +")


def log_path(deployment_id: str, position: int) -> Path:
    """Where a replica's log is kept."""
    return settings().data_dir / "logs" / "deployments" / deployment_id / f"{position}.log"


def start(config: ServerConfig, position: int) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, so that it outlives the app."""
    path = server_records.config_path(settings().data_dir, config.replica_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(config))
    log = log_path(config.deployment_id, position)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        output.write(_START_MARK + f" {clock.now():%Y-%m-%d %H:%M:%S} UTC\n".encode())
        output.flush()
        return subprocess.Popen(
            [sys.executable, "-m", settings().model_server_module, str(path)],
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _environment() -> dict[str, str]:
    # Passwords and tokens in Bud's own variables are none of a model server's business.
    foreign = {name: value for name, value in os.environ.items() if not name.startswith("BUD_")}
    # Threads that wait do not spin: on two busy cores two spinning threads gave 2 tokens/s,
    # two that sleep 53 (starter model, one thread: 73).
    return {"OMP_WAIT_POLICY": "passive", **foreign, "BUD_DATA_DIR": str(settings().data_dir)}


def held_bytes(pid: int | None) -> int:
    """Memory that only this process holds; 0 when it has ended.

    The pages of the model's file are left out: the system counts them as available.
    """
    if pid is None:
        return 0
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - getattr(memory, "shared", 0))


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds a process has used; 0 when it has ended."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def shorten_log(deployment_id: str, position: int) -> None:
    """Keep the end of a log that has grown too long; the server goes on appending to it."""
    log = log_path(deployment_id, position)
    if not log.exists() or log.stat().st_size <= _MAX_LOG_BYTES:
        return
    with log.open("r+b") as file:
        file.seek(-_KEPT_LOG_BYTES, os.SEEK_END)
        tail = file.read()
        file.seek(0)
        file.write(tail[tail.find(b"\n") + 1 :])
        file.truncate()


def load_failure(deployment_id: str, position: int) -> str:
    """What the server that was started last said went wrong first; "" when it said nothing."""
    log = log_path(deployment_id, position)
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - _REASON_BYTES, 0))
        last_run = file.read().rpartition(_START_MARK)[2]
    for line in last_run.decode("utf-8", "replace").splitlines():
        marked = any(mark in line.lower() for mark in _ERROR_MARKS)
        # The lines of a traceback that begin with a space name files, not reasons.
        if marked and not line.startswith(" ") and not any(mark in line for mark in _NOISE):
            return _PREFIX.sub("", line).strip()[:300]
    return ""
