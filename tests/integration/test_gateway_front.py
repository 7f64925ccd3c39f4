"""HTTP as the gateway takes it: what is refused, what is closed, and in which order it answers.

Both servers are held to it: the one for the hot routes, and aiohttp, which has a connection from
its first other request on.
"""

from __future__ import annotations

import asyncio
import re
import resource
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec
import psutil
import pytest

from tests.doubles.gateway_harness import (
    CHAT,
    KEY,
    QUICK,
    GatewayHere,
    GatewayProcess,
    publish,
    route,
    until,
)
from tests.doubles.openai_server import Knobs, OpenAiDouble
from tests.machine import slowness

BODY = msgspec.json.encode({"model": CHAT, "messages": [{"role": "user", "content": "Hello"}]})
STREAM = BODY[:-1] + b',"stream":true}'
AUTH = f"Authorization: Bearer {KEY}\r\n".encode()
HOT, COLD = b"/v1/chat/completions", b"/v1/messages/count_tokens"
# Behind this a connection is aiohttp's.
MODEL = f"GET /v1/models/{CHAT} HTTP/1.1\r\nHost: gateway\r\n".encode() + AUTH + b"\r\n"
BEFORE = pytest.mark.parametrize("before", [(), (MODEL,)], ids=["hot", "aiohttp"])
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
NOT_HTTP = "bud_not_http_requests_total{"
PATIENCE_S = 10.0 * slowness()
IDLE = 5000


@pytest.fixture
async def double() -> AsyncIterator[OpenAiDouble]:
    async with OpenAiDouble(Knobs(tokens=3)) as server:
        yield server


@pytest.fixture
async def gateway(tmp_path: Path, double: OpenAiDouble) -> AsyncIterator[GatewayHere]:
    timeouts = replace(QUICK, head_s=0.5, caller_s=1.0, idle_s=2.0)
    async with GatewayHere(tmp_path, [route(double.base_url)], timeouts=timeouts) as running:
        yield running


def head(*lines: bytes, start: bytes = b"POST /v1/chat/completions HTTP/1.1") -> bytes:
    return b"\r\n".join([start, b"Host: gateway", AUTH.strip(), *lines]) + b"\r\n\r\n"


def post(body: bytes = BODY, *lines: bytes) -> bytes:
    return head(b"Content-Length: %d" % len(body), *lines) + body


def chunked(body: bytes = BODY, size: int = 7) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head(b"Transfer-Encoding: chunked") + chunks + b"0\r\n\r\n"


