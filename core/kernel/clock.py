"""Time is UTC, and comes from here."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The present moment, timezone-aware, in UTC."""
    return datetime.now(UTC)


def unix_s() -> float:
    """Seconds since the epoch."""
    return time.time()


def monotonic_s() -> float:
    """Seconds on a clock that never goes back; for durations only."""
    return time.perf_counter()
