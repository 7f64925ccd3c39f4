"""A double of a model server: OpenAI's wire format, with answers and faults on demand.

It is no model: its tokens are " t0", " t1" and so on. What it does is set for all requests
(`OpenAiDouble.knobs`, or `--knobs` as JSON) and for one request by a field `double` in its body.
`GET /double/state` says what it saw.

    python -m tests.doubles.openai_server --port 9000 --knobs '{"tokens": 20, "delay_s": 0.01}'
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import suppress
from typing import Any

import httptools
import msgspec

from tests.doubles import chat_scripts

_CREATED = 1_760_000_000
_COUNTERS = {"/v1/chat/completions/input_tokens": "input_tokens", "/tokenize": "count"}


class Knobs(msgspec.Struct, kw_only=True):
    """What to do; counts are of tokens, -1 means never.

    `statuses` are answered in turn before anything else (200 means a good answer); `fail` is
    "before_first_byte" (read the request, then close), "garbage" (no HTTP), or "" for none.
    `script` is what to say instead of tokens: arguments of `tests.doubles.chat_scripts`. It counts
    7 tokens for every prompt, at the path `counter`, and knows no other path that counts.
    `/health` answers with `health_status`.
    """

    tokens: int = 4
    delay_s: float = 0.0
    first_delay_s: float = 0.0
    pings: int = 0
    pad_bytes: int = 0
    break_after: int = -1
    tear: bool = False
    stall_after: int = -1
    error_after: int = -1
    done: bool = True
    usage_null: bool = False
    crlf: bool = False
    status: int = 200
    statuses: list[int] = []
    error: dict[str, Any] | None = None
    retry_after_s: int = 0
    fail: str = ""
    fails: int = -1
    cached_tokens: int = 0
    vectors: int = 1
    dimensions: int = 4
    close: bool = False
    script: dict[str, Any] | None = None
    counter: str = ""
    health_status: int = 200


class _Body(msgspec.Struct):
    model: str = ""
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    double: dict[str, Any] | None = None


class State(msgspec.Struct):
    """What the double saw so far."""

    requests: int = 0
    connections: int = 0
    open_connections: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    cancelled: int = 0
    finished: int = 0
    bytes_sent: int = 0


class OpenAiDouble:
    """The server; `async with OpenAiDouble() as double: double.base_url`."""

    def __init__(
        self,
        knobs: Knobs | None = None,
        *,
        api_key: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.knobs = knobs or Knobs()
        self.api_key = api_key
        self.state = State()
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.keep_requests = True
        self.port = port
        self._host = host
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    @property
    def base_url(self) -> str:
        return f"http://{self._host}:{self.port}"

    async def start(self) -> OpenAiDouble:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self), self._host, self.port, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """As if killed: connections are cut."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.cut()
        await asyncio.sleep(0)

    async def __aenter__(self) -> OpenAiDouble:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class _Connection(asyncio.Protocol):
    def __init__(self, double: OpenAiDouble) -> None:
        self.double = double
        self.transport: asyncio.Transport | None = None
        self.task: asyncio.Task[None] | None = None
        self.can_write = asyncio.Event()
        self.can_write.set()
        self._begin()

    def _begin(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.request_headers: dict[str, str] = {}
        self.body: list[bytes] = []

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.double._connections.add(self)
        self.double.state.connections += 1
        self.double.state.open_connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.double._connections.discard(self)
        self.double.state.open_connections -= 1
        self.can_write.set()
        if self.task is not None and not self.task.done():
            self.task.cancel()

    def pause_writing(self) -> None:
        self.can_write.clear()

    def resume_writing(self) -> None:
        self.can_write.set()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.cut()

    # -- httptools

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.request_headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        path, headers, body = self.url.decode(), self.request_headers, b"".join(self.body)
        self.task = asyncio.get_running_loop().create_task(self._handle(path, headers, body))

    # -- answering

    def cut(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    def write(self, data: bytes) -> None:
        if self.transport is None:
            raise ConnectionResetError
        self.double.state.bytes_sent += len(data)
        self.transport.write(data)

    async def _handle(self, path: str, headers: dict[str, str], raw: bytes) -> None:
        double, state = self.double, self.double.state
        if path.startswith("/double/") or path == "/health":
            status = double.knobs.health_status if path == "/health" else 200
            self._json(status, msgspec.to_builtins(state))
            self._begin()
            return
        state.requests += 1
        state.in_flight += 1
        state.most_in_flight = max(state.most_in_flight, state.in_flight)
        if double.keep_requests:
            double.paths.append(path)
            double.headers.append(headers)
            double.bodies.append(raw)
        try:
            await self._answer(path, headers, raw)
            state.finished += 1
        except (asyncio.CancelledError, ConnectionError):
            state.cancelled += 1
        finally:
            state.in_flight -= 1
        self._begin()

    async def _answer(self, path: str, headers: dict[str, str], raw: bytes) -> None:
        double = self.double
        if double.api_key and headers.get("authorization") != f"Bearer {double.api_key}":
            self._error(
                401, {"message": "Invalid API Key", "type": "authentication_error", "code": 401}
            )
            return
        request = msgspec.json.decode(raw, type=_Body)
        knobs = double.knobs
        if request.double:
            knobs = msgspec.convert({**msgspec.to_builtins(knobs), **request.double}, Knobs)
        if knobs.fail and (knobs.fails < 0 or double.knobs.fails > 0):
            double.knobs.fails -= 1 if double.knobs.fails > 0 else 0
            if knobs.fail == "garbage":
                self.write(b"\x00\x01 this is not HTTP\r\n\r\n")
                await asyncio.sleep(0.01)
            self.cut()
            return
        status = double.knobs.statuses.pop(0) if double.knobs.statuses else knobs.status
        if status != 200:
            self._error(
                status,
                knobs.error
                or {"message": f"status {status}", "type": "server_error", "code": status},
                retry_after_s=knobs.retry_after_s,
            )
            return
        if path in _COUNTERS:
            self._count(path, knobs)
            return
        if knobs.first_delay_s:
            await asyncio.sleep(knobs.first_delay_s)
        if knobs.script is not None:
            self._scripted(request, knobs.script)
        elif path == "/v1/embeddings":
            self._embeddings(request, knobs)
        elif request.stream:
            await self._stream(request, knobs, chat=path == "/v1/chat/completions")
        else:
            await self._whole(request, knobs, chat=path == "/v1/chat/completions")

    def _count(self, path: str, knobs: Knobs) -> None:
        if path == knobs.counter:
            self._json(200, {_COUNTERS[path]: 7})
        else:
            self._error(404, {"message": "File Not Found", "type": "not_found_error", "code": 404})

    def _scripted(self, request: _Body, script: dict[str, Any]) -> None:
        if not request.stream:
            self._json(200, msgspec.json.decode(chat_scripts.whole(**script)))
            return
        self.write(_head(200, "text/event-stream", b"Transfer-Encoding: chunked\r\n"))
        for event in chat_scripts.chunks(**script).split(b"\n\n")[:-1]:
            self._chunk(event + b"\n\n")
        self._chunk(b"")

    def _usage(self, knobs: Knobs) -> dict[str, Any]:
        return {
            "prompt_tokens": 7,
            "completion_tokens": knobs.tokens,
            "total_tokens": 7 + knobs.tokens,
            "prompt_tokens_details": {"cached_tokens": knobs.cached_tokens},
        }

    async def _whole(self, request: _Body, knobs: Knobs, *, chat: bool) -> None:
        if knobs.delay_s:
            await asyncio.sleep(knobs.delay_s * knobs.tokens)
        text = "".join(f" t{n}" for n in range(knobs.tokens)) + "x" * knobs.pad_bytes
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        document = {
            "id": "chatcmpl-double",
            "object": "chat.completion" if chat else "text_completion",
            "created": _CREATED,
            "model": request.model,
            "choices": [choice],
            "usage": self._usage(knobs),
        }
        if knobs.break_after >= 0:
            content = msgspec.json.encode(document)
            self.write(_head(200, "application/json", b"Content-Length: %d\r\n" % len(content)))
            self.write(content[: len(content) // 2])
            await asyncio.sleep(0.02)
            self.cut()
            return
        self._json(200, document, close=knobs.close)

    def _embeddings(self, request: _Body, knobs: Knobs) -> None:
        vector = [0.25] * knobs.dimensions
        data = [
            {"object": "embedding", "index": n, "embedding": vector} for n in range(knobs.vectors)
        ]
        usage = {"prompt_tokens": 7, "total_tokens": 7}
        self._json(
            200,
            {"object": "list", "data": data, "model": request.model, "usage": usage},
            close=knobs.close,
        )

    async def _stream(self, request: _Body, knobs: Knobs, *, chat: bool) -> None:
        events = _Events(self, request, knobs, chat=chat)
        self.write(_head(200, "text/event-stream", b"Transfer-Encoding: chunked\r\n"))
        for _ in range(knobs.pings):
            events.comment()
            await asyncio.sleep(max(knobs.delay_s, 0.001))
        for number in range(knobs.tokens):
            if await self._fault(number, knobs, events):
                return
            events.token(f" t{number}" + "x" * knobs.pad_bytes)
            if knobs.delay_s:
                await asyncio.sleep(knobs.delay_s)
            elif number % 16 == 15:
                await asyncio.sleep(0)
            if not self.can_write.is_set():
                await self.can_write.wait()
        events.token("", "stop")
        if (request.stream_options or {}).get("include_usage"):
            events.usage(self._usage(knobs))
        if knobs.done:
            events.data("[DONE]")
        self._chunk(b"")

    async def _fault(self, number: int, knobs: Knobs, events: _Events) -> bool:
        """Whether the stream ends here."""
        if number == knobs.stall_after:
            await asyncio.sleep(3600)
        if number == knobs.break_after:
            if knobs.tear:
                self._chunk(b'data: {"id":"chatcmpl-dou')
            await asyncio.sleep(0.03)
            self.cut()
            return True
        if number == knobs.error_after:
            failed = {"message": "the double failed", "type": "server_error", "code": 500}
            events.data(msgspec.json.encode({"error": failed}).decode())
            self._chunk(b"")
            return True
        return False

    def _chunk(self, data: bytes) -> None:
        self.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _json(self, status: int, document: Any, *, close: bool = False, extra: bytes = b"") -> None:
        content = msgspec.json.encode(document)
        extra += b"Content-Length: %d\r\n" % len(content)
        extra += b"Connection: close\r\n" if close else b""
        self.write(_head(status, "application/json; charset=utf-8", extra) + content)
        if close and self.transport is not None:
            self.transport.close()

    def _error(self, status: int, error: dict[str, Any], *, retry_after_s: int = 0) -> None:
        extra = b"Retry-After: %d\r\n" % retry_after_s if retry_after_s else b""
        self._json(status, {"error": error}, extra=extra)


class _Events:
    """Writes the events of one stream."""

    def __init__(
        self, connection: _Connection, request: _Body, knobs: Knobs, *, chat: bool
    ) -> None:
        self._connection = connection
        self._chat = chat
        self._end = "\r\n\r\n" if knobs.crlf else "\n\n"
        self._frame = {
            "id": "chatcmpl-double",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": _CREATED,
            "model": request.model,
        }
        self._null = {"usage": None} if knobs.usage_null else {}

    def data(self, text: str) -> None:
        self._connection._chunk(f"data: {text}{self._end}".encode())

    def comment(self) -> None:
        self._connection._chunk(f":{self._end}".encode())

    def token(self, text: str, finish: str | None = None) -> None:
        said: dict[str, Any] = {"text": text}
        if self._chat:
            said = {"delta": {"content": text} if text else {}}
        choice = {"index": 0, **said, "finish_reason": finish}
        self._part({**self._null, "choices": [choice]})

    def usage(self, usage: dict[str, Any]) -> None:
        self._part({"choices": [], "usage": usage})

    def _part(self, fields: dict[str, Any]) -> None:
        self.data(msgspec.json.encode(self._frame | fields).decode())


def _head(status: int, content_type: str, extra: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Type: %b\r\n%b\r\n" % (status, content_type.encode(), extra)


async def _serve(double: OpenAiDouble) -> None:
    async with double:
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--api-key", default="")
    parser.add_argument("--knobs", default="{}", help="JSON")
    given = parser.parse_args()
    knobs = msgspec.json.decode(given.knobs, type=Knobs)
    double = OpenAiDouble(knobs, api_key=given.api_key, host=given.host, port=given.port)
    double.keep_requests = False
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(double))


if __name__ == "__main__":
    main()
