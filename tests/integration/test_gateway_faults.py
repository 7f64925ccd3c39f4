"""What callers get when replicas fail, and what replicas notice of callers that go away."""

from __future__ import annotations

import asyncio
import itertools
import random
import resource
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from core.kernel.crypto import Keyring, Secret
from gateway.config import Timeouts
from tests.doubles.gateway_harness import (
    CHAT,
    KEY,
    QUICK,
    GatewayHere,
    api_key,
    free_port,
    route,
    until,
)
from tests.doubles.openai_server import Knobs, OpenAiDouble
from tests.machine import slowness

HELLO = [{"role": "user", "content": "Hello"}]
CALL: dict[str, Any] = {"model": CHAT, "messages": HELLO}


@pytest.fixture
async def double() -> AsyncIterator[OpenAiDouble]:
    async with OpenAiDouble() as server:
        yield server


@pytest.fixture
async def gateway(tmp_path: Path, double: OpenAiDouble) -> AsyncIterator[GatewayHere]:
    async with GatewayHere(tmp_path, [route(double.base_url)]) as running:
        yield running


async def read_raw(gateway: GatewayHere, **fields: Any) -> bytes:
    answer = await gateway.http.post(
        "/v1/chat/completions", json={**CALL, "stream": True, **fields}
    )
    assert answer.status_code == 200
    return answer.content


def events_of(content: bytes) -> list[Any]:
    parts = [part for part in content.split(b"\n\n") if part]
    assert all(part.startswith(b"data: ") for part in parts)
    return [msgspec.json.decode(part[6:]) for part in parts if part != b"data: [DONE]"]


# -- before the first byte


