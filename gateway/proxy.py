"""Carries one request to a replica, within the rules for retries, and its answer back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from core.contracts.request_fact import RequestFact
from core.kernel import clock
from gateway import policies, split
from gateway.answer import Answer
from gateway.balancer import Backend, choose
from gateway.body import Parsed
from gateway.errors import GatewayError, from_upstream
from gateway.limits.beyond import Beyond
from gateway.patience import Patience
from gateway.providers import PERMANENT, Provider, TranslatedStream
from gateway.sse import EventStream, as_json
from gateway.stats import Stats
from gateway.table import Target
from gateway.tracing import traceparent
from gateway.upstream import Broken, ConnectFailed, Connection, TimedOut

if TYPE_CHECKING:
    from gateway.short_way import ShortCall

MAX_ATTEMPTS = 3
_RETRY_STATUSES = frozenset({429, 502, 503, 504})
_POLL_S = 0.25
_OWN_FAULTS = frozenset({"no_replica", "upstream_error"})
# What another model may still answer; the rest is the request's own fault.
_ELSEWHERE = frozenset(
    {"no_replica", "connect", "upstream_error", "upstream_broke", "timeout", "context_length"}
)
# A target or a fallback whose own limit is reached leaves requests to the next one.
_NEXT = _ELSEWHERE | {"rate_limited", "budget_exceeded"}
# No replica began to work on the request: waiting for one costs nothing but time.
_UNREACHED = frozenset({"no_replica", "connect"})
_MAX_ERROR_BYTES = 64 * 1024


@dataclass(slots=True)
class Call:
    """One request on its way: what to send, to which path, and how long it may take."""

    path: str
    body: Parsed
    fact: RequestFact
    patience: Patience
    affinity: int
    beyond: Beyond | None


class _Retryable(Exception):
    """An attempt that another one may follow.

    Args:
        error: What the caller gets when none follows.
        reason: For the metrics.
        unsent: The replica did not begin to work on the request, so that trying again is free.
        again: The same replica may answer better when it is asked again.
    """

    def __init__(
        self, error: GatewayError, reason: str, *, unsent: bool = False, again: bool = True
    ) -> None:
        super().__init__(reason)
        self.error = error
        self.reason = reason
        self.unsent = unsent
        self.again = again


class Proxy:
    """Finds a replica that answers."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    async def begin(
        self,
        find: Callable[[str], Target],
        path: str,
        body: Parsed,
        fact: RequestFact,
        session: str = "",
        beyond: Beyond | None = None,
        begun: ShortCall | None = None,
    ) -> Answer:
        """Send the request until a replica begins to answer: of its model, else of a fallback.

        Args:
            find: Looks a model's route up: more than once, since the table may change.
            path: The endpoint, the same at the replica.
            body: What the caller sent.
            fact: The request's fact; what answered, attempts and connect time are filled in.
            session: What the caller says belongs together; "" means nothing.
            beyond: The limits of targets and fallbacks; None when they have none.
            begun: What was sent already; None when nothing was.

        Raises:
            GatewayError: No replica answers, or the request itself is refused.
        """
        target = find(body.model) if begun is None else begun.target
        patience = Patience(target.timeouts, begun.sent_s if begun else None)
        prefixed = target.route.policy == "prefix"
        affinity = policies.affinity(session, body.raw) if prefixed else 0
        call = Call(path, body, fact, patience, affinity, beyond)
        try:
            if target.shares:
                return await self._shared(find, target, call)
            return await self._begin(find, target, call, begun=begun)
        except GatewayError as error:
            if error.error_class not in _NEXT or not target.route.fallbacks:
                raise
            return await self._fallen_back(find, target.route.fallbacks, call, error)

    async def _fallen_back(
        self, find: Callable[[str], Target], models: list[str], call: Call, last: GatewayError
    ) -> Answer:
        """The answer of the first fallback that gives one. Raises as the last one did."""
        for model in models:
            if call.patience.is_over:
                break
            self._stats.fallbacks.add(call.body.model, model)
            try:
                target = find(model)
                call.fact.deployment_id = target.route.deployment_id
                begin = partial(self._shared if target.shares else self._begin, find, target, call)
                if call.beyond is None:
                    return await begin()
                return await call.beyond.within(model, target.route, call.body, begin)
            except GatewayError as error:
                if error.error_class not in _NEXT | {"not_found", "capability"}:
                    raise
                last = error
        raise last

    async def _shared(self, find: Callable[[str], Target], target: Target, call: Call) -> Answer:
        """The answer of the first of a route's targets that gives one.

        Going on to another target is not paid from a retry budget, as a fallback is not: each
        target has its own. When none can be reached, the request waits for one for a while.
        """
        model = target.route.model
        by_key = target.route.split_by == "key"
        key = (call.fact.key_id or call.fact.user_id) if by_key else ""
        give_up_s = clock.monotonic_s() + _wait_s(target, call.patience)
        last: GatewayError | None = None
        while True:
            for part in split.order(target.shares, key):
                deployment_id = call.fact.deployment_id = part.route.deployment_id
                try:
                    now = _found(find, model, deployment_id)
                    begin = partial(self._begin, find, now, call, deployment_id)
                    if call.beyond is None:
                        return await begin()
                    name = target.name_of(deployment_id)
                    return await call.beyond.within(name, now.route, call.body, begin)
                except GatewayError as error:
                    if error.error_class not in _NEXT or call.patience.is_over:
                        raise
                    last = error
            if last is not None and last.error_class not in _UNREACHED:
                raise last
            if not target.may_come_back or clock.monotonic_s() >= give_up_s:
                raise last or not_ready(target)
            await self._wait(target, call.fact)
            target = find(model)

    async def _begin(
        self,
        find: Callable[[str], Target],
        target: Target,
        call: Call,
        part: str = "",
        begun: ShortCall | None = None,
    ) -> Answer:
        """Send the request until a replica of one model, or of one target, begins to answer.

        A replica that did not begin to work on it (nothing listens, or it is loading) costs
        nothing but time, so the request waits for one for a while; every other retry is paid
        from a budget.

        Args:
            find: Looks a model's route up, when there was time for it to change.
            target: The route, or that target of it.
            call: What to send.
            part: The deployment of one of the route's targets; "" for a route with replicas.
            begun: The first attempt, when it is made already.
        """
        model = target.route.model
        if begun is None:
            target.budget.requests += 1
        tried: list[Backend] = []
        paid = 0
        last: GatewayError | None = None
        give_up_s: float | None = None
        while True:
            backend = begun and begun.backend
            backend = backend or choose(target.own, tried, target.pick, call.affinity)
            if backend is not None:
                try:
                    return await self._attempt(backend, target, call, begun)
                except _Retryable as failed:
                    failure, last, begun = failed, failed.error, None
                tried.append(backend)
                target = _found(find, model, part)
                if not failure.unsent:
                    paid += 1
                    if paid >= MAX_ATTEMPTS or not _may_retry(failure, target, tried):
                        raise last
                if call.patience.is_over:
                    raise last
                self._stats.retries.add(failure.reason)
                continue
            if part:
                raise last or not_ready(target)
            give_up_s = give_up_s or clock.monotonic_s() + _wait_s(target, call.patience)
            if not target.may_come_back or clock.monotonic_s() >= give_up_s:
                raise last or not_ready(target)
            await self._wait(target, call.fact)
            target = _found(find, model, part)

    async def _wait(self, target: Target, fact: RequestFact) -> None:
        soonest_s = min((backend.wait_s for backend in target.backends), default=_POLL_S)
        self._stats.waiting.add(value=1)
        began_s = clock.monotonic_s()
        try:
            jitter = random.uniform(1.0, 1.3)  # noqa: S311 (not cryptography)
            await asyncio.sleep(min(max(soonest_s, 0.02), _POLL_S) * jitter)
        finally:
            self._stats.waiting.add(value=-1)
            fact.queue_ms += (clock.monotonic_s() - began_s) * 1000

    async def _attempt(
        self, backend: Backend, target: Target, call: Call, begun: ShortCall | None
    ) -> Answer:
        """One attempt. Raises _Retryable or GatewayError."""
        began_s = clock.monotonic_s() if begun is None else begun.sent_s
        answer: Answer | None = None
        if begun is None:
            call.fact.attempts += 1
            call.fact.replica_id = backend.replica.id
            backend.began()
            target.traffic.requests += 1
        try:
            connection = await self._sent(
                backend, target, call, begun.connection if begun else None
            )
            try:
                answer = await self._begun(backend, connection, target, call)
            finally:
                if answer is None:
                    backend.pool.release(connection)
        except (ConnectFailed, Broken, TimedOut, _Retryable) as error:
            target.traffic.failures += 1
            raise _judged(error, backend, began_s, target.route.model) from error
        except GatewayError as error:
            target.traffic.failures += error.error_class in _ELSEWHERE
            raise
        finally:
            if answer is None:
                backend.ended()
        backend.succeeded((clock.monotonic_s() - began_s) * 1000)
        return answer

    async def _sent(
        self, backend: Backend, target: Target, call: Call, sent: Connection | None
    ) -> Connection:
        """A connection on which the replica's status has come.

        Args:
            backend: The replica.
            target: Its route.
            call: What to send.
            sent: The connection on which that was sent already; None when it was not.
        """
        body, fact, patience = call.body, call.fact, call.patience
        if backend.provider is None:
            outgoing = body.for_replica(target.route.upstream_model)
            head = backend.pool.head(
                call.path, len(outgoing), fact.request_id,
                stream=body.stream, traceparent=traceparent(fact) if fact.trace_id else "",
            )  # fmt: skip
        else:
            await backend.provider.ready(patience.connect_s)
            request = backend.provider.request(call.path, body)
            outgoing = request.body
            head = backend.pool.own_head(request.path, request.headers, len(outgoing))
        kept = sent or backend.pool.idle()
        if kept is not None:
            if sent is None:
                kept.send(head, outgoing)
            if await self._on_kept(kept, patience):
                return kept
        began_s = clock.monotonic_s()
        connection = await backend.pool.connect(patience.connect_s)
        fact.connect_ms = (clock.monotonic_s() - began_s) * 1000
        backend.connected()
        try:
            connection.send(head, outgoing)
            await connection.head(patience.first_byte_s)
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _begun(
        self, backend: Backend, connection: Connection, target: Target, call: Call
    ) -> Answer:
        body, model = call.body, target.route.model
        if connection.status != 200:
            raise await self._refusal(connection, model, backend.provider, call.patience)
        name = as_json(body.model)
        events = EventStream(keep_usage=body.wants_usage, model=name) if body.stream else None
        if events is not None and backend.provider is not None:
            translator = backend.provider.stream()
            events = TranslatedStream(translator, keep_usage=body.wants_usage, model=name)
        answer = Answer(backend, target.route, connection, events, call.patience)
        try:
            await answer.begin(model, name)
        except GatewayError as error:
            if backend.provider is None:
                meant = _of_replica(error, "error_event", error.status)
            else:
                meant = _of_provider(error)
            if meant is error:
                raise
            raise meant from error
        return answer

    async def _on_kept(self, connection: Connection, patience: Patience) -> bool:
        """Wait on a kept connection; False when it turns out to be closed: use a new one."""
        try:
            await connection.head(patience.first_byte_s)
        except Broken:
            if connection.answer_begun:
                connection.abort()
                raise
            return False
        except BaseException:
            connection.abort()
            raise
        return True

    async def _refusal(
        self, connection: Connection, model: str, provider: Provider | None, patience: Patience
    ) -> Exception:
        reads: list[bytes] = []
        size_bytes = 0
        while size_bytes < _MAX_ERROR_BYTES:
            read = await connection.read(patience.between_tokens_s)
            if not read:
                break
            reads.append(read)
            size_bytes += len(read)
        after = connection.headers.get(b"retry-after", b"")
        retry_after_s = int(after) if after.isdigit() else None
        status = connection.status
        if provider is not None:
            refused = provider.error(status, b"".join(reads), model, retry_after_s=retry_after_s)
            return _of_provider(refused)
        error = from_upstream(status, b"".join(reads), model, retry_after_s=retry_after_s)
        return _of_replica(error, str(status), status)


