"""Carries what is neither chat nor a vector to a replica and back: as it comes, whatever it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import msgspec

from core.contracts.route_table import Route
from core.kernel import clock
from gateway import usage as chat_usage
from gateway.answer import Answer
from gateway.balancer import Backend
from gateway.body import Parsed
from gateway.limits.beyond import Beyond
from gateway.outbox import Outbox
from gateway.proxy import Call, Proxy
from gateway.sse import as_json, named
from gateway.surface import usage
from gateway.surface.forms import Form
from gateway.table import Target
from gateway.tracing import traceparent
from gateway.upstream import Connection, Pool, TimedOut

_Answered = TypeVar("_Answered")
_JSON, _EVENTS = "application/json", "text/event-stream"
_WHOLE_BYTES = 1024 * 1024
_EDGE_BYTES = 8 * 1024


class FormBody(Parsed, frozen=True, kw_only=True):
    """A form in the place of a JSON body."""

    form: Form


class RequestsOnly(Beyond):
    """The limits of models that answer in the place of another, where no tokens are estimated."""

    __slots__ = ()

    async def within(
        self, model: str, route: Route, body: Parsed, begin: Callable[[], Awaitable[_Answered]]
    ) -> _Answered:
        """As for any request, by the request alone."""
        return await super().within(model, route, without_tokens(body), begin)


def without_tokens(body: Parsed) -> Parsed:
    """A body for which no tokens are held: what it takes is not known by its length."""
    return msgspec.structs.replace(body, raw=b"")


class PassedAnswer(Answer):
    """An answer that goes through as it came.

    JSON up to 1 MB is kept whole, so that another replica can help until its end, and names the
    model as its caller does. Anything else is forwarded from its first bytes on.
    """

    __slots__ = ()

    @property
    def content_type(self) -> str:
        """As the replica said."""
        return self._connection.headers.get(b"content-type", _JSON.encode()).decode("latin-1")

    @property
    def is_json(self) -> bool:
        """Whether it is one JSON document."""
        return self.content_type.lower().startswith(_JSON)

    @property
    def is_events(self) -> bool:
        """Whether it is a stream of events, the last of which says what it took."""
        return self.content_type.lower().startswith(_EVENTS)

    @property
    def usage(self) -> chat_usage.Usage | None:
        """Tokens as the replica gave them; None where it counts none."""
        return usage.of_answer(self.first) if self.is_whole else usage.in_part(self._edges)

    async def _begin_body(self, name: bytes) -> None:
        await self._read_first(_WHOLE_BYTES if self.is_json else 1)
        if self.is_whole and self.is_json:
            self.first = named(self.first, name)
        self._edges = self.first[:_EDGE_BYTES] + self.first[-_EDGE_BYTES:]


class UploadConnection(Connection):
    """A connection on which a request is sent piece by piece, as fast as the replica reads."""

    __slots__ = ("_has_room", "_is_sent")

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Pool, outbox: Outbox) -> None:
        super().__init__(loop, pool, outbox)
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._is_sent = True

    def pause_writing(self) -> None:
        """The replica does not read."""
        self._has_room.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self._has_room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody waits for room any more."""
        super().connection_lost(exc)
        self._has_room.set()

    @property
    def can_be_kept(self) -> bool:
        """Not when the replica answered before it had read all."""
        return self._is_sent and super().can_be_kept

    async def upload(self, head: bytes, pieces: AsyncIterator[bytes], silence_s: float) -> None:
        """Send a request; stops when the answer begins before its end.

        Args:
            head: Request line and headers.
            pieces: The body.
            silence_s: How long the replica may read nothing.

        Raises Broken or TimedOut.
        """
        self._is_sent = False
        self.send(head, b"")
        async for piece in pieces:
            try:
                async with asyncio.timeout(silence_s):
                    await self._has_room.wait()
            except TimeoutError:
                raise TimedOut("the replica did not read the upload") from None
            if self.transport is None or self.answer_begun:
                return
            self._outbox.put(self.transport, piece)
        self._is_sent = True


class PassingProxy(Proxy):
    """Finds a replica as for chat, and lets request and answer through in any form."""

    async def _sent(
        self, backend: Backend, target: Target, call: Call, sent: Connection | None
    ) -> Connection:
        assert sent is None
        body, patience = call.body, call.patience
        model, path, headers, content = target.route.upstream_model, call.path, {}, b""
        if backend.provider is not None:
            await backend.provider.ready(patience.connect_s)
            outgoing = backend.provider.request(path, _as_json_body(body))
            path, headers, content = outgoing.path, dict(outgoing.headers), outgoing.body
            model = backend.provider.account.model
        else:
            headers = {**backend.pool.authorization, "X-Request-Id": call.fact.request_id}
            if call.fact.trace_id:
                headers["traceparent"] = traceparent(call.fact)
        headers |= {"Accept": "*/*", "Accept-Encoding": "identity", "Content-Type": _JSON}
        if isinstance(body, FormBody):
            headers["Content-Type"] = body.form.content_type
            head = backend.pool.own_head(path, headers, body.form.size_bytes(model))
            return await self._uploaded(backend, call, head, body.form.pieces(model))
        content = content or body.for_replica(model)
        head = backend.pool.own_head(path, headers, len(content))
        kept = backend.pool.idle()
        if kept is not None:
            kept.send(head, content)
            if await self._on_kept(kept, patience):
                return kept
        return await self._uploaded(backend, call, head, _at_once(content))

    async def _uploaded(
        self, backend: Backend, call: Call, head: bytes, pieces: AsyncIterator[bytes]
    ) -> Connection:
        patience, began_s = call.patience, clock.monotonic_s()
        connection = await backend.pool.connect_as(UploadConnection, patience.connect_s)
        call.fact.connect_ms = (clock.monotonic_s() - began_s) * 1000
        backend.connected()
        try:
            await connection.upload(head, pieces, patience.between_tokens_s)
            await connection.head(patience.first_byte_s)
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _begun(
        self, backend: Backend, connection: Connection, target: Target, call: Call
    ) -> PassedAnswer:
        model = target.route.model
        if connection.status != 200:
            raise await self._refusal(connection, model, backend.provider, call.patience)
        answer = PassedAnswer(backend, target.route, connection, None, call.patience)
        await answer.begin(model, as_json(call.body.model))
        return answer


def _as_json_body(body: Parsed) -> Parsed:
    """What an adapter reads: of a form it gives the path and the headers."""
    return msgspec.structs.replace(body, raw=b"{}") if isinstance(body, FormBody) else body


async def _at_once(content: bytes) -> AsyncIterator[bytes]:
    yield content
