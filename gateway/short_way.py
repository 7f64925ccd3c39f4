"""Answers what has to wait for nothing but its replica, without a task.

Most requests are of this kind: their body came with their head, a connection to a replica is kept
and idle, and the replica's answer is good. A task and a chain of coroutines for such a
request cost a quarter of its CPU time. What turns out otherwise goes the long way
(`gateway.server`). Before anything was sent it begins there anew, so nothing is refused here;
afterwards it goes on there with what was sent, so that retries, time-outs and errors exist once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from core.contracts.request_fact import RequestFact
from core.contracts.route_table import ApiKey
from core.kernel import clock
from gateway import usage
from gateway.access import AccessGate
from gateway.balancer import Backend, choose
from gateway.body import Parsed, parse
from gateway.errors import GatewayError
from gateway.http_request import Request
from gateway.limits.gate import LimitGate
from gateway.limits.limiter import Reservation
from gateway.relay import Exchange
from gateway.request_id import request_id
from gateway.sse import as_json, named
from gateway.stats import Stats
from gateway.table import TableHolder, Target
from gateway.tracing import traceparent
from gateway.upstream import Connection, Stopped

if TYPE_CHECKING:
    from gateway.hot import HotConnection

log = logging.getLogger(__name__)

OK = 200


@dataclass(frozen=True, slots=True)
class Admission:
    """What holds for all requests with one head, as long as the route table is the same one.

    Attributes:
        mark: Of the table.
        key: Theirs; None when none of them can go the short way.
        can_stream: Whether answers may be streams.
        known: By model, what is known to answer without anything else to be asked.
    """

    mark: object
    key: ApiKey | None
    can_stream: bool
    known: dict[str, Known]


@dataclass(frozen=True, slots=True)
class Known:
    """What answers requests for one model with one head.

    Attributes:
        target: The route.
        fact: What their facts have in common.
    """

    target: Target
    fact: RequestFact


class ShortWay:
    """Takes requests of callers, and gives those it cannot finish to the long way.

    Args:
        endpoints: By path, its name in facts, the capability it needs, whether it can stream.
        tables: With the route table in use.
        access: Who may ask.
        limits: What they may use.
        stats: The worker's metrics.
        worker_id: As in facts.
        begun: Told of each request that is taken.
        ended: Told of each that has ended here, once its answer is on its way; it counts, settles
            and keeps the fact.
        stream: Makes a call whose answer is a stream.
    """

    def __init__(
        self,
        endpoints: Mapping[str, tuple[str, str, bool]],
        tables: TableHolder,
        access: AccessGate,
        limits: LimitGate,
        stats: Stats,
        worker_id: str,
        begun: Callable[[Exchange], None],
        ended: Callable[[Exchange], None],
        stream: type[ShortCall],
    ) -> None:
        self.stats = stats
        self.begun = begun
        self._ended, self._over = ended, list[Exchange]()
        self._endpoints = endpoints
        self._tables, self._access, self._limits = tables, access, limits
        self._worker_id, self._stream = worker_id, stream

    def take(self, request: Request, caller: HotConnection) -> ShortCall | None:
        """Send a request whose body is there to a replica; None: it must go the long way."""
        head, pieces = request.head, request.pieces
        admission = head.admission
        if admission is None or admission.mark is not self._tables.current.mark:
            admission = head.admission = self._admission(request)
        key, now_unix_s = admission.key, clock.unix_s()
        if key is None or len(pieces) != 1:
            return None
        if key.expires_unix_s is not None and key.expires_unix_s <= now_unix_s:
            return None
        raw = pieces[0]
        try:
            body = parse(raw, can_stream=admission.can_stream)
            known = admission.known.get(body.model) or self._found(admission, head.path, body.model)
            if known is None:
                return None
            target = known.target
            outgoing = body.for_replica(target.route.upstream_model)
        except GatewayError:
            return None
        backend = choose(target.own, (), target.pick)
        connection = backend.pool.idle() if backend is not None and not backend.provider else None
        if backend is None or connection is None:
            return None
        try:
            held = self._limits.admit_now(key, target.route, body) if self._limits.on else None
        except BlockingIOError:
            backend.pool.put_back(connection)
            return None
        fact = replace(
            known.fact,
            request_id=request_id(request.headers),
            started_unix_s=now_unix_s,
            replica_id=backend.replica.id,
            stream=body.stream,
            request_bytes=len(raw),
        )
        call = (self._stream if body.stream else ShortCall)(self, key, body)
        call.send(outgoing, target, backend, connection, Exchange(request, fact), held, caller)
        return call

    def _admission(self, request: Request) -> Admission:
        table, key = self._tables.current, self._access.known(request)
        endpoint = self._endpoints.get(request.path)
        if (
            key is None
            or endpoint is None
            or key.models
            or table.looks_into(key.project_id)
            or "content-encoding" in request.headers
        ):
            return Admission(table.mark, None, can_stream=False, known={})
        return Admission(table.mark, key, can_stream=endpoint[2], known={})

    def _found(self, admission: Admission, path: str, model: str) -> Known | None:
        key, (endpoint, capability, _) = admission.key, self._endpoints[path]
        assert key is not None
        target = self._tables.current.routes.get((key.project_id, model))
        if target is None or not target.is_plain(capability):
            return None
        fact = RequestFact(
            request_id="",
            started_unix_s=0.0,
            endpoint=endpoint,
            model=model,
            project_id=key.project_id,
            deployment_id=target.route.deployment_id,
            key_id=key.id,
            user_id=key.user_id,
            attempts=1,
            worker_id=self._worker_id,
        )
        known = admission.known[model] = Known(target, fact)
        return known

    def over(self, exchange: Exchange, caller: HotConnection) -> None:
        """It has ended here: what is to be written down waits until its answer is on its way."""
        if not self._over:
            caller.behind(self._write_down)
        self._over.append(exchange)

    def _write_down(self) -> None:
        over = self._over.copy()
        self._over.clear()
        for exchange in over:
            try:
                self._ended(exchange)
            except Exception:  # a fault: the others are to be written down, too
                log.exception("request %s could not be counted", exchange.fact.request_id)


class ShortCall:
    """One request that was sent to a replica.

    Until it is finished here or given to the long way it is told what comes.
    """

    __slots__ = (
        "_caller", "_way", "backend", "body", "connection", "exchange", "key", "sent_s", "target",
    )  # fmt: skip

    def __init__(self, way: ShortWay, key: ApiKey, body: Parsed) -> None:
        self._way = way
        self.key = key
        self.body = body

    def send(
        self,
        outgoing: bytes,
        target: Target,
        backend: Backend,
        connection: Connection,
        exchange: Exchange,
        held: Reservation | None,
        caller: HotConnection,
    ) -> None:
        """Send it, as the replica gets it, on an idle connection."""
        self.exchange, fact = exchange, exchange.fact
        self.target, self.backend, self.connection = target, backend, connection
        self._caller = caller
        self.sent_s = exchange.started_s
        exchange.held, exchange.short = held, self
        self._way.begun(exchange)
        target.budget.requests += 1
        target.traffic.requests += 1
        backend.began()
        head = backend.pool.head(
            exchange.request.path, len(outgoing), fact.request_id,
            stream=fact.stream, traceparent=traceparent(fact) if fact.trace_id else "",
        )  # fmt: skip
        connection.send(head, outgoing)
        connection.watch(self._moved, target.timeouts.first_wait_s)

    def _moved(self) -> None:
        """Something came, or nothing more will."""
        answer = self.connection.whole()
        if answer is not None and self.connection.status == OK:
            self._try(self._finish, answer)
        elif not self.connection.is_under_way:
            self._hand_over()

    def _try(self, step: Callable[..., None], *given: bytes) -> None:
        """Go on; in a fault the caller must not wait, and the log gets the traceback."""
        try:
            step(*given)
        except Exception:
            log.exception("request %s failed", self.exchange.fact.request_id)
            self._caller.abort()

    def _finish(self, answer: bytes) -> None:
        exchange, connection = self.exchange, self.connection
        route, fact, caller = self.target.route, exchange.fact, self._caller
        content_type = connection.headers.get(b"content-type", b"application/json")
        told = named(answer, as_json(self.body.model))
        fact.status, fact.response_bytes = OK, len(told)
        # Told first: nobody is to wait for what is only to be written down.
        caller.answer(told, fact.request_id, content_type)
        exchange.count(usage.of_answer(answer), route.price, route.model, self._way.stats)
        self._release()
        self.backend.succeeded(fact.duration_ms)
        caller.finished()

    def _release(self) -> None:
        """It has ended here: free the replica, and have it counted and settled."""
        exchange, backend = self.exchange, self.backend
        self.connection.unwatch()
        exchange.short = exchange.task = None
        exchange.fact.duration_ms = exchange.elapsed_ms()
        backend.ended()
        backend.pool.release(self.connection)
        self._way.over(exchange, self._caller)

    def _hand_over(self) -> None:
        self.connection.unwatch()
        self.exchange.short = None
        self.exchange.request.begun = self
        self._caller.go_long_way()

    def stop(self) -> None:
        """The gateway stops: the caller is told, here or on the long way."""
        self.connection.fail(Stopped())

    def left(self) -> None:
        """The caller has left: the replica need not go on."""
        self.exchange.caller_left()
        self._release()
