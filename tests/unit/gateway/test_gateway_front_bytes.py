"""The callers' side over a transport that is none: any cut of the bytes, and any bytes.

Some requests are to hot routes and the others aiohttp's, in any order on one connection.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.cold import ColdConnection, ColdServer
from gateway.config import Timeouts
from gateway.front import Answerer, Front
from gateway.hot import HotConnection
from gateway.http_request import BadRequest, BodyTooLarge, Request, Response

MAX_BODY = 1000
DATE = re.compile(rb"Date: [^\r]*\r\n")
HOT = tuple(f"POST {path}" for path in ("/v1/chat/completions", "/stream", "/early"))


class Pipe(asyncio.Transport):
    """Keeps what is written; holds back what comes while reading is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.protocol: HotConnection | ColdConnection | None = None
        self.paused = False
        self.ended = False
        self._waiting: list[bytes] = []

    def feed(self, data: bytes) -> None:
        self._waiting.append(data)
        self._deliver()

    def end(self) -> None:
        """The caller closes."""
        self._finish()

    def _deliver(self) -> None:
        while self._waiting and not self.paused and not self.is_closing():
            assert self.protocol is not None
            self.protocol.data_received(self._waiting.pop(0))

    def _finish(self) -> None:
        if not self.ended:
            self.ended = True
            assert self.protocol is not None
            self.protocol.connection_lost(None)

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def write(self, data: Any) -> None:
        assert not self.ended
        self.written += data

    def write_eof(self) -> None:
        """Nobody waits for it here."""

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        asyncio.get_running_loop().call_soon(self._finish)

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        asyncio.get_running_loop().call_soon(self._deliver)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is held back."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 1) if name == "peername" else default


def connected(answer: Answerer) -> tuple[Front, Pipe]:
    """A caller, and who serves it."""
    front, pipe = Front(answer, HOT, MAX_BODY, Timeouts()), Pipe()
    front.cold = ColdServer(front)
    pipe.protocol = front.listening()()
    pipe.protocol.connection_made(pipe)
    return front, pipe


async def echo(request: Request) -> Response | None:
    """Tells what was understood; some requests with a stream, some before their body is there."""
    if request.path == "/early":
        return Response(b"early", 401)
    try:
        body = await request.read_body(MAX_BODY)
    except BodyTooLarge:
        return Response(b"too large", 413)
    except BadRequest as error:
        return Response(str(error).encode(), error.status)
    told = msgspec.json.encode([request.method, request.path, request.query, body.hex()])
    if request.path != "/stream":
        return Response(told)
    request.caller.start({"Content-Type": "text/plain"})
    for at in range(0, len(told), 20):
        request.caller.write(told[at : at + 20])
        await asyncio.sleep(0)
    request.caller.end()
    return None


async def carried(pieces: Sequence[bytes], *, leaves: bool = False) -> bytes:
    """What is answered when bytes come in these pieces; nothing may be left behind."""
    front, pipe = connected(echo)
    for piece in pieces:
        pipe.feed(piece)
        await asyncio.sleep(0)
    waited = 0
    for _ in range(3000):
        waited = waited + 1 if _waits_for_more(pipe) else 0
        if leaves or pipe.ended or not front.is_busy or waited > 20:
            break
        await asyncio.sleep(0)
    else:
        raise AssertionError("it hangs")
    await asyncio.sleep(0)
    pipe.end()
    for _ in range(10):
        await asyncio.sleep(0)
    assert not front.connections
    assert len(asyncio.all_tasks()) == 1
    return DATE.sub(b"", pipe.written)


def _waits_for_more(pipe: Pipe) -> bool:
    if pipe._waiting:
        return False
    protocol = pipe.protocol
    if isinstance(protocol, HotConnection):
        return protocol._incoming is not None or protocol._head_begun
    assert protocol is not None
    # Without one it waits for a head, or for the rest of a body that nobody wants.
    asked = protocol._current_request
    return asked is None or not asked.content.is_eof()