def _of_replica(error: GatewayError, reason: str, status: int) -> Exception:
    """What a replica's refusal means: what is its own fault, another may do better.

    One that fails at once has the least load: without being put aside it would get every request.
    """
    if error.error_class not in _OWN_FAULTS:
        return error
    return _Retryable(error, reason, unsent=status == 503, again=status in _RETRY_STATUSES - {429})


def _of_provider(error: GatewayError) -> Exception:
    """What a provider's refusal means: what is not the request's fault, another may do better."""
    if error.status not in _RETRY_STATUSES:
        return error
    # Its own limits and Bud's credentials are the same a moment later.
    again = error.status != 429 and error.code not in PERMANENT
    return _Retryable(error, str(error.status), again=again)


def _found(find: Callable[[str], Target], model: str, part: str) -> Target:
    return find(model).part(part) if part else find(model)


def _wait_s(target: Target, patience: Patience) -> float:
    """How long to wait for a replica; not at all when another model can answer now."""
    return 0.0 if target.route.fallbacks else patience.replica_wait_s


def _may_retry(failure: _Retryable, target: Target, tried: list[Backend]) -> bool:
    """Whether the budget pays another attempt; one that is overloaded is not asked again."""
    elsewhere = any(backend.available and backend not in tried for backend in target.own)
    return (elsewhere or failure.again) and target.budget.take()


