"""When the requests of a route are sent twice, and how many."""

from __future__ import annotations

from collections import deque

from core.contracts.route_table import Hedge

_LATE = 0.95
# So many answers must be known before it can be said what is late, and so many of late are.
_FEWEST, _MOST = 20, 200
_LOOK_AGAIN = 10
_LEAST_S = 0.001
# Hedges that were not used are saved up to so many.
_MOST_SAVED = 10.0


class Hedging:
    """When the requests of one route are sent twice, and how many, in one worker.

    Args:
        rule: As the route says.
    """

    def __init__(self, rule: Hedge) -> None:
        self.rule = rule
        self._saved = 0.0
        # Whole answers take longer than first tokens: each has its own measure.
        self._seen = {stream: _Times() for stream in (False, True)}

    def use(self, rule: Hedge) -> None:
        """Take what the route says now; what was saved up by another rule is not used."""
        if rule != self.rule:
            self.rule, self._saved = rule, 0.0

    def request(self) -> None:
        """A request came."""
        self._saved = min(self._saved + self.rule.percent / 100, _MOST_SAVED)

    def take(self) -> bool:
        """Whether a request may be sent twice now."""
        if self._saved < 1:
            return False
        self._saved -= 1
        return True

    def seen(self, first_byte_ms: float, *, stream: bool) -> None:
        """An answer came, or its replica was given up after so long."""
        self._seen[stream].add(first_byte_ms)

    def after_s(self, *, stream: bool) -> float | None:
        """When an answer is late; None while nobody knows."""
        if self.rule.after_ms is not None:
            return self.rule.after_ms / 1000
        late_ms = self._seen[stream].late_ms
        return None if late_ms is None else max(late_ms / 1000, _LEAST_S)


class _Times:
    """The last times to the first byte, and their 95th percentile."""

    __slots__ = ("_last", "_until_look", "late_ms")

    def __init__(self) -> None:
        self.late_ms: float | None = None
        self._last: deque[float] = deque(maxlen=_MOST)
        self._until_look = _FEWEST

    def add(self, time_ms: float) -> None:
        self._last.append(time_ms)
        self._until_look -= 1
        if self._until_look <= 0:
            self._until_look = _LOOK_AGAIN
            self.late_ms = sorted(self._last)[int(_LATE * len(self._last))]