CUTS = st.lists(st.integers(0, 5000), max_size=8)
NAMES = st.sampled_from(["X-One", "x-two", "Accept"])
VALUES = st.text("abc ,;=\"'", max_size=12)
METHODS = st.just("POST") | st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS"])
PATHS = st.sampled_from(["/", "/v1/chat/completions?a=1&b=%20", "/stream", "/a%2Fb"])
BODIES = st.binary(max_size=60)


@st.composite
def requests(draw: st.DrawFn, *, refused: bool) -> bytes:
    """Valid ones; some are refused before their body is there, if that is wanted."""
    method = draw(METHODS)
    path = draw(PATHS | st.just("/early") if refused else PATHS)
    lines = [f"{method} {path} HTTP/1.1", "Host: gateway"]
    lines += [f"{name}: {value}" for name, value in draw(st.dictionaries(NAMES, VALUES)).items()]
    body = draw(BODIES | st.just(b"x" * (MAX_BODY + 1)) if refused else BODIES)
    kind = draw(st.sampled_from(["none", "length", "chunked", "upgrade"]))
    if kind == "none":
        return _joined(lines)
    if kind == "upgrade":
        lines += ["Connection: Upgrade", "Upgrade: h2c"]
    if kind != "chunked":
        return _joined([*lines, f"Content-Length: {len(body)}"]) + body
    size = draw(st.integers(1, 40))
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x;e=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    trailer = draw(st.sampled_from([b"", b"X-Trailer: Content-Length\r\n"]))
    return _joined([*lines, "Transfer-Encoding: chunked"]) + chunks + b"0\r\n" + trailer + b"\r\n"


def _joined(lines: list[str]) -> bytes:
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def _cut(content: bytes, at: list[int]) -> list[bytes]:
    marks = sorted({0, len(content), *(each % (len(content) + 1) for each in at)})
    return [content[low:high] for low, high in pairwise(marks)]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(requests(refused=False), min_size=1, max_size=4),
    st.lists(st.integers(0, 5000), max_size=8),
)
def test_any_cut_of_valid_requests_is_answered_alike(asked: list[bytes], at: list[int]) -> None:
    # A refusal before the body is there closes the connection, so that it depends on the cut.
    content = b"".join(asked)
    whole = asyncio.run(carried([content]))
    assert whole.count(b"HTTP/1.1 200 OK") == _answered(asked)
    assert asyncio.run(carried(_cut(content, at))) == whole


def _answered(asked: Sequence[bytes]) -> int:
    """How many: aiohttp's connections end with an offer to upgrade."""
    is_cold = False
    for number, each in enumerate(asked, 1):
        is_cold = is_cold or not each.startswith(tuple(begin.encode() for begin in HOT))
        if is_cold and b"Upgrade" in each:
            return number
    return len(asked)


@pytest.mark.parametrize("first", [b"/v1/chat/completions?b=1", b"/v1/models"])
def test_a_cut_at_every_byte(first: bytes) -> None:
    content = (
        b"POST " + first + b" HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n4\r\n\r\n\r\n\r\n0\r\nT: x\r\n\r\n"
        b"POST /stream HTTP/1.1\r\nHost: g\r\nContent-Length: 3\r\nConnection: Upgrade\r\n"
        b"Upgrade: h2c\r\n\r\nabcPOST /stream HTTP/1.1\r\nHost: g\r\nContent-Length: 5\r\n\r\n"
        b"\r\n\r\n1GET / HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n"
    )
    if not (b"POST " + first).startswith(HOT[0].encode()):
        content = content.replace(b"Connection: Upgrade\r\n", b"")
        content = content.replace(b"Upgrade: h2c\r\n", b"")
    whole = asyncio.run(carried([content]))
    assert whole.count(b"HTTP/1.1 200 OK") == 4
    assert asyncio.run(carried([content[at : at + 1] for at in range(len(content))])) == whole
    for at in range(len(content)):
        assert asyncio.run(carried([content[:at], content[at:]])) == whole


