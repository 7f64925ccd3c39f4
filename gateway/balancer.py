"""Chooses a replica: the better of two at random (p2c), past those that just failed.

"Better" is fewer requests in flight for each slot, then the lower recent latency. Source of
the method: Mitzenmacher, The power of two choices in randomized load balancing (2001).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from core.contracts.route_table import Replica
from core.kernel import clock
from gateway.providers import Provider
from gateway.upstream import Pool

_FIRST_BACK_OFF_S = 0.1
_MAX_BACK_OFF_S = 2.0
_EWMA_WEIGHT = 0.2


class Backend:
    """A replica as the gateway sees it: its connections, its load, its breaker.

    The breaker is passive. A failure puts the replica aside for a back-off; when that is over
    one request at a time probes it, until one gets a connection. One that is away (nothing
    listens, or it is loading) is not tried before; one that only answers badly is, when there
    is no other: waiting would not help its callers.

    Args:
        replica: As the route table has it.
        credential: A bearer token; "" means none.
        provider: How a hosted replica is spoken to; None for one that speaks OpenAI's dialect.
        pool: The connections that hosted replicas of a host share.
    """

    __slots__ = (
        "_aside_until_s",
        "_away",
        "_failed_at_s",
        "_failures",
        "_probing",
        "in_flight",
        "latency_ms",
        "pool",
        "provider",
        "replica",
    )

    def __init__(
        self,
        replica: Replica,
        credential: str,
        provider: Provider | None = None,
        pool: Pool | None = None,
    ) -> None:
        self.replica = replica
        self.provider = provider
        self.pool = pool or Pool(replica.base_url, credential, replica.slots)
        self.in_flight = 0
        self.latency_ms = 0.0
        self._failures = 0
        self._failed_at_s = 0.0
        self._aside_until_s = 0.0
        self._probing = False
        self._away = False

    @property
    def available(self) -> bool:
        """Whether it may be tried now."""
        if not self._aside_until_s:
            return True
        return not self._probing and clock.monotonic_s() >= self._aside_until_s

    @property
    def away(self) -> bool:
        """Whether it is aside because it does not work on requests at all."""
        return self._away and bool(self._aside_until_s)

    @property
    def wait_s(self) -> float:
        """Until it may be tried again, in seconds."""
        return max(self._aside_until_s - clock.monotonic_s(), 0.0)

    @property
    def load(self) -> tuple[float, float]:
        """What is compared: requests in flight a slot, then latency in ms."""
        return (self.in_flight / max(self.replica.slots, 1), self.latency_ms)

    def began(self) -> None:
        """A request is on its way to it."""
        self.in_flight += 1
        if self._aside_until_s:
            self._probing = True

    def ended(self) -> None:
        """A request is over, however it went."""
        self.in_flight -= 1
        self._probing = False

    def connected(self) -> None:
        """It accepts connections: other requests need not wait for this one's answer."""
        self._aside_until_s = 0.0
        self._probing = False

    def succeeded(self, first_byte_ms: float) -> None:
        """Close the breaker, and learn the latency."""
        self._failures = 0
        self._aside_until_s = 0.0
        weight = _EWMA_WEIGHT if self.latency_ms else 1.0
        self.latency_ms += weight * (first_byte_ms - self.latency_ms)

    def failed(self, began_s: float, *, away: bool) -> None:
        """Put it aside for a while, longer after each failure in a row.

        Args:
            began_s: When the failed attempt began: many that ran at once are one failure.
            away: It does not work on requests at all.
        """
        now_s = clock.monotonic_s()
        self._away = away
        if began_s < self._failed_at_s and self._aside_until_s:
            return
        self._failed_at_s = now_s
        self._failures += 1
        back_off_s = min(_FIRST_BACK_OFF_S * 2.0 ** (self._failures - 1), _MAX_BACK_OFF_S)
        self._aside_until_s = now_s + back_off_s

    def retire(self) -> None:
        """It left the table: idle connections are closed, requests in flight go on."""
        if self.provider is None:
            self.pool.close_idle()


def choose(backends: Sequence[Backend], tried: Collection[Backend] = ()) -> Backend | None:
    """The backend for the next attempt; None when none may be tried now.

    Those already tried for this request are taken again only when nothing else is left.
    """
    available = [backend for backend in backends if backend.available]
    candidates = [backend for backend in available if backend not in tried] if tried else available
    candidates = candidates or available or [each for each in backends if not each.away]
    if len(candidates) <= 1:
        return candidates[0] if candidates else None
    if len(candidates) == 2:
        first, second = candidates
        if first.load == second.load and random.random() < 0.5:  # noqa: S311 (balancing)
            return second
    else:
        first, second = random.sample(candidates, 2)
    return first if first.load <= second.load else second


class RetryBudget:
    """Retries are at most a fifth of the requests of late, and a few; so they cannot pile up."""

    _RATIO = 0.2
    _PER_SECOND = 0.5
    _MAX = 20.0

    def __init__(self) -> None:
        self._tokens = self._MAX / 2
        self._at_s = clock.monotonic_s()

    def request(self) -> None:
        """A request came."""
        now_s = clock.monotonic_s()
        earned = self._RATIO + (now_s - self._at_s) * self._PER_SECOND
        self._tokens = min(self._tokens + earned, self._MAX)
        self._at_s = now_s

    def take(self) -> bool:
        """Whether a retry may be made now."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