def _judged(error: Exception, backend: Backend, began_s: float, model: str) -> Exception:
    """What an attempt's failure means for the replica and for the request."""
    if isinstance(error, ConnectFailed):
        backend.failed(began_s, away=True)
        refused = GatewayError(
            "connect", f"No replica of {model!r} can be reached now. Try again soon.",
            retry_after_s=2,
        )  # fmt: skip
        return _Retryable(refused, "connect", unsent=True)
    if isinstance(error, Broken):
        backend.failed(began_s, away=False)
        broken = GatewayError("upstream_broke", f"The replica of {model!r} broke off: {error}.")
        return _Retryable(broken, "broken")
    if isinstance(error, TimedOut):
        return GatewayError("timeout", f"{model!r} did not answer: {error}.")
    if isinstance(error, _Retryable) and error.error.status != 429:
        backend.failed(began_s, away=error.unsent)
    return error


def not_ready(target: Target) -> GatewayError:
    """Why no replica of a route can be asked now."""
    route = target.route
    if target.problem:
        return GatewayError(
            "no_replica", f"No replica of {route.model!r} can be used: {target.problem}",
        )  # fmt: skip
    hint = {
        "stopped": "Start it on its page.",
        "failed": "Its page says why.",
        "planned": "It is being brought up.",
    }.get(route.state, "Try again soon.")
    return GatewayError(
        "no_replica",
        f"No replica of {route.model!r} answers now: it is {route.state}. {hint}",
        retry_after_s=2,
    )