@settings(max_examples=150, deadline=None)
@given(
    st.lists(requests(refused=True), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=3)), min_size=1, max_size=4),
    CUTS,
    st.booleans(),
)
# aiohttp tells nobody of the damage, because it had paused reading.
@example(
    [
        b"POST / HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"1;e=1\r\nx\r\n" * 200
        + b"0\r\n\r\n"
    ],
    [(487, b"")],
    [62, 63, 488],
    False,
)
def test_damaged_requests_break_nothing(
    asked: list[bytes], damage: list[tuple[int, bytes]], at: list[int], leaves: bool
) -> None:
    content = b"".join(asked)
    for where, what in damage:
        where %= len(content)
        content = content[:where] + what + content[where + 1 :]
    _check(asyncio.run(carried(_cut(content, at), leaves=leaves)))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_any_bytes_break_nothing(pieces: list[bytes]) -> None:
    _check(asyncio.run(carried(pieces)))


def _check(answered: bytes) -> None:
    """Every answer is one of ours, and nobody's fault was taken for our own."""
    for part in answered.split(b"HTTP/1.1 ")[1:]:
        assert int(part[:3]) in (200, 400, 401, 413, 414, 431, 501, 505)


@pytest.fixture(autouse=True)
def _no_faults(caplog: pytest.LogCaptureFixture) -> Any:
    with caplog.at_level(logging.ERROR):
        yield
    assert not [record for record in caplog.records if record.name.startswith("gateway.")]


@pytest.mark.parametrize("path", [b"/stream", b"/cold"])
async def test_an_answer_that_breaks_off_closes_the_connection(path: bytes) -> None:
    async def broken(request: Request) -> None:
        request.caller.start({})
        request.caller.write(b"half")

    _, pipe = connected(broken)
    pipe.feed(b"POST " + path + b" HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n")
    for _ in range(10):
        await asyncio.sleep(0)
    assert pipe.ended
    assert not pipe.written.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("path", [b"/stream", b"/cold"])
@pytest.mark.parametrize("is_whole", [True, False])
async def test_a_fault_behind_an_answer_gives_no_second_one(path: bytes, is_whole: bool) -> None:
    async def faulty(request: Request) -> Response:
        request.caller.start({})
        request.caller.write(b"half")
        if is_whole:
            request.caller.end()
        return Response(b"fault", 500)

    _, pipe = connected(faulty)
    pipe.feed(b"POST " + path + b" HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n")
    for _ in range(10):
        await asyncio.sleep(0)
    assert pipe.written.count(b"HTTP/1.1 ") == 1
    assert b"fault" not in pipe.written
    assert pipe.ended is not is_whole
    assert pipe.written.endswith(b"0\r\n\r\n") is is_whole


@pytest.mark.parametrize("path", [b"/stream", b"/cold"])
async def test_a_header_cannot_end_the_head(path: bytes) -> None:
    async def splits(request: Request) -> Response:
        return Response(b"", headers={"X-Model": "a\r\nSet-Cookie: b=c"})

    _, pipe = connected(splits)
    logging.disable(logging.ERROR)
    try:
        pipe.feed(b"POST " + path + b" HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n")
        for _ in range(10):
            await asyncio.sleep(0)
    finally:
        logging.disable(logging.NOTSET)
    assert pipe.ended or b"HTTP/1.1 500" in pipe.written
    assert b"Set-Cookie" not in pipe.written


@pytest.mark.parametrize("leaves", [False, True])
async def test_a_connection_waits_until_aiohttp_is_loaded(leaves: bool) -> None:
    front, pipe = connected(echo)
    front.cold = None  # as at first
    pipe.feed(b"GET /cold HTTP/1.1\r\nHost")
    pipe.feed(b": g\r\n\r\nPOST /stream HTTP/1.1\r\nHost: g\r\nContent-Length: 1\r\n\r\nx")
    assert pipe.paused
    assert front.is_busy
    front.stop(close_idle=True)
    if leaves:
        pipe.end()
        assert not front.connections
    async with asyncio.timeout(10):
        while front.cold is None or (front.connections and not leaves):
            await asyncio.sleep(0.001)
    # Stopping, it says so with the first answer.
    assert pipe.written.count(b"HTTP/1.1 200 OK") == (0 if leaves else 1)
