"""What each gateway worker says of itself: its replicas now, and what each route sent where.

A worker keeps one file, `<data folder>/gateway/<worker id>.json`: written anew every second in
which something happened and every `HEARTBEAT_S` otherwise, removed when it stops. A file that is
older than `STALE_S` is of a worker that was killed. Where there are several workers, their metrics
lie in the same folder (`gateway.workers`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

FOLDER_NAME = "gateway"
SUFFIX = ".json"
HEARTBEAT_S = 5.0
STALE_S = 15.0

# closed: used; open: put aside after failures; half_open: the next request probes it.
Breaker = Literal["closed", "half_open", "open"]
# away: nothing listens, it is loading, or it failed its health checks.
Health = Literal["up", "away"]


class ReplicaState(msgspec.Struct, frozen=True, kw_only=True):
    """One replica as one worker sees it.

    `requests` and `failures` count attempts since the worker started. `latency_ms` is a moving
    mean up to the first byte, 0 before the first answer. `draining`: it takes no new request.
    """

    id: str
    health: Health = "up"
    breaker: Breaker = "closed"
    draining: bool = False
    in_flight: int = 0
    requests: int = 0
    failures: int = 0
    latency_ms: float = 0.0


class TargetState(msgspec.Struct, frozen=True, kw_only=True):
    """What one route sent to one deployment or hosted model since the worker started.

    `failures` are requests to which it gave no answer; another may have.
    """

    project_id: str
    model: str
    deployment_id: str
    requests: int = 0
    failures: int = 0


class WorkerState(msgspec.Struct, frozen=True, kw_only=True):
    """One worker; `waiting` are requests that wait for a replica to come back."""

    worker_id: str
    at_unix_s: float
    started_unix_s: float
    route_table_version: int
    in_flight: int
    waiting: int
    replicas: list[ReplicaState]
    targets: list[TargetState]


def read(data_dir: Path, now_unix_s: float) -> list[WorkerState]:
    """The workers that live now. Empty when none does."""
    found = [_read(path) for path in sorted((data_dir / FOLDER_NAME).glob(f"*{SUFFIX}"))]
    return [state for state in found if state and now_unix_s - state.at_unix_s < STALE_S]


def _read(path: Path) -> WorkerState | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=WorkerState)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return None
