"""Chooses a replica: the better of two at random (p2c), past those that just failed.

"Better" is fewer requests in flight for each slot, then the lower recent latency. Source of
the method: Mitzenmacher, The power of two choices in randomized load balancing (2001).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from core.contracts.route_table import Replica
from core.kernel import clock
from gateway.upstream import Pool

_FIRST_BACK_OFF_S = 0.25
_MAX_BACK_OFF_S = 10.0
_EWMA_WEIGHT = 0.2


class Backend:
    """A replica as the gateway sees it: its connections, its load, its breaker."""

    __slots__ = (
        "_failures",
        "_open_until_s",
        "in_flight",
        "latency_ms",
        "pool",
        "replica",
    )

    def __init__(self, replica: Replica, credential: str) -> None:
        self.replica = replica
        self.pool = Pool(replica.base_url, credential)
        self.in_flight = 0
        self.latency_ms = 0.0
        self._failures = 0
        self._open_until_s = 0.0

    @property
    def available(self) -> bool:
        """Whether it may be tried now."""
        return clock.monotonic_s() >= self._open_until_s

    @property
    def load(self) -> tuple[float, float]:
        """What is compared: requests in flight a slot, then latency in ms."""
        return (self.in_flight / max(self.replica.slots, 1), self.latency_ms)

    def succeeded(self, first_byte_ms: float) -> None:
        """Close the breaker, and learn the latency."""
        self._failures = 0
        self._open_until_s = 0.0
        weight = _EWMA_WEIGHT if self.latency_ms else 1.0
        self.latency_ms += weight * (first_byte_ms - self.latency_ms)

    def failed(self) -> None:
        """Leave it alone for a while, longer after each failure in a row."""
        self._failures += 1
        back_off_s = min(_FIRST_BACK_OFF_S * 2 ** (self._failures - 1), _MAX_BACK_OFF_S)
        self._open_until_s = clock.monotonic_s() + back_off_s

    def retire(self) -> None:
        """It left the table: idle connections are closed, requests in flight go on."""
        self.pool.close_idle()


def choose(backends: Sequence[Backend], tried: Collection[Backend] = ()) -> Backend | None:
    """The backend for the next attempt; None when the route has none.

    Those already tried for this request come last, and so do those whose breaker is open: when
    nothing else is left, they are better than nothing.
    """
    fresh = [backend for backend in backends if backend not in tried]
    candidates = [backend for backend in fresh if backend.available] or fresh or list(backends)
    if not candidates:
        return None
    if len(candidates) == 1:
        return candidates[0]
    first, second = random.sample(candidates, 2)
    return first if first.load <= second.load else second