async def test_another_replica_answers_when_one_does_not_listen(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    async with GatewayHere(tmp_path, [route(dead, double.base_url)]) as gateway:
        for _ in range(10):
            await gateway.openai.chat.completions.create(**CALL)
        facts = await gateway.facts(10)
        assert all(fact.status == 200 for fact in facts)
        # The dead one is put aside: it is not tried by every request.
        assert sum(fact.attempts - 1 for fact in facts) < 5


@pytest.mark.parametrize("fail", ["before_first_byte", "garbage"])
@pytest.mark.parametrize("stream", [False, True])
async def test_failure_before_the_first_byte_is_retried(
    gateway: GatewayHere, double: OpenAiDouble, fail: str, stream: bool
) -> None:
    double.knobs = Knobs(fail=fail, fails=1)
    answer = await gateway.openai.chat.completions.create(**CALL, stream=stream)
    if stream:
        assert len([chunk async for chunk in answer]) == 5
    (fact,) = await gateway.facts()
    assert (fact.status, fact.attempts, fact.error_class) == (200, 2, "")
    assert double.state.requests == 2


async def test_stream_that_breaks_before_its_first_token_is_retried(
    gateway: GatewayHere, double: OpenAiDouble
) -> None:
    # Headers and a keep-alive comment have come, yet nothing has gone to the caller.
    answer = await gateway.http.post(
        "/v1/chat/completions",
        json=CALL | {"stream": True, "double": {"pings": 1, "break_after": 0}},
    )
    assert answer.status_code == 502
    assert double.state.requests == 3


async def test_retries_are_bounded(gateway: GatewayHere, double: OpenAiDouble) -> None:
    double.knobs = Knobs(fail="before_first_byte")
    with pytest.raises(openai.InternalServerError) as failed:
        await gateway.openai.chat.completions.create(**CALL)
    assert failed.value.status_code == 502
    assert double.state.requests == 3
    (fact,) = await gateway.facts()
    assert (fact.attempts, fact.error_class) == (3, "upstream_broke")


async def test_retry_budget_stops_a_storm(gateway: GatewayHere, double: OpenAiDouble) -> None:
    double.knobs = Knobs(status=502)
    calls = 60
    for _ in range(calls):
        answer = await gateway.http.post("/v1/chat/completions", json=CALL)
        assert answer.status_code in (502, 503)
    # Ten to begin with, a fifth of the requests, and some for the time that passes.
    assert double.state.requests - calls <= 10 + calls / 5 + 5


async def test_storm_on_one_replica_is_hidden_by_the_other(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    stormy = await OpenAiDouble(Knobs(statuses=[503, 502, 429, 503, 504])).start()
    async with GatewayHere(tmp_path, [route(stormy.base_url, double.base_url)]) as gateway:
        for _ in range(40):
            answer = await gateway.http.post("/v1/chat/completions", json=CALL)
            assert answer.status_code == 200, answer.text
            await asyncio.sleep(0.01)
    assert stormy.state.requests >= 3
    await stormy.stop()


@pytest.mark.parametrize(
    ("knobs", "stream"),
    [({"status": 500}, False), ({"status": 401}, True), ({"error_after": 0}, True)],
)
async def test_a_replica_that_fails_at_once_does_not_draw_the_requests(
    tmp_path: Path, double: OpenAiDouble, knobs: dict[str, Any], stream: bool
) -> None:
    broken = await OpenAiDouble(Knobs(**knobs)).start()
    async with GatewayHere(tmp_path, [route(broken.base_url, double.base_url)]) as gateway:
        for _ in range(20):
            answer = await gateway.http.post("/v1/chat/completions", json=CALL | {"stream": stream})
            assert answer.status_code == 200, answer.text
    assert broken.state.requests <= 5
    await broken.stop()


async def test_request_waits_for_a_replica_that_is_started_again(tmp_path: Path) -> None:
    port = free_port()
    async with GatewayHere(tmp_path, [route(f"http://127.0.0.1:{port}")]) as gateway:
        calls = [
            asyncio.create_task(gateway.openai.chat.completions.create(**CALL)) for _ in range(5)
        ]
        await asyncio.sleep(0.3)
        async with OpenAiDouble(Knobs(statuses=[503]), port=port):
            assert all(answer.usage for answer in await asyncio.gather(*calls))


async def test_request_waits_for_the_next_table_while_the_route_restarts(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    async with GatewayHere(tmp_path, [route(state="restarting")]) as gateway:
        call = asyncio.create_task(gateway.openai.chat.completions.create(**CALL))
        await asyncio.sleep(0.2)
        await gateway.publish([route(double.base_url)])
        assert (await call).usage


async def test_nothing_listens_for_too_long(tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    async with GatewayHere(tmp_path, [route(dead)]) as gateway:
        began = time.monotonic()
        with pytest.raises(openai.InternalServerError) as failed:
            await gateway.openai.chat.completions.create(**CALL)
        assert failed.value.status_code == 503
        assert "retry-after" in failed.value.response.headers
        assert 0.9 < time.monotonic() - began < 8 * slowness()
        assert (await gateway.facts())[0].error_class == "connect"


async def test_no_first_byte_in_time(gateway: GatewayHere, double: OpenAiDouble) -> None:
    double.knobs = Knobs(first_delay_s=30)
    answer = await gateway.http.post("/v1/chat/completions", json=CALL)
    assert answer.status_code == 504
    assert double.state.requests == 1
    await until(lambda: double.state.cancelled == 1)


async def test_kept_connection_that_the_replica_closed_is_replaced(
    gateway: GatewayHere, double: OpenAiDouble
) -> None:
    for _ in range(3):
        await gateway.openai.chat.completions.create(**CALL)
    assert double.state.connections == 1
    for connection in list(double._connections):
        connection.cut()  # the next request meets a connection that is just being closed
    await gateway.openai.chat.completions.create(**CALL)
    facts = await gateway.facts(4)
    assert [fact.attempts for fact in facts] == [1, 1, 1, 1]


_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
_EVENT = b'data: {"choices":[{"index":0,"delta":{"content":" t0"}}]}\n\n'
_FIRST = _HEAD + b"\r\n%x\r\n%b\r\n" % (len(_EVENT), _EVENT)


@asynccontextmanager
async def crooked(*pieces: bytes, pause_s: float = 0.02) -> AsyncIterator[str]:
    """A double of a replica that says these pieces, the last one again and again."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in itertools.chain(pieces, itertools.repeat(pieces[-1])):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ((b"HTTP/1.1 200 OK\r\nX-Slow: ", b"y"), "replica_timeout"),
        ((_HEAD + b"\r\nnonsense\r\n", b"more\r\n"), "stream_broken"),
        ((_FIRST, b"zz\r\nnonsense\r\n"), "stream_broken"),
        ((_FIRST, b"4\r\n\x00\xff\xfe\n\r\n"), "replica_timeout"),
        ((_FIRST, b"1\r\nd\r\n"), "replica_timeout"),
    ],
    ids=["trickled head", "garbage first", "garbage later", "no events", "trickled event"],
)
async def test_a_replica_that_trickles_or_speaks_garbage_holds_nobody(
    tmp_path: Path, pieces: tuple[bytes, ...], code: str
) -> None:
    limited = replace(QUICK, first_byte_s=0.4, total_s=1.0)
    async with (
        crooked(*pieces) as url,
        GatewayHere(tmp_path, [route(url)], timeouts=limited) as gateway,
    ):
        began_s = time.monotonic()
        answer = await gateway.http.post("/v1/chat/completions", json=CALL | {"stream": True})
        assert time.monotonic() - began_s < 10 * slowness()
        (fact,) = await gateway.facts()
        if answer.status_code == 200:
            assert events_of(answer.content)[-1]["error"]["code"] == code
        else:
            assert answer.json()["error"]["code"] == code
        assert fact.error_class == {"replica_timeout": "timeout"}.get(code, "upstream_broke")


# -- after the first byte


@pytest.mark.parametrize("tear", [False, True], ids=["between_events", "inside_an_event"])
async def test_stream_that_breaks_ends_with_an_error_event(
    gateway: GatewayHere, double: OpenAiDouble, tear: bool
) -> None:
    events = events_of(
        await read_raw(gateway, double={"tokens": 9, "break_after": 3, "tear": tear})
    )
    assert [event["choices"][0]["delta"]["content"] for event in events[:-1]] == [
        " t0",
        " t1",
        " t2",
    ]
    assert events[-1]["error"]["code"] == "stream_broken"
    assert double.state.requests == 1
    (fact,) = await gateway.facts()
    assert (fact.status, fact.error_class) == (200, "upstream_broke")


async def test_official_client_raises_on_a_broken_stream(gateway: GatewayHere) -> None:
    stream = await gateway.openai.chat.completions.create(
        **CALL, stream=True, extra_body={"double": {"break_after": 2}}
    )
    with pytest.raises(openai.APIError, match="broke off"):
        assert [chunk async for chunk in stream]


async def test_stream_that_stalls_ends_with_an_error_event(gateway: GatewayHere) -> None:
    events = events_of(await read_raw(gateway, double={"stall_after": 2}))
    assert events[-1]["error"]["code"] == "replica_timeout"


async def test_stream_without_its_end_is_broken(gateway: GatewayHere) -> None:
    events = events_of(await read_raw(gateway, double={"done": False}))
    assert events[-1]["error"]["code"] == "stream_broken"


async def test_error_event_of_the_replica_is_forwarded_and_counted(gateway: GatewayHere) -> None:
    events = events_of(await read_raw(gateway, double={"error_after": 2, "delay_s": 0.02}))
    assert events[-1]["error"]["message"] == "the double failed"
    (fact,) = await gateway.facts()
    assert fact.error_class == "upstream_error"


async def test_error_event_before_the_first_token_is_a_plain_error(gateway: GatewayHere) -> None:
    answer = await gateway.http.post(
        "/v1/chat/completions", json={**CALL, "stream": True, "double": {"error_after": 0}}
    )
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "the double failed"


async def test_whole_answer_that_breaks_is_retried_then_an_error(
    gateway: GatewayHere, double: OpenAiDouble
) -> None:
    answer = await gateway.http.post(
        "/v1/chat/completions", json={**CALL, "double": {"break_after": 1}}
    )
    assert answer.status_code == 502
    assert double.state.requests == 3


async def test_replica_killed_under_streams_fails_only_its_own(tmp_path: Path) -> None:
    slow = Knobs(tokens=40, delay_s=0.02)
    async with OpenAiDouble(slow) as first, OpenAiDouble(slow) as second:
        routes = [route(first.base_url, second.base_url)]
        async with GatewayHere(tmp_path, routes) as gateway:
            calls = [asyncio.create_task(read_raw(gateway)) for _ in range(40)]
            await until(lambda: first.state.in_flight + second.state.in_flight == 40)
            await asyncio.sleep(0.2)
            doomed = first.state.in_flight
            await first.stop()
            streams = [events_of(content) for content in await asyncio.gather(*calls)]
            broken = [events for events in streams if "error" in events[-1]]
            assert len(broken) == doomed
            assert 10 <= doomed <= 30  # p2c spread them


# -- the caller's side


@pytest.mark.parametrize("stream", [True, False])
async def test_caller_that_goes_away_cancels_at_the_replica(
    gateway: GatewayHere, double: OpenAiDouble, stream: bool
) -> None:
    double.knobs = Knobs(tokens=1000, delay_s=0.02)
    body = msgspec.json.encode({**CALL, "stream": stream})
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
    writer.write(_post(body))
    await until(lambda: double.state.in_flight == 1)
    if stream:
        await reader.readuntil(b" t2")
    writer.close()
    await until(lambda: double.state.cancelled == 1)
    assert double.state.in_flight == 0
    (fact,) = await gateway.facts()
    assert (fact.status, fact.error_class) == (499, "client_closed")


async def test_slow_reader_does_not_grow_memory_and_is_let_go(tmp_path: Path) -> None:
    double = await OpenAiDouble(Knobs(tokens=20_000, pad_bytes=4000)).start()
    async with GatewayHere(tmp_path, [route(double.base_url)]) as gateway:
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port, limit=1024)
        writer.write(_post(msgspec.json.encode({**CALL, "stream": True})))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await asyncio.sleep(0.6)
        sent = double.state.bytes_sent
        await asyncio.sleep(0.3)
        # The whole way is full: nothing moves, of the 80 MB only the buffers are under way.
        assert double.state.bytes_sent == sent
        assert 100_000 < sent < 20_000_000
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000
        # A caller that does not read for `caller_s` is let go, and the replica with it.
        await until(lambda: double.state.cancelled == 1, 6 * slowness())
        writer.close()
    await double.stop()


async def test_slow_reader_that_reads_gets_everything(
    gateway: GatewayHere, double: OpenAiDouble
) -> None:
    double.knobs = Knobs(tokens=600, pad_bytes=4000)
    async with gateway.http.stream(
        "POST", "/v1/chat/completions", json={**CALL, "stream": True}
    ) as answer:
        content = b""
        async for piece in answer.aiter_raw():
            content += piece
            if random.random() < 0.02:
                await asyncio.sleep(0.01)
    events = events_of(content)
    assert len(events) == 601
    assert "error" not in events[-1]


async def test_body_over_the_limit_is_refused_without_reading_it(gateway: GatewayHere) -> None:
    answer = await gateway.http.post("/v1/chat/completions", content=b" " * 5_000_000)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    (fact,) = await gateway.facts()
    assert (fact.error_class, fact.request_bytes) == ("too_large", 0)


async def test_body_over_the_limit_in_chunks_is_refused(gateway: GatewayHere) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(60):
            yield b" " * 100_000

    answer = await gateway.http.post("/v1/chat/completions", content=endless())
    assert answer.status_code == 413


async def test_wrong_key_is_refused_before_its_body_is_read(gateway: GatewayHere) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
    head = _post(b"", length=500_000).replace(KEY.encode(), b"bud-wrong")
    writer.write(head)
    assert b" 401 " in await reader.readline()
    writer.close()


async def test_expect_continue(gateway: GatewayHere) -> None:
    body = msgspec.json.encode(CALL)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
    writer.write(
        _post(b"", length=len(body)).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    )
    assert b"100" in await asyncio.wait_for(reader.readline(), 2)
    await reader.readline()
    writer.write(body)
    assert b" 200 " in await asyncio.wait_for(reader.readline(), 2)
    writer.close()


async def test_body_that_never_comes_is_let_go(gateway: GatewayHere) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
    writer.write(_post(b"{", length=100))
    assert await asyncio.wait_for(reader.read(), 6 * slowness()) == b""
    writer.close()


async def test_compressed_body_is_refused_by_name(gateway: GatewayHere) -> None:
    answer = await gateway.http.post(
        "/v1/chat/completions", content=b"x", headers={"Content-Encoding": "gzip"}
    )
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /v1/%ff HTTP/1.1\r\nHost: g\r\n\r\n",
        b"GET /v1/models/%ff%fe HTTP/1.1\r\nHost: g\r\nx-api-key: KEY\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer \xff\xfe\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: g\r\nAuthorization: Basic KEY\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: g\r\nx-api-key: KEY\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: g\r\nx-api-key: KEY\r\n\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\nHost: g\r\nx-api-key: KEY\r\n"
        b'Content-Length: 18\r\n\r\n{"model":"\\ud800"}',
        b"POST /v1/embeddings HTTP/1.1\r\nHost: g\r\nx-api-key: KEY\r\n"
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET /v1/models HTTP/1.1\r\nHost: g\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    ],
)
async def test_odd_requests_are_refused_and_break_nothing(
    gateway: GatewayHere, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
    writer.write(raw.replace(b"KEY", KEY.encode()))
    status = await asyncio.wait_for(reader.readline(), 3)
    assert status == b"" or status.split()[1] in (b"400", b"401", b"404"), status
    writer.close()
    assert "Traceback" not in caplog.text
    assert KEY not in caplog.text
    await gateway.openai.chat.completions.create(**CALL)


async def test_pipelined_requests_are_answered_in_order(gateway: GatewayHere) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
    writer.write(_post(msgspec.json.encode({**CALL, "model": "no"})) + _post(b"{"))
    assert b" 404 " in await asyncio.wait_for(reader.readline(), 2)
    rest = await asyncio.wait_for(reader.readuntil(b" 400 "), 2)
    assert b"model_not_found" in rest
    writer.close()


# -- the table


async def test_damaged_table_keeps_the_last_good_one(
    gateway: GatewayHere, caplog: pytest.LogCaptureFixture
) -> None:
    path = gateway.data_dir / "routes" / "table.json"
    path.write_bytes(path.read_bytes()[:-20])
    await until(lambda: "kept at version 1" in caplog.text)
    await gateway.openai.chat.completions.create(**CALL)
    path.unlink()
    await asyncio.sleep(0.2)
    await gateway.openai.chat.completions.create(**CALL)


async def test_revoked_key_is_refused_within_a_second(
    gateway: GatewayHere, double: OpenAiDouble
) -> None:
    await gateway.openai.chat.completions.create(**CALL)
    began = time.monotonic()
    await gateway.publish([route(double.base_url)], keys=[api_key("bud-another")])
    with pytest.raises(openai.AuthenticationError):
        await gateway.openai.chat.completions.create(**CALL)
    assert (
        time.monotonic() - began < 2.0 * slowness()
    )  # a second on a machine with nothing else to do


async def test_swap_under_load_loses_nothing(gateway: GatewayHere, double: OpenAiDouble) -> None:
    double.knobs = Knobs(tokens=20, delay_s=0.005)
    calls = []
    for _ in range(10):
        calls += [asyncio.create_task(read_raw(gateway)) for _ in range(4)]
        await gateway.publish([route(double.base_url, deployment_id=f"dep_{random.random()}")])
    for content in await asyncio.gather(*calls):
        assert "error" not in events_of(content)[-1]


async def test_sealed_credential_is_opened_and_sent(
    tmp_path: Path,
    _made_keys: Path,  # noqa: PT019 (its value is used)
) -> None:
    ring = Keyring(_made_keys)
    async with OpenAiDouble(api_key="sk-replica") as double:
        plain = route(double.base_url)
        replica = plain.replicas[0]
        sealed = ring.seal(Secret("sk-replica"), context=f"replica:{replica.id}")
        elsewhere = ring.seal(Secret("sk-replica"), context="replica:another")

        def with_credential(credential: str) -> Any:
            changed = msgspec.structs.replace(replica, credential=credential)
            return [msgspec.structs.replace(plain, replicas=[changed])]

        async with GatewayHere(tmp_path, with_credential(sealed), keys_dir=_made_keys) as gateway:
            await gateway.openai.chat.completions.create(**CALL)
            assert double.headers[0]["authorization"] == "Bearer sk-replica"
            # A credential sealed for another replica is a clear refusal, not a guess.
            await gateway.publish(with_credential(elsewhere))
            with pytest.raises(openai.InternalServerError, match="cannot be opened") as refused:
                await gateway.openai.chat.completions.create(**CALL)
            assert refused.value.status_code == 503


async def test_stop_ends_streams_with_an_error_event(tmp_path: Path, double: OpenAiDouble) -> None:
    double.knobs = Knobs(tokens=1000, delay_s=0.02)
    timeouts = Timeouts(**{**_phases(QUICK), "drain_s": 0.3})
    async with GatewayHere(tmp_path, [route(double.base_url)], timeouts=timeouts) as gateway:
        stream = asyncio.create_task(read_raw(gateway))
        waiting = asyncio.create_task(
            gateway.http.post("/v1/chat/completions", json={**CALL, "double": {"first_delay_s": 9}})
        )
        await until(lambda: double.state.in_flight == 2)
        await gateway.stop()
        events = events_of(await stream)
        assert events[-1]["error"]["code"] == "gateway_stopping"
        assert (await waiting).status_code == 503
        facts = await gateway.facts(2)
        assert {fact.error_class for fact in facts} == {"gateway_stopped"}


def _phases(timeouts: Timeouts) -> dict[str, float]:
    return {name: getattr(timeouts, name) for name in Timeouts.__dataclass_fields__}


def _post(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n"
        f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {size}\r\n\r\n"
    )
    return head.encode() + body
