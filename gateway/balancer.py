"""Chooses a replica by its route's policy, past those that just failed."""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Sequence

from core.contracts.gateway_state import Breaker
from core.contracts.route_table import Replica
from core.kernel import clock
from gateway.policies import Pick, p2c
from gateway.providers import Provider
from gateway.upstream import Pool

_FIRST_BACK_OFF_S = 0.1
_MAX_BACK_OFF_S = 2.0
_EWMA_WEIGHT = 0.2
# A replica that came, or came back, is given its full share after so long.
_SLOW_START_S = 10.0
_LEAST_WARMTH = 0.1
# In steps: two replicas that came together must compare as equal.
_WARMTH_STEPS = 20
# One that fails this share of its requests is ejected, though some succeed in between.
_OUTLIER_RATE = 0.5
_OUTLIER_WEIGHT = 0.1
_EJECTED_S = 5.0


class Backend:
    """A replica as the gateway sees it: its connections, its load, its breaker.

    The breaker is passive. A failure puts the replica aside for a back-off; when that is over
    one request at a time probes it, until one gets a connection. One that is away (nothing
    listens, or it is loading) is not tried before; one that only answers badly is, when there
    is no other: waiting would not help its callers. One that failed its health checks
    (`gateway.health`) is away until it passes one, or answers a request that it still had.

    `requests`, `failures` and `answers` count attempts since the worker started; `aside_until_s` is
    0 while it is not aside.

    Args:
        replica: As the route table has it.
        credential: A bearer token; "" means none.
        provider: How a hosted replica is spoken to; None for one that speaks OpenAI's dialect.
        pool: The connections that hosted replicas of a host share.
    """

    __slots__ = (
        "_away",
        "_failed_at_s",
        "_failure_rate",
        "_failures",
        "_probing",
        "_slots",
        "_warm_at_s",
        "answers",
        "aside_until_s",
        "failures",
        "in_flight",
        "is_healthy",
        "latency_ms",
        "pool",
        "provider",
        "replica",
        "requests",
        "seed",
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
        self._slots = replica.slots
        self.pool = pool or Pool(replica.base_url, credential, replica.slots)
        self.seed = zlib.crc32(replica.id.encode()) << 32
        self.in_flight = 0
        self.latency_ms = 0.0
        self.requests = 0
        self.failures = 0
        self.answers = 0
        self.is_healthy = True
        self._warm_at_s = clock.monotonic_s() + _SLOW_START_S
        self._failure_rate = 0.0
        self._failures = 0
        self._failed_at_s = 0.0
        self.aside_until_s = 0.0
        self._probing = False
        self._away = False

    @property
    def available(self) -> bool:
        """Whether it may be tried now."""
        if not self.aside_until_s:
            return True
        return not self._probing and clock.monotonic_s() >= self.aside_until_s

    @property
    def breaker(self) -> Breaker:
        """`open` while it is aside, `half_open` when the next request probes it."""
        if not self.aside_until_s:
            return "closed"
        return "half_open" if clock.monotonic_s() >= self.aside_until_s else "open"

    @property
    def away(self) -> bool:
        """Whether it is aside because it does not work on requests at all."""
        return self._away and bool(self.aside_until_s)

    @property
    def wait_s(self) -> float:
        """Until it may be tried again, in seconds."""
        return max(self.aside_until_s - clock.monotonic_s(), 0.0)

    @property
    def warmth(self) -> float:
        """Which part of its full share it is given, above 0 and at most 1."""
        if not self._warm_at_s:
            return 1.0
        left_s = self._warm_at_s - clock.monotonic_s()
        if left_s <= 0:
            self._warm_at_s = 0.0
            return 1.0
        steps = int(_WARMTH_STEPS * (1.0 - left_s / _SLOW_START_S))
        return max(steps / _WARMTH_STEPS, _LEAST_WARMTH)

    @property
    def load(self) -> tuple[float, float]:
        """What is compared: requests for each slot with one more, then latency in ms."""
        share = self._slots if not self._warm_at_s else self._slots * self.warmth
        return ((self.in_flight + 1) / share, self.latency_ms)

    def began(self) -> None:
        """A request is on its way to it."""
        self.in_flight += 1
        self.requests += 1
        if self.aside_until_s:
            self._probing = True

    def ended(self) -> None:
        """A request is over, however it went."""
        self.in_flight -= 1
        self._probing = False

    def connected(self) -> None:
        """It accepts connections: other requests need not wait for this one's answer."""
        if not self.is_healthy:
            return
        if self.away:
            self._warm_at_s = clock.monotonic_s() + _SLOW_START_S
        self.aside_until_s = 0.0
        self._probing = False

    def unhealthy(self) -> None:
        """It failed its health checks: no request goes to it, until one check succeeds."""
        self.is_healthy = False
        self._away = True
        self.aside_until_s = math.inf

    def healthy(self) -> None:
        """It passed a health check; whether it answers well is for requests to say."""
        self.is_healthy = True
        if self.away:
            self._failures = 0
            self.connected()

    def succeeded(self, first_byte_ms: float) -> None:
        """Close the breaker, and learn the latency."""
        self.answers += 1
        if self._failure_rate:
            self._failure_rate *= 1 - _OUTLIER_WEIGHT
        if self.aside_until_s or self._failures:
            self._failures = 0
            self.aside_until_s = 0.0
            self.is_healthy = True
        weight = _EWMA_WEIGHT if self.latency_ms else 1.0
        self.latency_ms += weight * (first_byte_ms - self.latency_ms)

    def was_slower_than(self, first_byte_ms: float) -> None:
        """It was given up after so long, while another one answered: that is no failure."""
        if first_byte_ms > self.latency_ms > 0:
            self.latency_ms += _EWMA_WEIGHT * (first_byte_ms - self.latency_ms)

    def failed(self, began_s: float, *, away: bool) -> None:
        """Put it aside for a while, longer after each failure in a row.

        Args:
            began_s: When the failed attempt began: many that ran at once are one failure.
            away: It does not work on requests at all.
        """
        now_s = clock.monotonic_s()
        self.failures += 1
        if not self.is_healthy:
            return
        self._away = away
        if began_s < self._failed_at_s and self.aside_until_s:
            return
        self._failed_at_s = now_s
        self._failures += 1
        self._failure_rate += _OUTLIER_WEIGHT * (1 - self._failure_rate)
        back_off_s = min(_FIRST_BACK_OFF_S * 2.0 ** (self._failures - 1), _MAX_BACK_OFF_S)
        if self._failure_rate >= _OUTLIER_RATE and not away:
            back_off_s = _EJECTED_S
        self.aside_until_s = now_s + back_off_s

    def retire(self) -> None:
        """It left the table: idle connections are closed, requests in flight go on."""
        if self.provider is None:
            self.pool.close_idle()


def choose(
    backends: Sequence[Backend],
    tried: Collection[Backend] = (),
    pick: Pick = p2c,
    affinity: int = 0,
) -> Backend | None:
    """The backend for the next attempt; None when none may be tried now.

    Args:
        backends: The replicas of the route, or of one of its targets.
        tried: Those that failed this request already: taken again when nothing else is left.
        pick: The route's policy.
        affinity: See `policies.affinity`.
    """
    left: Sequence[Backend] = backends
    for each in backends:
        if each.aside_until_s:
            left = [each for each in backends if each.available]
            break
    if tried:
        left = [each for each in left if each not in tried]
    if not left:
        left = [each for each in backends if each.available]
        left = left or [each for each in backends if not each.away]
    if len(left) <= 1:
        return left[0] if left else None
    return pick(left, affinity)


class RetryBudget:
    """Retries are at most a fifth of the requests of late, and a few; so they cannot pile up.

    `requests` are those that came since the last retry.
    """

    _RATIO = 0.2
    _PER_SECOND = 0.5
    _MAX = 20.0

    def __init__(self) -> None:
        self._tokens = self._MAX / 2
        self.requests = 0
        self._at_s = clock.monotonic_s()

    def take(self) -> bool:
        """Whether a retry may be made now."""
        now_s = clock.monotonic_s()
        earned = self.requests * self._RATIO + (now_s - self._at_s) * self._PER_SECOND
        self._tokens = min(self._tokens + earned, self._MAX)
        self.requests, self._at_s = 0, now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
