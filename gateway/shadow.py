"""Shadow traffic: copies of some requests go to another model, and nobody gets the answers.

The copy of a request is sent after it, once, and is in nobody's way: no retry, no waiting for a
replica, no limits, no place in the caller's totals. What is over the bounds of a worker is dropped.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import msgspec

from core.contracts.request_fact import RequestFact
from core.contracts.route_table import Shadow
from core.kernel import clock, ids
from gateway.answer import Answer
from gateway.balancer import RetryBudget
from gateway.body import Parsed
from gateway.errors import GatewayError
from gateway.facts import FactWriter
from gateway.proxy import Proxy
from gateway.relay import CLIENT_CLOSED, Exchange
from gateway.stats import Stats
from gateway.table import TableHolder, Target, Traffic
from gateway.tracing import Trace, Tracer
from gateway.upstream import Broken, Stopped, TimedOut
from gateway.usage import cost_usd

_MOST_AT_ONCE = 64
_MOST_BYTES = 16_000_000
_CAPABILITIES = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completion",
    "/v1/embeddings": "embedding",
}


class Shadows:
    """The copies that one worker sends.

    Args:
        tables: With the route table in use.
        stats: The worker's metrics.
        facts: Where the fact of each copy goes.
        tracer: Traces copies of requests that are traced; None when none is.
    """

    def __init__(
        self, tables: TableHolder, stats: Stats, facts: FactWriter, tracer: Tracer | None
    ) -> None:
        self._tables, self._stats, self._facts, self._tracer = tables, stats, facts, tracer
        # What it counts is of callers' requests.
        self._proxy = Proxy(Stats())
        self._running: set[asyncio.Task[None]] = set()
        self._bytes = 0

    def offer(
        self, shadow: Shadow, exchange: Exchange, path: str, body: Parsed, session: str
    ) -> None:
        """Send a copy of a request, if it is drawn and there is room; waits for nothing.

        Args:
            shadow: Where to, and how many.
            exchange: The request.
            path: The endpoint at the replica.
            body: As its replica gets it.
            session: As its replica is chosen by.
        """
        if random.random() * 100 >= shadow.percent:  # noqa: S311 (not cryptography)
            return
        asked = exchange.fact
        target = self._tables.current.routes.get((asked.project_id, shadow.model))
        why = self._obstacle(target, path, len(body.raw))
        if target is None or why:
            self._stats.shadow_dropped.add(asked.model, shadow.model, why)
            return
        fact = RequestFact(
            request_id=ids.new_id("req"), started_unix_s=clock.unix_s(), endpoint=asked.endpoint,
            model=shadow.model, project_id=asked.project_id, key_id=asked.key_id,
            user_id=asked.user_id, deployment_id=target.route.deployment_id, stream=body.stream,
            worker_id=asked.worker_id, request_bytes=len(body.raw), shadow_of=asked.request_id,
        )  # fmt: skip
        trace = None
        if self._tracer is not None and exchange.trace is not None:
            trace = self._tracer.follow(exchange.trace, fact)
        self._bytes += len(body.raw)
        # It begins when this one waits for its replica.
        task = asyncio.create_task(self._send(fact, asked.model, path, body, session, trace))
        self._running.add(task)
        task.add_done_callback(partial(self._forget, len(body.raw)))

    def _obstacle(self, target: Target | None, path: str, size_bytes: int) -> str:
        if target is None:
            return "no_model"
        if _CAPABILITIES.get(path) not in target.route.capabilities:
            return "capability"
        if len(self._running) >= _MOST_AT_ONCE:
            return "too_many"
        return "too_large" if self._bytes + size_bytes > _MOST_BYTES else ""

    def _forget(self, size_bytes: int, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._bytes -= size_bytes

    async def close(self) -> None:
        """Give up those that are not answered yet."""
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)

    async def _send(
        self,
        fact: RequestFact,
        model: str,
        path: str,
        body: Parsed,
        session: str,
        trace: Trace | None,
    ) -> None:
        began_s = clock.monotonic_s()
        answer: Answer | None = None
        try:
            copy = body.to_model(fact.model)
            del body
            answer = await self._proxy.begin(self._find(fact), path, copy, fact, session)
            del copy
            fact.status = 200
            if answer.events is None:
                while await answer.next():
                    continue
            else:
                fact.ttft_ms = (clock.monotonic_s() - began_s) * 1000
                await answer.hand_on(_throw_away, _throw_away)
        except GatewayError as error:
            fact.status, fact.error_class = error.status, error.error_class
            fact.error_message = error.message
        except (Broken, TimedOut, Stopped) as error:
            fact.error_class = "timeout" if isinstance(error, TimedOut) else "upstream_broke"
            fact.error_message = f"The answer broke off: {error}."
        except asyncio.CancelledError:
            fact.status, fact.error_class = CLIENT_CLOSED, "gateway_stopped"
            fact.error_message = "The gateway stopped."
        finally:
            fact.duration_ms = (clock.monotonic_s() - began_s) * 1000
            if answer is not None:
                _account(fact, answer)
                answer.release()
            self._stats.shadow_ended(fact, model)
            self._facts.add(fact)
            if self._tracer is not None and trace is not None:
                self._tracer.add(trace, fact, "" if answer is None else answer.provider_kind)

    def _find(self, fact: RequestFact) -> Callable[[str], Target]:
        def find(model: str) -> Target:
            target = self._tables.current.routes.get((fact.project_id, model))
            if target is None:
                raise GatewayError("not_found", f"There is no model {model!r} in this project.")
            return _alone(target)

        return find


class _NoRetries(RetryBudget):
    """A copy is sent once, and pays nobody's retries."""

    def take(self) -> bool:
        """See `RetryBudget`."""
        return False


_NO_RETRIES = _NoRetries()


def _alone(target: Target) -> Target:
    """A route without what costs its own callers something, or counts as theirs."""
    return replace(
        target,
        route=msgspec.structs.replace(target.route, fallbacks=[]),
        budget=_NO_RETRIES,
        timeouts=replace(target.timeouts, replica_wait_s=0.0),
        traffic=Traffic(),
        shares=tuple(replace(each, target=_alone(each.target)) for each in target.shares),
    )


def _throw_away(_piece: bytes) -> None:
    """Nobody gets it."""


def _account(fact: RequestFact, answer: Answer) -> None:
    if answer.events is not None and answer.events.error is not None and not fact.error_class:
        fact.error_class = "upstream_error"
        fact.error_message = "The replica ended the stream with an error event."
    found = answer.usage
    if found is not None:
        fact.input_tokens, fact.output_tokens = found.prompt_tokens, found.completion_tokens
        fact.cached_tokens = found.cached_tokens
        fact.cost_usd = cost_usd(answer.price, found)
