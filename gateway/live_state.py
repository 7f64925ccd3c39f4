"""Writes down what this worker sees of its replicas: see `core.contracts.gateway_state`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from core.contracts.gateway_state import (
    FOLDER_NAME,
    HEARTBEAT_S,
    STALE_S,
    SUFFIX,
    ReplicaState,
    TargetState,
    WorkerState,
)
from core.kernel import clock
from gateway.balancer import Backend
from gateway.table import TableHolder, Target

log = logging.getLogger(__name__)

_EVERY_S = 1.0
_REMOVE_AFTER_S = 10 * STALE_S
_Seen = tuple[int, int, list[ReplicaState], list[TargetState]]


class LiveState:
    """The state file of one worker.

    Args:
        data_dir: The data folder.
        worker_id: As in its facts.
        tables: With the replicas and routes of now.
        load: Requests in flight, and those that wait for a replica.
    """

    def __init__(
        self,
        data_dir: Path,
        worker_id: str,
        tables: TableHolder,
        load: Callable[[], tuple[int, int]],
    ) -> None:
        self._path = data_dir / FOLDER_NAME / f"{worker_id}{SUFFIX}"
        self._worker_id = worker_id
        self._tables = tables
        self._load = load
        self._started_unix_s = clock.unix_s()
        self._written_s = -HEARTBEAT_S
        self._last: _Seen | None = None
        self._is_failing = False
        self._stopping = asyncio.Event()
        self._ticker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Remove what killed workers left, and begin."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _remove_old(self._path.parent)
        self._ticker = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """Take the file away."""
        # Not cancelled: a write in its thread would bring the file back.
        self._stopping.set()
        if self._ticker is not None:
            await self._ticker
        self._path.unlink(missing_ok=True)

    async def _tick(self) -> None:
        while not self._stopping.is_set():
            await self.write()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _EVERY_S)

    async def write(self) -> None:
        """Write what differs from the last time, or a sign of life when it is time for one."""
        now_s = clock.monotonic_s()
        load, replicas, targets = self._load(), _replicas(self._tables), _targets(self._tables)
        seen = (self._tables.current.version, load[0] + load[1], replicas, targets)
        if seen == self._last and now_s - self._written_s < HEARTBEAT_S:
            return
        state = WorkerState(
            worker_id=self._worker_id,
            at_unix_s=clock.unix_s(),
            started_unix_s=self._started_unix_s,
            route_table_version=self._tables.current.version,
            in_flight=load[0],
            waiting=load[1],
            replicas=replicas,
            targets=targets,
        )
        try:
            await asyncio.to_thread(_replace, self._path, msgspec.json.encode(state))
        except OSError as error:
            if not self._is_failing:
                log.error("the state of this worker cannot be written: %s", error)
            self._is_failing = True
            return
        self._is_failing, self._last, self._written_s = False, seen, now_s


def _replicas(tables: TableHolder) -> list[ReplicaState]:
    draining = [_replica(backend, draining=True) for backend in tables.draining]
    return [_replica(backend, draining=False) for backend in tables.backends] + draining


def _replica(backend: Backend, *, draining: bool) -> ReplicaState:
    return ReplicaState(
        id=backend.replica.id,
        health="away" if backend.away else "up",
        breaker=backend.breaker,
        draining=draining,
        in_flight=backend.in_flight,
        requests=backend.requests,
        failures=backend.failures,
        latency_ms=round(backend.latency_ms, 1),
    )


def _targets(tables: TableHolder) -> list[TargetState]:
    return [
        TargetState(
            project_id=project_id,
            model=model,
            deployment_id=target.route.deployment_id,
            requests=target.traffic.requests,
            failures=target.traffic.failures,
        )
        for (project_id, model), whole in tables.current.routes.items()
        for target in _parts(whole)
    ]


def _parts(whole: Target) -> list[Target]:
    return [share.target for share in whole.shares] or [whole]


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _remove_old(folder: Path) -> None:
    oldest_unix_s = clock.unix_s() - _REMOVE_AFTER_S
    # The workers' metrics are here too, and stay.
    for path in (*folder.glob(f"*{SUFFIX}"), *folder.glob("*.partial*")):
        with suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest_unix_s:
                path.unlink()
