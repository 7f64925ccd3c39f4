"""What a long session spends, settled answer by answer: a limit that is reached ends it."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.route_table import ApiKey, Route
from gateway.limits.gate import LimitGate
from gateway.limits.limiter import Reservation


class Spending:
    """The tokens and USD of one session.

    Args:
        gate: The limits.
        key: Whose session it is.
        models: Whose limits hold: what is called, then what answers for it.
        route: How it answers.
    """

    def __init__(self, gate: LimitGate, key: ApiKey, models: Sequence[str], route: Route) -> None:
        self._gate, self._key, self._models, self._route = gate, key, models, route
        self._held: Reservation | None = None

    async def begin(self) -> None:
        """Hold that something may be spent. Raises GatewayError: a limit is reached."""
        self._held = await self._gate.admit_more(self._key, self._models, self._route)

    def end(self, tokens: int = 0, cost_usd: float = 0.0) -> None:
        """Give back what is held, but for what an answer took; `begin` lets another one follow."""
        held, self._held = self._held, None
        if held is not None:
            self._gate.settle_as(held, tokens, cost_usd)
