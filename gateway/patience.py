"""How long one request may take, phase by phase."""

from __future__ import annotations

import math

from core.kernel import clock
from gateway.config import Timeouts


class Patience:
    """How long each phase of one request may take: its route's timeouts, within the total.

    Args:
        timeouts: Of its route.
        began_s: When it began, on the monotonic clock; None is now.
    """

    __slots__ = ("_ends_s", "_timeouts")

    def __init__(self, timeouts: Timeouts, began_s: float | None = None) -> None:
        self._timeouts = timeouts
        total_s = timeouts.total_s
        if total_s != math.inf:
            total_s += clock.monotonic_s() if began_s is None else began_s
        self._ends_s = total_s

    @property
    def connect_s(self) -> float:
        """For a connection."""
        return self._within_total(self._timeouts.connect_s)

    @property
    def first_byte_s(self) -> float:
        """Up to the first token, or the answer's beginning."""
        return self._within_total(self._timeouts.first_byte_s)

    @property
    def between_tokens_s(self) -> float:
        """From one read to the next."""
        return self._within_total(self._timeouts.between_tokens_s)

    @property
    def replica_wait_s(self) -> float:
        """For a replica that is being restarted."""
        return self._within_total(self._timeouts.replica_wait_s)

    @property
    def left_s(self) -> float:
        """Of the total."""
        return self._within_total(math.inf)

    @property
    def is_over(self) -> bool:
        """Whether the total is used up."""
        return self._ends_s != math.inf and clock.monotonic_s() >= self._ends_s

    def _within_total(self, phase_s: float) -> float:
        if self._ends_s == math.inf:
            return phase_s
        return min(phase_s, max(self._ends_s - clock.monotonic_s(), 0.001))
