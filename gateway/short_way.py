"""Answers what has to wait for nothing but its replica, without a task.

Most requests are of this kind: their body came with their head, a connection to a replica is kept
and idle, and the replica's answer is good. A task and a chain of coroutines for such a
request cost a quarter of its CPU time. What turns out otherwise goes the long way
(`gateway.server`). Before anything was sent it begins there anew, so nothing is refused here;
afterwards it goes on there with what was sent, so that retries, time-outs and errors exist once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.contracts.request_fact import RequestFact
from core.contracts.route_table import ApiKey
from core.kernel import clock
from gateway import usage
from gateway.access import AccessGate
from gateway.balancer import Backend, choose
from gateway.body import Parsed, parse
from gateway.errors import GatewayError
from gateway.http_request import Request, Response
from gateway.limits.gate import LimitGate
from gateway.limits.limiter import Reservation
from gateway.relay import Exchange
from gateway.request_id import request_id
from gateway.sse import as_json, named
from gateway.stats import Stats
from gateway.table import Table, TableHolder, Target
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
        targets: By model, those that are known to answer without anything else to be asked.
    """

    mark: object
    key: ApiKey | None
    targets: dict[str, Target]


class ShortWay:
    """Takes requests of callers, and gives those it cannot finish to the long way.

    Args:
        tables: With the route table in use.
        access: Who may ask.
        limits: What they may use.
        stats: The worker's metrics.
        worker_id: As in facts.
        begun: Told of each request that is taken.
        ended: Told of each that has ended here; it counts, settles and keeps the fact.
        stream: Makes a call whose answer is a stream.
    """

    def __init__(
        self,
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
        self.begun, self.ended = begun, ended
        self._tables, self._access, self._limits = tables, access, limits
        self._worker_id, self._stream = worker_id, stream

    def take(
        self,
        request: Request,
        caller: HotConnection,
        endpoint: str,
        capability: str,
        *,
        can_stream: bool,
    ) -> ShortCall | None:
        """Send a request whose body is there to a replica; None: it must go the long way."""
        table, admission = self._tables.current, request.head.admission
        if admission is None or admission.mark is not table.mark:
            admission = request.head.admission = self._admission(request)
        key = admission.key
        if key is None or len(request.pieces) != 1:
            return None
        if key.expires_unix_s is not None and key.expires_unix_s <= clock.unix_s():
            return None
        raw = request.pieces[0]
        try:
            body = parse(raw, can_stream=can_stream)
            target = admission.targets.get(body.model)
            target = target or _found(admission, table, body.model, capability)
            if target is None:
                return None
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
        fact = RequestFact(
            request_id=request_id(request.headers),
            started_unix_s=clock.unix_s(),
            endpoint=endpoint,
            model=body.model,
            project_id=key.project_id,
            deployment_id=target.route.deployment_id,
            replica_id=backend.replica.id,
            key_id=key.id,
            user_id=key.user_id,
            stream=body.stream,
            attempts=1,
            request_bytes=len(raw),
            worker_id=self._worker_id,
        )
        kind = self._stream if body.stream else ShortCall
        call = kind(self, Exchange(request, fact, clock.monotonic_s()), key, body)
        call.send(outgoing, target, backend, connection, held, caller)
        return call

    def _admission(self, request: Request) -> Admission:
        table, key = self._tables.current, self._access.known(request)
        if (
            key is None
            or key.models
            or table.looks_into(key.project_id)
            or "content-encoding" in request.headers
        ):
            return Admission(table.mark, None, {})
        return Admission(table.mark, key, {})


def _found(admission: Admission, table: Table, model: str, capability: str) -> Target | None:
    assert admission.key is not None
    target = table.routes.get((admission.key.project_id, model))
    if target is None or not target.is_plain(capability):
        return None
    admission.targets[model] = target
    return target


class ShortCall:
    """One request that was sent to a replica.

    Until it is finished here or given to the long way it is told what comes.
    """

    __slots__ = (
        "_caller", "_way", "backend", "body", "connection", "exchange", "key", "sent_s", "target",
    )  # fmt: skip

    def __init__(self, way: ShortWay, exchange: Exchange, key: ApiKey, body: Parsed) -> None:
        self._way = way
        self.exchange = exchange
        self.key = key
        self.body = body

    def send(
        self,
        outgoing: bytes,
        target: Target,
        backend: Backend,
        connection: Connection,
        held: Reservation | None,
        caller: HotConnection,
    ) -> None:
        """Send it, as the replica gets it, on an idle connection."""
        exchange, fact = self.exchange, self.exchange.fact
        self.target, self.backend, self.connection = target, backend, connection
        self._caller = caller
        exchange.held, exchange.short = held, self
        self._way.begun(exchange)
        target.budget.request()
        target.traffic.requests += 1
        backend.began()
        self.sent_s = exchange.started_s
        path = exchange.request.path
        head = backend.pool.head(
            path, len(outgoing), fact.request_id,
            stream=fact.stream, traceparent=traceparent(fact) if fact.trace_id else "",
        )  # fmt: skip
        connection.send(head, outgoing)
        connection.watch(self._moved, min(target.timeouts.first_byte_s, target.timeouts.total_s))

    def _moved(self) -> None:
        """Something came, or nothing more will."""
        answer = self.connection.whole()
        if answer is not None and self.connection.status == OK:
            try:
                self._finish(answer)
            except Exception:  # a fault: the caller must not wait, and the log gets the traceback
                log.exception("request %s failed", self.exchange.fact.request_id)
                self._caller.abort()
        elif not self.connection.is_under_way:
            self._hand_over()

    def _finish(self, answer: bytes) -> None:
        exchange, connection = self.exchange, self.connection
        route, fact, now_s = self.target.route, self.exchange.fact, clock.monotonic_s()
        exchange.count(usage.of_answer(answer), route.price, route.model, self._way.stats)
        answer = named(answer, as_json(self.body.model))
        content_type = connection.headers.get(b"content-type", b"application/json")
        self.backend.succeeded((now_s - self.sent_s) * 1000)
        fact.status, fact.response_bytes = OK, len(answer)
        self._release()
        headers = {
            "X-Request-Id": fact.request_id, "Content-Type": content_type.decode("latin-1"),
        }  # fmt: skip
        self._caller.send(Response(answer, OK, headers))
        self._caller.finished()

    def _release(self) -> None:
        """It has ended here: free the replica, count and settle."""
        self.connection.unwatch()
        self.exchange.short = None
        self.backend.ended()
        self.backend.pool.release(self.connection)
        self._way.ended(self.exchange)

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
