"""Time is UTC, and comes from here."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The present moment, timezone-aware, in UTC."""
    return datetime.now(UTC)


# Not wrapped in functions of our own: the gateway asks a dozen times for each request.
unix_s = time.time  # seconds since the epoch
monotonic_s = time.perf_counter  # seconds on a clock that never goes back; for durations only
