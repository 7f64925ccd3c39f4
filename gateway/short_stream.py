"""Streams on the short way: from their first event to their last one without a task.

Until a first event has come, nothing was told to the caller, so that whatever is unusual goes the
long way with what was sent. Behind it a stream can only go on, end, or break off.
"""

from __future__ import annotations

import math

from core.contracts.route_table import ApiKey
from core.kernel import clock
from gateway.body import Parsed
from gateway.lane import Lane
from gateway.patience import Patience
from gateway.short_way import OK, ShortCall, ShortWay
from gateway.sse import EventStream, EventTooLarge, as_json
from gateway.upstream import Broken, Stopped, TimedOut


class ShortStream(ShortCall):
    """One request for a stream that was sent to a replica."""

    __slots__ = ("_events", "_fed_bytes", "_lane")

    def __init__(self, way: ShortWay, key: ApiKey, body: Parsed) -> None:
        super().__init__(way, key, body)
        self._events: EventStream | None = None
        self._lane: Lane | None = None
        self._fed_bytes = 0

    def _moved(self) -> None:
        connection = self.connection
        if connection.status == OK and (read := connection.peek()):
            self._try(self._begin, read)
        elif not connection.is_under_way:
            self._hand_over()

    def _begin(self, read: bytes) -> None:
        """Tell the caller the first events, if what came is that."""
        body, connection = self.body, self.connection
        events = EventStream(keep_usage=body.wants_usage, model=as_json(body.model))
        try:
            out = events.feed(read)
        except EventTooLarge:
            out = b""
        if not (out and events.has_data) or (events.error is not None and not events.done):
            self._hand_over()
            return
        exchange, caller, fact = self.exchange, self._caller, self.exchange.fact
        self._events = events
        self.backend.succeeded((clock.monotonic_s() - self.sent_s) * 1000)
        fact.status, fact.ttft_ms = OK, exchange.elapsed_ms()
        caller.start_stream(fact.request_id)
        self._write(out)
        connection.drop()
        self._pass_on(events)

    def _pass_on(self, events: EventStream) -> None:
        connection, caller, timeouts = self.connection, self._caller, self.target.timeouts
        silence_s, left_s = timeouts.between_tokens_s, timeouts.total_s
        if left_s != math.inf:
            patience = Patience(timeouts, self.sent_s)
            silence_s, left_s = patience.between_tokens_s, patience.left_s
        write_chunk = caller.chunk_writer
        if write_chunk is not None:
            self._lane = Lane(events, write_chunk)
        caller.source = connection
        connection.push(self._feed, self._lane, silence_s, left_s)
        connection.watch(self._went_on, silence_s)
        if connection.has_ended:
            self._went_on()

    def _feed(self, read: bytes) -> None:
        assert self._events is not None
        try:
            out = self._events.feed(read)
        except EventTooLarge:
            raise Broken("an event of the stream is too large") from None
        if out:
            self._write(out)

    def _write(self, out: bytes) -> None:
        self._fed_bytes += len(out)
        self._caller.write(out)

    def _went_on(self) -> None:
        if self.connection.has_ended:
            self._try(self._end)

    def _end(self) -> None:
        """The last event came, or nothing more will."""
        events, connection, caller = self._events, self.connection, self._caller
        assert events is not None
        error = connection.error
        if error is None and not events.is_whole:
            error = Broken("the stream ended before its last event")
        if error is not None:
            if not isinstance(error, Broken | TimedOut | Stopped):
                raise error  # of `_feed`
            told = self.exchange.broke_off(error)
            if isinstance(error, Broken | TimedOut):
                self.backend.failed(clock.monotonic_s(), away=False)
            self._write(told.event())
        caller.end()
        self._release()
        caller.finished()

    def _release(self) -> None:
        events, exchange = self._events, self.exchange
        if events is not None:
            self.connection.pull()
            self._caller.source = None
            passed_bytes = 0 if self._lane is None else self._lane.passed_bytes
            exchange.fact.response_bytes = self._fed_bytes + passed_bytes
            route, stats = self.target.route, self._way.stats
            exchange.count_stream(events, route.model, stats)
            exchange.count(events.usage, route.price, route.model, stats)
        super()._release()
