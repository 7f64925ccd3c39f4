"""Hedged requests: what is late is asked of a second replica too, and the first answer counts.

As in Dean and Barroso, The tail at scale (2013): the second request waits until the first one is
later than most, and few requests may be sent twice, so that a slow service is not buried in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from core.contracts.request_fact import RequestFact
from core.contracts.route_table import Price
from core.kernel import clock
from gateway import split
from gateway.answer import Answer
from gateway.balancer import Backend, choose
from gateway.proxy import Call, Proxy
from gateway.usage import Usage, cost_usd

if TYPE_CHECKING:
    from gateway.hedging import Hedging
    from gateway.short_way import ShortCall
    from gateway.table import Target

_INFERENCE = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings"})

_Running = asyncio.Future[Answer]


class HedgingProxy(Proxy):
    """Finds a replica that answers, and asks a second one where the route says so."""

    async def _attempt(
        self, backend: Backend, target: Target, call: Call, begun: ShortCall | None
    ) -> Answer:
        hedging = _hedging_of(target, call)
        if hedging is None or begun is not None:
            return await super()._attempt(backend, target, call, begun)
        began_s, stream = clock.monotonic_s(), call.body.stream
        others = [each for each in target.own if each is not backend]
        after_s = None if call.fact.hedge or not others else hedging.after_s(stream=stream)
        if after_s is None:
            answer = await super()._attempt(backend, target, call, None)
            hedging.seen(_ms_since(began_s), stream=stream)
            return answer

        attempt, price = super()._attempt, target.route.price

        def second(twin: Call) -> Attempt | None:
            free = [each for each in others if each.available and _has_room(each)]
            other = choose(free, (), target.pick, call.affinity) if free else None
            if other is None or not hedging.take():
                return None
            return Attempt(attempt(other, target, twin, None), price)

        first = Attempt(attempt(backend, target, call, None), price)
        raced = await self.race(call, first, after_s, second)
        if raced.second_won and raced.is_cancelled:
            # It would have taken longer than this: else it would go on to look quick.
            backend.was_slower_than(_ms_since(began_s))
        hedging.seen(_ms_since(began_s), stream=stream)
        return raced.answer

    async def _begin(
        self,
        find: Callable[[str], Target],
        target: Target,
        call: Call,
        part: str = "",
        begun: ShortCall | None = None,
    ) -> Answer:
        """As of `Proxy`; a target that has but one replica is hedged with the next target."""
        hedging = _hedging_of(target, call)
        if hedging is not None and not call.fact.hedge and not call.fact.attempts:
            hedging.request()
        plain = super()._begin
        if hedging is None or not part or len(target.own) > 1 or call.fact.hedge:
            return await plain(find, target, call, part, begun)
        after_s = hedging.after_s(stream=call.body.stream)
        if after_s is None:
            return await plain(find, target, call, part, begun)
        whole = find(target.route.model)

        def second(twin: Call) -> Attempt | None:
            others = [
                each
                for each in split.order(whole.shares)
                if each.route.deployment_id != part and any(map(_has_room, each.own))
            ]
            if not others or not others[0].is_available or not hedging.take():
                return None
            other = others[0]
            deployment_id = twin.fact.deployment_id = other.route.deployment_id
            begin = partial(plain, find, other, twin, deployment_id)
            if twin.beyond is None:
                return Attempt(begin(), other.route.price)
            name = whole.name_of(deployment_id)
            within = twin.beyond.within(name, other.route, twin.body, begin)
            return Attempt(within, other.route.price)

        began_s = clock.monotonic_s()
        first = Attempt(plain(find, target, call, part, begun), target.route.price)
        raced = await self.race(call, first, after_s, second)
        if raced.second_won:
            hedging.seen(_ms_since(began_s), stream=call.body.stream)
        return raced.answer

    async def race(
        self,
        call: Call,
        first: Attempt,
        after_s: float,
        second: Callable[[Call], Attempt | None],
    ) -> _Raced:
        """The first good answer; what is not needed is cancelled.

        Args:
            call: The request; its fact tells in the end of the one that answered.
            first: The attempt that begins now.
            after_s: When it is late.
            second: Gives the other attempt then, for a call with a fact of its own; None when there
                is none.

        Raises as the first attempt does, when there is no good answer.
        """
        fact, one = call.fact, asyncio.ensure_future(first.answer)
        two: _Running | None = None
        winner: _Running | None = None
        try:
            await asyncio.wait((one,), timeout=after_s)
            other = twin = None
            if not one.done():
                twin = replace(call, fact=msgspec.structs.replace(fact, hedge="lost", attempts=0))
                other = second(twin)
            if twin is None or other is None:
                answer = await one
                winner = one
                return _Raced(answer)
            fact.hedge = "lost"
            two = asyncio.ensure_future(other.answer)
            winner = await _first_good(one, two)
            fact.attempts += twin.fact.attempts
            self._stats.hedges.add(call.body.model, _result(winner, one))
            if winner is None:
                fact.hedge = ""
                return _Raced(one.result())  # which raises
            loser, price = (two, other.price) if winner is one else (one, first.price)
            answer, is_cancelled = winner.result(), not loser.done()
            answer.cancelled_price = price if is_cancelled else None
            if winner is two:
                _take_over(fact, twin.fact)
            return _Raced(answer, winner is two, is_cancelled)
        finally:
            try:
                await _end([each for each in (one, two) if each not in (None, winner)])
            except asyncio.CancelledError:
                if winner is not None:
                    _let_go(winner)  # its caller left just now: nobody else will
                raise


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way to an answer; `price` is that of its tokens, None when there is none."""

    answer: Coroutine[Any, Any, Answer]
    price: Price | None


