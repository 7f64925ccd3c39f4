"""Brings an admitted request its answer: the one that is kept, or from a replica."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from core.contracts.route_table import Cache
from gateway import hedge
from gateway.body import Parsed
from gateway.cache.response_cache import Lookup, ResponseCache
from gateway.http_request import Response
from gateway.proxy import Proxy
from gateway.relay import Exchange
from gateway.shadow import Shadows
from gateway.stats import Stats
from gateway.table import TableHolder, Target


class Carrier:
    """The way of every request that some limit or rule may still have refused.

    Args:
        tables: With the route table in use.
        proxy: Finds a replica.
        cache: Answers that projects keep.
        shadows: Sends copies of requests.
        stats: The worker's metrics.
    """

    def __init__(
        self,
        tables: TableHolder,
        proxy: Proxy,
        cache: ResponseCache,
        shadows: Shadows,
        stats: Stats,
    ) -> None:
        self._tables, self._proxy, self._cache = tables, proxy, cache
        self._shadows, self._stats = shadows, stats

    async def carry(
        self,
        exchange: Exchange,
        find: Callable[[str], Target],
        path: str,
        body: Parsed,
        session: str,
    ) -> Response | None:
        """To a replica and back, unless the answer is kept; gives back what is still to be sent.

        Args:
            exchange: The request.
            find: Looks a model's route up: more than once, since the table may change.
            path: The endpoint at the replica.
            body: What it gets.
            session: What the caller says belongs together; "" means nothing.

        Raises:
            GatewayError: No replica answers, or the request itself is refused.
        """
        fact, begun = exchange.fact, exchange.request.begun
        headers = {"X-Request-Id": fact.request_id}
        cache, lookup = self._tables.current.caches.get(fact.project_id), None
        if cache is not None and begun is None:
            lookup = await self._looked_up(cache, exchange, find(fact.model), path, body)
            headers |= lookup.headers
            if lookup.answer is not None:
                return await exchange.send(lookup.answer, headers)
        # What was sent already is its route's of then, which may be gone.
        if begun is None and (shadow := find(fact.model).route.shadow) is not None:
            self._shadows.offer(shadow, exchange, path, body, session)
        answer = await self._proxy.begin(find, path, body, fact, session, exchange.beyond, begun)
        exchange.answer = answer
        del body
        try:
            if answer.route.model != fact.model:
                headers["X-Bud-Fallback"] = fact.answered_by = answer.route.model
            seen = answer
            if exchange.guard is not None:
                seen = await exchange.guard.watch(answer, exchange.collected)
            if lookup is not None:
                seen = lookup.watch(seen)
            response = await exchange.send(seen, headers)
        finally:
            exchange.account(answer, self._stats)
            if answer.cancelled_price is not None:
                hedge.charge(fact, answer.cancelled_price)
            answer.release()
        if lookup is not None and (exchange.guard is None or exchange.guard.has_seen_answer):
            lookup.keep()
        return response

    def _looked_up(
        self, cache: Cache, exchange: Exchange, target: Target, path: str, body: Parsed
    ) -> Awaitable[Lookup]:
        """What the project's cache says."""
        request, guard = exchange.request, exchange.guard
        rails = None if guard is None else guard.rails
        return self._cache.look(cache, target, path, body, rails, request.headers, exchange.fact)
