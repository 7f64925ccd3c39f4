"""How requests are shared among the replicas of one target: one function for each policy.

`weighted` and `cheapest` choose a target (`gateway.split`); its replicas are alike in that.

Each takes at least two replicas that may be used now, and the affinity of the request, and gives
one of them. Sources: Mitzenmacher, The power of two choices in randomized load balancing (2001);
Thaler and Ravishankar, A name-based mapping scheme for rendezvous (1996); Mirrokni, Thorup and
Zadimoghaddam, Consistent hashing with bounded loads (2018).
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from core.contracts.route_table import Policy

if TYPE_CHECKING:
    from gateway.balancer import Backend

Pick = Callable[[Sequence["Backend"], int], "Backend"]

# The first turn of a conversation, mostly; what comes later differs in every request.
_PREFIX_BYTES = 1024
# A replica takes at most so many times the mean load; above it the next one in line is used.
_BOUND = 1.25
# One request in so many goes elsewhere, so that a replica that became quick is noticed.
_EXPLORE = 20
_MIX = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def affinity(session: str, raw: bytes) -> int:
    """What belongs together gets the same number: a session, else prompts that begin alike.

    Args:
        session: As the caller names it; "" means none.
        raw: The request's body.
    """
    if session:
        return zlib.crc32(session.encode("utf-8", "surrogateescape"))
    start = max(raw.find(b'"messages"'), raw.find(b'"prompt"'), 0)
    return zlib.crc32(raw[start : start + _PREFIX_BYTES])


def p2c(backends: Sequence[Backend], _affinity: int = 0) -> Backend:
    """The less loaded of two at random; at equal load the one with the lower latency."""
    first, second = backends if len(backends) == 2 else random.sample(backends, 2)
    first_load, second_load = first.load, second.load
    if first_load == second_load:
        return first if random.random() < 0.5 else second  # noqa: S311 (balancing)
    return first if first_load < second_load else second


def least_loaded(backends: Sequence[Backend], _affinity: int = 0) -> Backend:
    """The least loaded of all; any of them at equal load."""
    return min(backends, key=lambda each: (each.load[0], random.random()))  # noqa: S311


def at_random(backends: Sequence[Backend], _affinity: int = 0) -> Backend:
    """Any of them; one that just came gets less at first."""
    return random.choices(backends, [each.warmth for each in backends])[0]  # noqa: S311 (balancing)


def fastest(backends: Sequence[Backend], affinity: int = 0) -> Backend:
    """The one whose first byte came soonest of late, as long as it has a free slot."""
    free = [each for each in backends if each.in_flight < each.replica.slots]
    if len(free) < 2:
        return free[0] if free else p2c(backends, affinity)
    if random.randrange(_EXPLORE) == 0:  # noqa: S311 (balancing)
        return random.choice(free)  # noqa: S311
    return min(free, key=lambda each: each.latency_ms)


def prefix(backends: Sequence[Backend], affinity: int) -> Backend:
    """The first in the request's own order of replicas that is not loaded far above the mean.

    The order is by a hash of replica and affinity, so that it stays the same for all others when
    a replica comes or goes, and the same in every worker. Nothing is remembered.
    """
    total = sum(each.in_flight for each in backends) + 1
    slots = sum(each.replica.slots for each in backends)
    most = _BOUND * total / slots
    ranked = sorted(backends, key=lambda each: rank(each.seed, affinity), reverse=True)
    for each in ranked:
        if (each.in_flight + 1) / each.replica.slots <= max(most, 1 / each.replica.slots):
            return each
    return ranked[0]


def rank(seed: int, affinity: int) -> int:
    """A hash of both, of 64 bits: the place of `seed` in the order that belongs to `affinity`."""
    mixed = (seed ^ affinity * _MIX) & _MASK
    mixed = (mixed ^ mixed >> 31) * _MIX & _MASK
    return mixed ^ mixed >> 29


PICKS: dict[Policy, Pick] = {
    "p2c": p2c,
    "least_loaded": least_loaded,
    "weighted": at_random,
    "prefix": prefix,
    "cheapest": p2c,
    "fastest": fastest,
}