async def closed(gateway: GatewayHere, *writes: bytes) -> bytes:
    """All that comes until the gateway closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
    try:
        for content in writes:
            writer.write(content)
            await writer.drain()
            await asyncio.sleep(0.01)
        return await asyncio.wait_for(reader.read(), PATIENCE_S)
    finally:
        writer.close()


def statuses(content: bytes) -> list[int]:
    # aiohttp answers in the version of the request.
    return [int(found) for found in STATUS.findall(content)]


# -- request smuggling: one refusal, and what may be hidden behind it is never answered

HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: gateway\r\n\r\n"
TE = b"Transfer-Encoding: "


@pytest.mark.parametrize(
    "raw",
    [
        head(b"Content-Length: 5", TE + b"chunked") + b"0\r\n\r\n",
        head(TE + b"chunked", b"Content-Length: 5") + b"0\r\n\r\n",
        head(b"Content-Length: 0", b"Content-Length: 40"),
        head(b"Content-Length: 0", b"Content-Length: 0"),
        head(b"Content-Length: 0, 40"),
        head(b"Content-Length: +5") + b"abcde",
        head(b"Content-Length: 0x5") + b"abcde",
        head(b"Content-Length: 99999999999999999999") + b"abcde",
        head(TE + b"xchunked") + b"0\r\n\r\n",
        head(TE + b"identity") + b"0\r\n\r\n",
        head(TE + b"chunked, identity") + b"0\r\n\r\n",
        head(TE + b"gzip, chunked") + b"0\r\n\r\n",
        head(TE + b",chunked") + b"0\r\n\r\n",
        head(TE + b"\x0bchunked") + b"0\r\n\r\n",
        head(TE + b"chunked", TE + b"identity") + b"0\r\n\r\n",
        head(b"Transfer-Encoding : chunked") + b"0\r\n\r\n",
        head(b" Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head(b"X: a\r\n Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head(b"X: a\nTransfer-Encoding: chunked") + b"0\r\n\r\n",
        head(b"X: a\rTransfer-Encoding: chunked") + b"0\r\n\r\n",
        head(b"X: a\x00b"),
        head(b"X: a\x01b"),
        head(b": nameless"),
        head(b"X\xc3: y"),
        head(b"Host: another"),
        b"POST /v1/chat/completions HTTP/1.1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\nHost: gateway\n\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n\n",
        b"POST /v1/\x00 HTTP/1.1\r\nHost: gateway\r\n\r\n",
        b"POST /a b HTTP/1.1\r\nHost: gateway\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"post / HTTP/1.1\r\nHost: gateway\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        head(TE + b"chunked") + b"0x3\r\nabc\r\n0\r\n\r\n",
        head(TE + b"chunked") + b"3 \r\nabc\r\n0\r\n\r\n",
        head(TE + b"chunked") + b"3\nabc\r\n0\r\n\r\n",
        head(TE + b"chunked") + b"3\r\nabcd\r\n0\r\n\r\n",
        head(TE + b"chunked") + b"-1\r\nabc\r\n0\r\n\r\n",
        head(TE + b"chunked") + b"FFFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n",
        head(TE + b"chunked") + b"3;\x00\r\nabc\r\n0\r\n\r\n",
        head(TE + b"chunked") + b"3;a\nb\r\nabc\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40),
    ],
)
async def test_what_two_servers_could_read_differently_is_refused(
    gateway: GatewayHere, double: OpenAiDouble, raw: bytes
) -> None:
    for before, asked in ([], raw), ([], raw.replace(HOT, COLD)), ([MODEL], raw):
        content = await closed(gateway, *before, asked + HIDDEN)
        *answered, status = statuses(content)
        assert answered == [200] * len(before)
        assert status in (400, 501)
        assert b"connection: close" in content.lower()
        assert b'"invalid_request_error"' in content
    assert double.state.requests == 0


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"POST " + HOT + b"?" + b"a" * 9000 + b" HTTP/1.1\r\nHost: g\r\n\r\n", 414),
        (b"POST " + HOT + b"?" + b"a" * 9000, 414),
        (head(b"X: " + b"a" * 70_000), 431),
        (head(b"X: " + b"a" * 70_000)[:-4], 431),
        (head(*[b"X%d: a" % number for number in range(200)]), 431),
        (head(b"Transfer-Encoding: chunked") + b"0\r\nX: " + b"a" * 70_000, 431),
        (head(*[b"X%d: " % number + b"a" * 999 for number in range(90)])[:-4], 431),
        (b"POST " + HOT + b" HTTP/2.0\r\nHost: g\r\n\r\n", 505),
        (b"POST " + HOT + b" HTTP/0.9\r\nHost: g\r\n\r\n", 505),
    ],
)
async def test_limits_of_a_head(gateway: GatewayHere, raw: bytes, status: int) -> None:
    assert statuses(await closed(gateway, raw)) == [status]
    (by_aiohttp,) = statuses(await closed(gateway, raw.replace(HOT, COLD)))
    assert by_aiohttp in (status, 400)


async def test_refusals_are_counted_and_say_nothing_of_what_was_sent(
    gateway: GatewayHere, caplog: pytest.LogCaptureFixture
) -> None:
    bad = head(b"X: \x00" + KEY.encode())
    body = head(TE + b"chunked") + KEY.encode() + b"\r\n"
    for asked in bad, bad.replace(HOT, COLD), body, body.replace(HOT, COLD):
        assert KEY.encode() not in await closed(gateway, asked)
    assert KEY not in caplog.text
    assert "Traceback" not in caplog.text
    metrics = (await gateway.http.get("/metrics")).text
    (counted,) = [line for line in metrics.splitlines() if line.startswith(NOT_HTTP)]
    # The body to a hot route was a request before it was found to be none.
    assert counted.endswith(" 3")


# -- slow callers


@BEFORE
@pytest.mark.parametrize("begun", [b"POST", head(b"X: a")[:-4]])
async def test_a_head_that_does_not_end_is_let_go(
    gateway: GatewayHere, before: tuple[bytes, ...], begun: bytes
) -> None:
    content = await closed(gateway, *before, begun)
    assert statuses(content) == [200] * len(before) + [408]


@pytest.mark.parametrize("path", [HOT, COLD])
async def test_a_head_byte_by_byte_is_let_go(gateway: GatewayHere, path: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
    answer = asyncio.create_task(reader.read())
    for byte in head(b"X: " + b"a" * 5000).replace(HOT, path):
        if answer.done():
            break
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)
    assert statuses(await answer) == [408]
    writer.close()


@pytest.mark.parametrize("path", [HOT, COLD])
async def test_a_body_byte_by_byte_is_let_go(gateway: GatewayHere, path: bytes) -> None:
    # It moves within `caller_s` each time, and yet would take an hour.
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
    writer.write(head(b"Content-Length: 9999").replace(HOT, path))
    answer = asyncio.create_task(reader.read())
    for _ in range(200):
        if answer.done():
            break
        writer.write(b" ")
        await asyncio.sleep(0.1)
    with suppress(ConnectionResetError):
        assert await answer == b""
    (fact,) = await gateway.facts()
    assert fact.error_class == "client_closed"
    assert "did not send its body" in fact.error_message
    writer.close()


async def test_a_reader_that_stops_is_let_go_by_aiohttp_too(
    gateway: GatewayHere, double: OpenAiDouble
) -> None:
    double.knobs = Knobs(tokens=100_000)
    _reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port, limit=1000)
    writer.write(MODEL + post(STREAM))
    await until(lambda: double.state.requests == 1, PATIENCE_S)
    (fact,) = await gateway.facts()
    assert fact.error_class == "client_closed"
    assert "did not read" in fact.error_message
    writer.close()


async def test_a_slow_reader_gets_everything_from_aiohttp_too(
    gateway: GatewayHere, double: OpenAiDouble
) -> None:
    # All of it takes several times `caller_s`.
    double.knobs = Knobs(tokens=10_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port, limit=1000)
    writer.write(MODEL + post(STREAM, b"Connection: close"))
    content = b""
    while piece := await reader.read(100_000):
        content += piece
        await asyncio.sleep(0.1)
    assert content.count(b"data: ") > 10_000
    assert content.count(b"data: [DONE]") == 1
    writer.close()


async def test_an_idle_connection_is_closed_in_the_end(gateway: GatewayHere) -> None:
    assert await closed(gateway) == b""
    assert statuses(await closed(gateway, post())) == [200]
    content = await closed(gateway, b"GET /health HTTP/1.1\r\nHost: g\r\n\r\n")
    assert statuses(content) == [200]
    assert b"connection: close" not in content.lower()


# -- one connection, many requests


async def test_pipelined_requests_of_all_kinds_are_answered_in_order(
    gateway: GatewayHere, double: OpenAiDouble
) -> None:
    double.knobs = Knobs(tokens=2, first_delay_s=0.02)
    models = head(start=b"GET /v1/models HTTP/1.1")
    health = head(start=b"GET /health?full HTTP/1.1")
    missing = head(start=b"GET /v1/models/none HTTP/1.1")
    # The answers differ, so that their order is seen; the first ones take the longest.
    hot = [post(), chunked(), post(STREAM), post(b"{"), chunked(STREAM)]
    last = head(b"Connection: close", start=b"GET /nowhere HTTP/1.1")
    content = await closed(gateway, b"".join([*hot, models, *hot, missing, health, *hot]) + last)
    of_hot = [200, 200, 200, 400, 200]
    assert statuses(content) == [*of_hot, 200, *of_hot, 404, 200, *of_hot, 404]
    assert content.count(b"data: [DONE]") == 6
    assert double.state.most_in_flight == 1
    assert len(await gateway.facts(17)) == 17  # reading the list of models leaves none


async def test_what_is_always_asked_is_answered_without_aiohttp(gateway: GatewayHere) -> None:
    asked = [head(start=b"GET %b HTTP/1.1" % path) for path in (b"/health", b"/metrics?a=1")]
    asked += [head(start=b"GET /v1/models HTTP/1.1"), post(), chunked()]
    last = post(BODY, b"Connection: close")
    assert statuses(await closed(gateway, b"".join(asked) + last)) == [200] * 6
    assert gateway.gateway._front.cold is None
    # Loaded with the first request that needs it, which what is behind it waits for.
    assert statuses(await closed(gateway, *asked, MODEL, *asked, last)) == [200] * 12
    assert gateway.gateway._front.cold is not None


async def test_requests_behind_a_bad_one_are_not_answered(gateway: GatewayHere) -> None:
    bad = head(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    assert statuses(await closed(gateway, post() + post() + bad + post())) == [200, 200, 400]
    content = await closed(gateway, post(), head(start=b"GET /x HTTP/1.1"), bad + post())
    assert statuses(content) == [200, 404, 400]


@BEFORE
async def test_a_connection_that_says_close_is_closed_after_its_answer(
    gateway: GatewayHere, before: tuple[bytes, ...]
) -> None:
    content = await closed(gateway, *before, post(BODY, b"Connection: close"), post())
    assert statuses(content) == [200] * len(before) + [200]


@pytest.mark.parametrize("path", [HOT, COLD])
async def test_a_refusal_before_the_body_reaches_who_is_still_sending(
    gateway: GatewayHere, path: bytes
) -> None:
    # Closed at once, the connection would be reset and the answer lost on the way.
    unknown = head(b"Content-Length: 900000").replace(KEY.encode(), b"bud-nobody")
    unknown = unknown.replace(HOT, path)
    content = await closed(gateway, unknown, *[b" " * 100_000] * 9)
    assert statuses(content) == [401]


@BEFORE
async def test_expect_is_answered_only_when_the_body_is_wanted(
    gateway: GatewayHere, before: tuple[bytes, ...]
) -> None:
    first = [200] * len(before)
    waits = head(b"Content-Length: %d" % len(BODY), b"Expect: 100-continue", b"Connection: close")
    assert statuses(await closed(gateway, *before, waits, BODY)) == [*first, 100, 200]
    unknown = waits.replace(KEY.encode(), b"bud-nobody")
    assert statuses(await closed(gateway, *before, unknown)) == [*first, 401]
    # It did not wait.
    assert statuses(await closed(gateway, *before, waits + BODY)) == [*first, 200]


# -- methods and versions


@pytest.mark.parametrize("method", [b"GET", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE"])
async def test_other_methods_are_refused_by_name(gateway: GatewayHere, method: bytes) -> None:
    asked = head(b"Connection: close", start=method + b" /v1/chat/completions HTTP/1.1")
    content = await closed(gateway, asked)
    assert statuses(content) == [405]
    assert method in content


async def test_head_has_no_body(gateway: GatewayHere) -> None:
    asked = head(start=b"HEAD /health HTTP/1.1") + head(
        b"Connection: close", start=b"HEAD /nowhere HTTP/1.1"
    )
    content = await closed(gateway, asked)
    assert statuses(content) == [200, 404]
    assert b"{" not in content


async def test_connect_is_no_proxy(gateway: GatewayHere) -> None:
    content = await closed(gateway, b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n" + HIDDEN)
    assert statuses(content) == [404]


async def test_an_offer_to_upgrade_is_not_taken_up(gateway: GatewayHere) -> None:
    # Java's client makes this offer with each first request.
    offer = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
    last = head(b"Connection: close", start=b"GET /nowhere HTTP/1.1")
    assert statuses(await closed(gateway, post(BODY, *offer) + last)) == [200, 404]
    # Its body is a body, and no request, however it is cut.
    hides = post(HIDDEN, *offer)
    for cut in (len(hides) - len(HIDDEN), len(hides) - 9):
        assert statuses(await closed(gateway, hides[:cut], hides[cut:] + last)) == [400, 404]
    in_chunks = chunked(HIDDEN).replace(b"\r\n\r\n", b"\r\n" + b"\r\n".join(offer) + b"\r\n\r\n", 1)
    assert statuses(await closed(gateway, in_chunks)) == [501]
    # aiohttp closes behind it.
    for asked in hides, in_chunks:
        assert statuses(await closed(gateway, MODEL, asked + last)) == [200, 400]


@BEFORE
async def test_http_1_0(gateway: GatewayHere, before: tuple[bytes, ...]) -> None:
    first = [200] * len(before)

    def old(body: bytes, *lines: bytes) -> bytes:
        return post(body, *lines).replace(b"HTTP/1.1", b"HTTP/1.0")

    assert statuses(await closed(gateway, *before, old(BODY))) == [*first, 200]
    kept = await closed(gateway, *before, old(BODY, b"Connection: keep-alive") + old(BODY))
    assert statuses(kept) == [*first, 200, 200]
    assert b"connection: keep-alive" in kept.lower()
    streamed = await closed(gateway, *before, old(STREAM, b"Connection: keep-alive"))
    assert b"transfer-encoding" not in streamed.lower()
    assert streamed.endswith(b"data: [DONE]\n\n")


async def test_a_target_may_be_a_whole_url(gateway: GatewayHere) -> None:
    start = b"GET http://gateway/v1/models?x=1 HTTP/1.1"
    assert statuses(await closed(gateway, head(b"Connection: close", start=start))) == [200]


# -- callers that leave


@BEFORE
async def test_half_closed_is_gone(
    gateway: GatewayHere, double: OpenAiDouble, before: tuple[bytes, ...]
) -> None:
    # An end of the caller's side is all that is seen of most callers that leave.
    double.knobs = Knobs(tokens=1000, delay_s=0.02)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
    writer.write(b"".join(before) + post(STREAM))
    await reader.readuntil(b"data: ")
    writer.write_eof()
    await until(lambda: double.state.cancelled == 1, PATIENCE_S)
    writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        *(b"", b"POST /v1", head(b"Content-Length: 99"), post() + b"GET"),
        *(MODEL, MODEL + b"POST", MODEL + head(b"Content-Length: 99"), MODEL + post()),
    ],
)
async def test_leaving_at_any_moment_leaves_nothing_behind(
    gateway: GatewayHere, double: OpenAiDouble, sent: bytes
) -> None:
    double.knobs = Knobs(first_delay_s=30)
    for _ in range(5):
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
        writer.write(sent)
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.transport.abort()
    await until(lambda: not gateway.gateway._front.connections, PATIENCE_S)
    await until(lambda: double.state.in_flight == 0, PATIENCE_S)
    assert not gateway.gateway._exchanges


async def test_5000_idle_connections(tmp_path: Path, double: OpenAiDouble) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < IDLE + 500:
        pytest.fail(f"this needs {IDLE + 500} open files, the hard limit is {hard}: ulimit -Hn")
    publish(tmp_path, [route(double.base_url)])
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, IDLE + 500), hard))
    # The gateway is started with a soft limit of 1,024, and must raise its own.
    process = GatewayProcess(tmp_path, prefix=("sh", "-c", 'ulimit -Sn 1024; exec "$@"', "sh"))
    try:
        with process:
            gateway = psutil.Process(process.pid)
            before = gateway.memory_info().rss
            writers = []
            for _ in range(IDLE // 100):
                opened = [asyncio.open_connection("127.0.0.1", process.port) for _ in range(100)]
                writers += [writer for _, writer in await asyncio.gather(*opened)]
            reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
            writer.write(post(BODY, b"Connection: close"))
            assert statuses(await asyncio.wait_for(reader.read(), PATIENCE_S)) == [200]
            # Of memory each takes about as much as its buffers in the kernel do.
            assert gateway.memory_info().rss - before < IDLE * 6_000
            for each in writers:
                each.transport.abort()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
