"""How many lines may be asked at once: what live requests leave free, less one.

Of the slots of a route's replicas those are taken that no live request is at, and one of them is
left for the next live request; a route with a single slot is asked when it is idle. So a live
request never waits for more than the lines that were begun before it came. At providers, whose
slots nobody knows, four lines are asked at once. What live requests do is known to a second.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from core.routing import live
from core.routing.live import Capacity

MOST_AT_ONCE = 16
_AT_A_PROVIDER = 4
_LOOK_S = 0.5
# What a gateway says of itself may be so old: lines that ended meanwhile are still in it.
_MEMORY_S = 2.0
# A batch that has not asked for so long, and has no line, wants none.
_WANTS_S = 1.0


class Lane:
    """The lines of all batches that one route works on; for any thread.

    Batches that want lines at the same time get equal shares of what there is.

    Args:
        look: Gives the route's capacity.
        now_s: A monotonic clock.
    """

    def __init__(
        self, look: Callable[[], Capacity | None], now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._look, self._now_s = look, now_s
        self._lock = threading.Lock()
        self._held: Counter[str] = Counter()
        self._wanted_s: dict[str, float] = {}
        self._peaks: deque[tuple[float, int]] = deque()
        self._seen: Capacity | None = None
        self._seen_s = float("-inf")

    @property
    def is_used(self) -> bool:
        """Whether a line is being asked."""
        return self._held.total() > 0

    def take(self, batch_id: str) -> bool:
        """Begin a line of a batch, if one may begin now; `give_back` ends it."""
        with self._lock:
            most = self._allowed()
            share = math.ceil(most / self._wanting(batch_id))
            if self._held.total() >= most or self._held[batch_id] >= share:
                return False
            self._held[batch_id] += 1
            self._remember()
            return True

    def give_back(self, batch_id: str) -> None:
        """A line of a batch has ended."""
        with self._lock:
            self._held[batch_id] -= 1
            self._remember()

    def _wanting(self, batch_id: str) -> int:
        """How many batches want lines now."""
        now_s = self._now_s()
        self._wanted_s[batch_id] = now_s
        for other, wanted_s in list(self._wanted_s.items()):
            if now_s - wanted_s > _WANTS_S and not self._held[other]:
                del self._wanted_s[other], self._held[other]
        return len(self._wanted_s)

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
        self._peaks.append((self._now_s(), self._held.total()))


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


# Names that a batch asks and that no route has make lanes, too.
_MOST_LANES = 1000
_lanes: dict[tuple[str, str], Lane] = {}
_lanes_lock = threading.Lock()


def lane(project_id: str, model: str) -> Lane:
    """The lane of a route, the same for every batch."""
    with _lanes_lock:
        place = (project_id, model)
        if len(_lanes) >= _MOST_LANES:
            for idle in [each for each, known in _lanes.items() if not known.is_used]:
                del _lanes[idle]
        if place not in _lanes:
            _lanes[place] = Lane(lambda: live.capacity(project_id, model))
        return _lanes[place]
