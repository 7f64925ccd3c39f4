"""Asks replicas now and then whether they work: active health checks.

A replica is asked only when no request has told the same since the last time, so that a busy one
costs nothing. Each worker asks for itself, at times of its own. A status below 500 is good: a
server that does not know the path is alive. A server that is silent while it works on requests
is busy, not away: its requests' own timeouts judge it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from dataclasses import dataclass

from core.kernel import clock
from gateway.balancer import Backend
from gateway.table import TableHolder
from gateway.upstream import Broken, ConnectFailed, TimedOut

log = logging.getLogger(__name__)

_TICK_S = 0.5
_JITTER = 0.2
_AWAY_AFTER = 3
_TIMEOUT_S = 2.0
# One that is away is asked more often, so that it is back soon.
_AWAY_INTERVAL_S = 1.0
_AT_ONCE = 32


@dataclass(slots=True)
class _Watched:
    """What the last checks of one replica said."""

    due_s: float
    answers: int = 0
    failures: int = 0
    is_running: bool = False


class HealthChecks:
    """The checks of one worker.

    Args:
        tables: With the replicas of now.
        interval_s: From one check of a replica to the next, about; 0 checks none.
    """

    def __init__(self, tables: TableHolder, interval_s: float) -> None:
        self._tables = tables
        self._interval_s = interval_s
        self._watched: dict[Backend, _Watched] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to check."""
        if self._interval_s > 0:
            self._ticker = asyncio.create_task(self._tick())

    async def stop(self) -> None:
        """End, with the checks that run."""
        tasks = [*self._running, *([self._ticker] if self._ticker else [])]
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(min(_TICK_S, self._interval_s))
            self._begin_due()

    def _begin_due(self) -> None:
        now_s = clock.monotonic_s()
        checked = [backend for backend in self._tables.backends if backend.replica.health_path]
        self._watched = {
            backend: self._watched.get(backend)
            or _Watched(now_s + random.random() * self._interval_s)  # noqa: S311 (jitter)
            for backend in checked
        }
        for backend, watched in self._watched.items():
            if watched.is_running or now_s < watched.due_s or len(self._running) >= _AT_ONCE:
                continue
            if backend.answers > watched.answers:
                watched.answers, watched.failures = backend.answers, 0
                watched.due_s = self._next_s(backend)
                continue
            watched.is_running = True
            task = asyncio.create_task(self._check(backend, watched))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _next_s(self, backend: Backend) -> float:
        spread = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311
        soon = backend.away or not backend.is_healthy
        interval_s = min(self._interval_s, _AWAY_INTERVAL_S) if soon else self._interval_s
        return clock.monotonic_s() + interval_s * spread

    async def _check(self, backend: Backend, watched: _Watched) -> None:
        before = watched.answers = backend.answers
        try:
            if await _asked(backend):
                _passed(backend, watched)
            elif backend.answers == before:
                _failed(backend, watched)
        finally:
            watched.is_running, watched.due_s = False, self._next_s(backend)


def _passed(backend: Backend, watched: _Watched) -> None:
    if not backend.is_healthy:
        log.info("replica %s passed its health check", backend.replica.id)
    watched.failures = 0
    backend.healthy()


def _failed(backend: Backend, watched: _Watched) -> None:
    watched.failures += 1
    if watched.failures >= _AWAY_AFTER and backend.is_healthy:
        log.warning("replica %s failed its health checks", backend.replica.id)
        backend.unhealthy()


async def _asked(backend: Backend) -> bool:
    """Whether it works; True also when it is busy with requests."""
    try:
        connection = await backend.pool.connect(_TIMEOUT_S)
    except ConnectFailed:
        return False
    try:
        connection.send(backend.pool.get_head(backend.replica.health_path), b"")
        await connection.head(_TIMEOUT_S)
        return connection.status < 500
    except TimedOut:
        return backend.in_flight > 0
    except Broken:
        return False
    finally:
        connection.abort()
