"""Limits of the models that answer for another: a route's targets, and fallbacks.

A request is admitted by the limits of the name that was called. A deployment or hosted model behind
that name may have limits of its own, and they hold for every request that comes to it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from core.contracts.request_fact import RequestFact
from core.contracts.route_table import Route
from gateway.body import Parsed
from gateway.errors import GatewayError
from gateway.limits.gate import LimitGate
from gateway.limits.limiter import Reservation

_Answer = TypeVar("_Answer")


class Beyond:
    """What one request holds of the models that answer in the place of the one it called.

    Made only where a project limits models, and the one called has targets or fallbacks.

    Args:
        gate: The limits.
    """

    __slots__ = ("_gate", "_held")

    def __init__(self, gate: LimitGate) -> None:
        self._gate = gate
        self._held: list[tuple[Reservation, Route]] = []

    async def within(
        self, model: str, route: Route, body: Parsed, begin: Callable[[], Awaitable[_Answer]]
    ) -> _Answer:
        """What `begin` gives, within the limits of a model; what gives no answer takes nothing.

        Args:
            model: Whose limits hold.
            route: How it answers: project, price, context.
            body: What is sent.
            begin: Sends it.

        Raises:
            GatewayError: A limit is reached, or what `begin` raises.
        """
        held = await self._gate.admit_model(model, route, body)
        if held is None:
            return await begin()
        try:
            answer = await begin()
        except GatewayError:
            self._gate.settle_unused(held)
            raise
        except BaseException:
            self._held.append((held, route))  # it may have worked on it
            raise
        self._held.append((held, route))
        return answer

    def settle(self, fact: RequestFact) -> None:
        """Put what the request took in the place of all that it holds.

        Of two targets that were asked, the one that was not waited for took the prompt.
        """
        took_usd, hedge_usd = fact.cost_usd or 0.0, fact.hedge_cost_usd or 0.0
        for held, route in self._held:
            answered = bool(route.targets) or route.deployment_id == fact.deployment_id
            if fact.input_tokens is None:
                self._gate.settle(held, fact)
            elif answered:
                tokens = fact.input_tokens + (fact.output_tokens or 0)
                self._gate.settle_as(held, tokens, took_usd - hedge_usd)
            else:
                self._gate.settle_as(held, fact.input_tokens, hedge_usd)
        self._held.clear()