@dataclass(frozen=True, slots=True)
class _Raced:
    answer: Answer
    second_won: bool = False
    is_cancelled: bool = False


async def _first_good(one: _Running, two: _Running) -> _Running | None:
    waiting = {one, two}
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for each in (one, two):
            if each in done and not each.cancelled() and each.exception() is None:
                return each
    return None


async def _end(others: Sequence[_Running | None]) -> None:
    """Cancel what still runs, and wait for its end: what it holds is settled with the request."""
    running = [each for each in others if each is not None]
    for each in running:
        each.cancel()
        each.add_done_callback(_let_go)
    if any(not each.done() for each in running):
        await asyncio.wait(running)


def _let_go(ended: _Running) -> None:
    """Free the replica of an answer that came too late."""
    if not ended.cancelled() and ended.exception() is None:
        ended.result().release()


def _take_over(fact: RequestFact, other: RequestFact) -> None:
    fact.hedge = "won"
    fact.replica_id, fact.deployment_id = other.replica_id, other.deployment_id
    fact.connect_ms = other.connect_ms


def _result(winner: _Running | None, one: _Running) -> str:
    if winner is None:
        return "failed"
    return "lost" if winner is one else "won"


def charge(fact: RequestFact, price: Price | None) -> None:
    """Add what an attempt costs that was cancelled: the prompt, which it was sent.

    Args:
        fact: The request's, with the tokens and the cost of the answer that counts.
        price: Of the tokens of the one that was cancelled.
    """
    if fact.input_tokens is None:
        return
    prompt_usd = cost_usd(price, Usage(prompt_tokens=fact.input_tokens))
    if prompt_usd is not None:
        fact.hedge_cost_usd = prompt_usd
        fact.cost_usd = (fact.cost_usd or 0.0) + prompt_usd


def _hedging_of(target: Target, call: Call) -> Hedging | None:
    """None for what is no inference: it comes early, and would make all others late."""
    return target.hedging if call.path in _INFERENCE else None


def _has_room(backend: Backend) -> bool:
    """Whether a request more would not wait there; nobody knows of hosted ones."""
    return backend.provider is not None or backend.in_flight < backend.replica.slots


def _ms_since(began_s: float) -> float:
    return (clock.monotonic_s() - began_s) * 1000
