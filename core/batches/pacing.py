"""How many lines may be asked at once: what live requests leave free, less one.

Of the slots of a route's replicas those are taken that no live request is at, and one of them is
left for the next live request; a route with a single slot is asked when it is idle. So a live
request never waits for more than the lines that were begun before it came. At providers, whose
slots nobody knows, four lines are asked at once. What live requests do is known to a second.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from core.routing import live
from core.routing.live import Capacity

MOST_AT_ONCE = 16
_AT_A_PROVIDER = 4
_LOOK_S = 0.5
# What a gateway says of itself may be so old: lines that ended meanwhile are still in it.
_MEMORY_S = 2.0


class Lane:
    """The lines of all batches that one route works on; for any thread.

    Args:
        look: Gives the route's capacity.
        now_s: A monotonic clock.
    """

    def __init__(
        self, look: Callable[[], Capacity | None], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._look, self._now_s = look, now_s
        self._lock = threading.Lock()
        self._own = 0
        self._peaks: deque[tuple[float, int]] = deque()
        self._seen: Capacity | None = None
        self._seen_s = float("-inf")

    def take(self) -> bool:
        """Begin a line, if one may begin now; `give_back` ends it."""
        with self._lock:
            if self._own >= self._allowed():
                return False
            self._own += 1
            self._remember()
            return True

    def give_back(self) -> None:
        """A line has ended."""
        with self._lock:
            self._own -= 1
            self._remember()

    def _allowed(self) -> int:
        now_s = self._now_s()
        if now_s - self._seen_s >= _LOOK_S:
            self._seen, self._seen_s = self._look(), now_s
        if self._seen is None:
            return 1  # the gateway says why it cannot
        while len(self._peaks) > 1 and self._peaks[1][0] < now_s - _MEMORY_S:
            self._peaks.popleft()
        own = max((count for _, count in self._peaks), default=0)
        return allowed(self._seen, max(self._seen.in_flight - own, 0))

    def _remember(self) -> None:
        self._peaks.append((self._now_s(), self._own))


def allowed(capacity: Capacity, live_requests: int) -> int:
    """How many lines of all batches together may be asked at once."""
    at_providers = capacity.hosted * _AT_A_PROVIDER
    if capacity.slots <= 1:
        free = capacity.slots if not live_requests else 0
    else:
        free = max(capacity.slots - 1 - live_requests, 0)
    if not capacity.slots and not capacity.hosted:
        return 1  # it is being brought up: the gateway waits for it
    return min(free + at_providers, MOST_AT_ONCE)


_lanes: dict[tuple[str, str], Lane] = {}
_lanes_lock = threading.Lock()


def lane(project_id: str, model: str) -> Lane:
    """The lane of a route, the same for every batch."""
    with _lanes_lock:
        place = (project_id, model)
        if place not in _lanes:
            _lanes[place] = Lane(lambda: live.capacity(project_id, model))
        return _lanes[place]
