"""What a metrics store must do, and which one this process uses."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

from core.kernel import clock
from core.kernel.errors import Unavailable
from core.kernel.settings import settings
from core.metrics.schemas import (
    CacheNumbers,
    ErrorCount,
    ErrorPoint,
    GroupBy,
    GroupNumbers,
    GuardrailCount,
    MachineTime,
    Numbers,
    RequestRow,
    Scope,
    Segment,
    SeriesPoint,
    Window,
)
from core.prices.schemas import PriceSpan


class MetricsStore(Protocol):
    """The questions a store answers; every one about requests is about one project."""

    def summary(self, scope: Scope) -> Numbers:
        """The numbers of the whole window."""

    def series(
        self, scope: Scope, group_by: GroupBy, bucket_s: int, groups: list[str]
    ) -> list[SeriesPoint]:
        """The numbers by time bucket and group; groups not in `groups` come as "other"."""

    def groups(self, scope: Scope, group_by: GroupBy, limit: int) -> list[GroupNumbers]:
        """The groups with the most requests."""

    def errors(self, scope: Scope) -> list[ErrorCount]:
        """Errors by class, the most frequent first."""

    def errors_over_time(self, scope: Scope, bucket_s: int) -> list[ErrorPoint]:
        """Errors by time bucket and class; buckets without errors are left out."""

    def guardrails(self, scope: Scope) -> list[GuardrailCount]:
        """What guardrails did, by name, side and outcome."""

    def cache(self, scope: Scope) -> CacheNumbers:
        """What the response cache did."""

    def requests(self, scope: Scope, limit: int) -> list[RequestRow]:
        """The newest requests."""

    def request(
        self, project_id: str, request_id: str, prices: list[PriceSpan]
    ) -> RequestRow | None:
        """One request."""

    def machines(self, window: Window, prices: list[PriceSpan]) -> list[MachineTime]:
        """The time of every machine, over all projects."""

    def last_ingested_at(self) -> datetime | None:
        """When the newest segment was ingested."""

    def forget_project(self, project_id: str) -> int:
        """Delete the requests of a project; how many there were."""


class WritableStore(MetricsStore, Protocol):
    """A store that this process writes."""

    def known_segments(self, segment_ids: Sequence[str]) -> dict[str, int]:
        """Which of these are ingested already, with their number of damaged lines."""

    def add_segments(self, segments: Sequence[Segment]) -> int:
        """Add the rows and ids of several segments in one transaction; the number of rows."""

    def add_uptime(self, cluster_id: str, seconds_by_minute: Mapping[int, float]) -> None:
        """Add seconds of uptime to minutes (given as Unix time by 60)."""

    def prune(self, before_unix_s: float) -> int:
        """Delete the requests that ended, and the minutes that were over, before a moment.

        Returns:
            How many requests there were.
        """

    def close(self) -> None:
        """Give the file free for other processes."""


_WAIT_S = 5.0

_writer: WritableStore | None = None
_lock = threading.Lock()
# Threads of a process that has no store of its own take turns.
_local_call = threading.Lock()


def set_writer(store: WritableStore | None) -> None:
    """Make `store` the one this process uses; the ingester does, for as long as it runs."""
    global _writer
    with _lock:
        _writer = store


def own() -> WritableStore:
    """The store that this process writes. Unavailable before the ingester has started."""
    if _writer is None:
        raise Unavailable("Metrics are not ready yet.", remedy="Try again in a few seconds.")
    return _writer


@contextmanager
def remote_or_local() -> Iterator[MetricsStore]:
    """The store to ask: this process's own, else the running app's, else the file itself.

    In a process without an ingester and with no app running, the file is opened for the time of
    the call, and what lies on disk is ingested first.
    """
    if _writer is not None:
        yield _writer
        return
    with _local_call:
        yield from _elsewhere()


def _elsewhere() -> Iterator[MetricsStore]:
    # Imported here: these import this module's protocols, and DuckDB is heavy for a CLI.
    from core.metrics import ingest
    from core.metrics.adapters import app_store

    give_up_s = clock.monotonic_s() + _WAIT_S
    while True:
        remote = app_store.connect()
        if remote is not None:
            yield remote
            return
        try:
            opened = ingest.open_store(settings().data_dir)
            break
        except Unavailable:
            # The app is about to answer, or another command has the file for its own call.
            if clock.monotonic_s() > give_up_s:
                raise
        time.sleep(0.1)
    try:
        ingest.ingest_once(opened, settings().data_dir)
        yield opened
    finally:
        opened.close()
