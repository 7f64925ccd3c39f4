"""Requests that need no task: what becomes of them when the replica's answer is not a good one.

Streams are compared with the same ones on the long way, byte for byte.

Each test asks once before, so that there is a connection on which the next request takes it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest

from core.contracts.route_table import Limit
from gateway.hot import HotConnection
from gateway.short_stream import ShortStream
from gateway.short_way import ShortCall
from tests.doubles.gateway_harness import CHAT, KEY, QUICK, GatewayHere, route, until
from tests.doubles.openai_server import Knobs, OpenAiDouble

CALL: dict[str, Any] = {"model": CHAT, "messages": [{"role": "user", "content": "Hello"}]}
PATH = "/v1/chat/completions"
REFUSED = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
AT_ONCE = Limit(
    project_id="prj_a", level="project", subject="prj_a", metric="concurrent", window="", amount=1
)


@pytest.fixture
async def double() -> AsyncIterator[OpenAiDouble]:
    async with OpenAiDouble() as server:
        yield server


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[ShortCall]:
    """The requests that were sent without a task."""
    found: list[ShortCall] = []
    send = ShortCall.send

    def counted(self: ShortCall, *args: Any) -> None:
        found.append(self)
        send(self, *args)

    monkeypatch.setattr(ShortCall, "send", counted)
    return found


@pytest.fixture
async def gateway(
    tmp_path: Path, double: OpenAiDouble, taken: list[ShortCall]
) -> AsyncIterator[GatewayHere]:
    timeouts = replace(QUICK, first_byte_s=0.4, between_tokens_s=0.4, drain_s=0.1)
    async with GatewayHere(
        tmp_path, [route(double.base_url)], limits=[AT_ONCE], timeouts=timeouts
    ) as running:
        assert (await running.http.post(PATH, json=CALL)).status_code == 200
        taken.clear()
        yield running


async def test_a_good_answer_comes_as_on_the_long_way(
    gateway: GatewayHere, taken: list[ShortCall]
) -> None:
    long = await gateway.http.post(PATH, json=CALL | {"double": {"statuses": []}}, headers={
        "Content-Encoding": "identity"})  # fmt: skip
    short = await gateway.http.post(PATH, json=CALL)
    assert len(taken) == 1
    assert (short.status_code, short.json()["model"]) == (200, CHAT)
    assert short.headers.keys() == long.headers.keys()
    _, of_long, of_short = sorted(await gateway.facts(3), key=lambda fact: fact.started_unix_s)
    for name in ("status", "endpoint", "model", "key_id", "input_tokens", "output_tokens",
                 "attempts", "deployment_id", "response_bytes", "error_class"):  # fmt: skip
        assert getattr(of_short, name) == getattr(of_long, name), name


@pytest.mark.parametrize(
    ("knobs", "status", "attempts"),
    [
        ({"statuses": [503]}, 200, 2),
        ({"fail": "before_first_byte", "fails": 1}, 200, 1),  # a kept connection may be closed
        ({"fail": "garbage", "fails": 1}, 200, 2),
        ({"statuses": [400]}, 400, 1),
        ({"pad_bytes": 200_000}, 200, 1),  # too large to be waited for without reading
    ],
)
async def test_what_is_no_good_answer_goes_the_long_way(
    gateway: GatewayHere, double: OpenAiDouble, taken: list[ShortCall],
    knobs: dict[str, Any], status: int, attempts: int,
) -> None:  # fmt: skip
    double.knobs = Knobs(**knobs)
    answer = await gateway.http.post(PATH, json=CALL)
    assert (answer.status_code, len(taken)) == (status, 1)
    assert (await gateway.facts(2))[1].attempts == attempts
    double.knobs = Knobs()
    # Its place among the requests at once is free again.
    assert (await gateway.http.post(PATH, json=CALL)).status_code == 200
    assert all(backend.in_flight == 0 for backend in gateway.gateway.table.backends)


async def test_silence_is_a_timeout(
    gateway: GatewayHere, double: OpenAiDouble, taken: list[ShortCall]
) -> None:
    double.knobs = Knobs(first_delay_s=30)
    answer = await gateway.http.post(PATH, json=CALL)
    assert (answer.status_code, len(taken)) == (504, 1)
    assert (await gateway.facts(2))[1].error_class == "timeout"
    await until(lambda: double.state.cancelled == 1)


async def test_a_caller_that_leaves_ends_the_replicas_work(
    gateway: GatewayHere, double: OpenAiDouble, taken: list[ShortCall]
) -> None:
    double.knobs = Knobs(first_delay_s=30)
    with suppress(httpx.ReadTimeout):
        await gateway.http.post(PATH, json=CALL, timeout=0.1)
    await until(lambda: double.state.cancelled == 1)
    fact = (await gateway.facts(2))[1]
    assert (fact.status, fact.error_class, len(taken)) == (499, "client_closed", 1)
    double.knobs = Knobs()
    assert (await gateway.http.post(PATH, json=CALL)).status_code == 200


async def test_a_refusal_is_told_by_the_long_way(
    gateway: GatewayHere, double: OpenAiDouble, taken: list[ShortCall]
) -> None:
    double.knobs = Knobs(first_delay_s=0.3)
    first = asyncio.create_task(gateway.http.post(PATH, json=CALL))
    await until(lambda: double.state.in_flight == 1)
    refused = await gateway.http.post(PATH, json=CALL)
    assert (refused.status_code, len(taken)) == (429, 1)
    assert "concurrent" in refused.json()["error"]["message"]
    assert (await first).status_code == 200


@pytest.mark.parametrize("has_task", [True, False])
async def test_a_caller_that_leaves_as_the_answer_turns_out_bad_holds_nothing(
    gateway: GatewayHere, double: OpenAiDouble, taken: list[ShortCall], *, has_task: bool
) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    fresh = httpx.AsyncClient(base_url=gateway.url, headers=headers, verify=False)
    double.knobs = Knobs(first_delay_s=30)
    client = gateway.http if has_task else fresh
    asked = asyncio.create_task(client.post(PATH, json=CALL))
    await until(lambda: double.state.in_flight == 1)
    # Both in one turn of the event loop: the task that was to go on never begins.
    cast(HotConnection, taken[0].exchange.request.caller).abort()
    taken[0].connection.data_received(REFUSED)
    with suppress(httpx.RemoteProtocolError, httpx.ReadError):
        await asked
    await fresh.aclose()
    assert (await gateway.facts(2))[1].error_class == "client_closed"
    double.knobs = Knobs()
    assert (await gateway.http.post(PATH, json=CALL)).status_code == 200
    assert all(backend.in_flight == 0 for backend in gateway.gateway.table.backends)


async def test_a_bad_answer_of_a_route_that_is_gone_meanwhile_holds_nothing(
    gateway: GatewayHere, double: OpenAiDouble, taken: list[ShortCall]
) -> None:
    double.knobs = Knobs(first_delay_s=30)
    asked = asyncio.create_task(gateway.http.post(PATH, json=CALL))
    await until(lambda: double.state.in_flight == 1)
    await gateway.publish([])
    taken[0].connection.data_received(REFUSED)
    assert (await asked).status_code == 400
    assert taken[0].backend.in_flight == 0


# So deep that every Python refuses it: 3.14 goes as far as the stack reaches.
_TOO_DEEP = b"[" * 450_000 + b"]" * 450_000


@pytest.mark.parametrize("rest", [b'"\xff":1}', b'"a":' + _TOO_DEEP + b"}"])
async def test_what_turns_out_to_be_no_json_is_refused(
    gateway: GatewayHere, double: OpenAiDouble, taken: list[ShortCall], rest: bytes
) -> None:
    # The body is written anew for a replica that knows the model by another name.
    await gateway.publish([route(double.base_url, upstream_model="other")])
    body = msgspec.json.encode(CALL)[:-1] + b"," + rest
    headers = {"Content-Type": "application/json"}
    refused = await gateway.http.post(PATH, content=body, headers=headers)
    assert refused.status_code == 400
    assert "not valid JSON" in refused.json()["error"]["message"]
    assert not taken


async def test_a_stop_ends_it_with_an_error(
    gateway: GatewayHere, double: OpenAiDouble, taken: list[ShortCall]
) -> None:
    double.knobs = Knobs(first_delay_s=0.35)
    asked = asyncio.create_task(gateway.http.post(PATH, json=CALL))
    await until(lambda: double.state.in_flight == 1)
    await gateway.stop()
    answer = await asked
    assert (answer.status_code, len(taken)) == (503, 1)
    assert (await gateway.facts(2))[1].error_class == "gateway_stopped"


# -- streams


def _without_ids(content: bytes) -> bytes:
    return re.sub(rb"request req_\w+|chatcmpl-\w+", b"", content)


@pytest.mark.parametrize(
    ("knobs", "error_class", "short"),
    [
        ({}, "", 1),
        ({"tokens": 100}, "", 1),
        ({"crlf": True}, "", 1),
        ({"usage_null": True}, "", 1),
        ({"pad_bytes": 90_000, "delay_s": 0.005}, "", 1),
        ({"pings": 2, "delay_s": 0.02}, "", 1),
        ({"tokens": 9, "break_after": 3, "delay_s": 0.01}, "upstream_broke", 1),
        ({"tokens": 9, "break_after": 3, "tear": True}, "upstream_broke", 1),
        ({"stall_after": 2}, "timeout", 1),
        ({"done": False}, "upstream_broke", 1),
        ({"error_after": 2, "delay_s": 0.02}, "upstream_error", 1),
        ({"error_after": 0}, "upstream_error", 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("usage", [False, True])
async def test_a_stream_comes_as_on_the_long_way(
    gateway: GatewayHere, taken: list[ShortCall], *, knobs: dict[str, Any], error_class: str,
    short: int, usage: bool,
) -> None:  # fmt: skip
    call = CALL | {"stream": True, "double": knobs}
    if usage:
        call["stream_options"] = {"include_usage": True}
    long = await gateway.http.post(PATH, json=call, headers={"Content-Encoding": "identity"})
    # What failed is aside for a moment, and its connection closed.
    await until(lambda: all(each.available for each in gateway.gateway.table.backends))
    assert (await gateway.http.post(PATH, json=CALL)).status_code == 200
    taken.clear()
    of_short = await gateway.http.post(PATH, json=call)
    assert len(taken) == short
    assert of_short.status_code == long.status_code
    assert of_short.headers.keys() == long.headers.keys()
    assert _without_ids(of_short.content) == _without_ids(long.content)
    facts = sorted(await gateway.facts(4), key=lambda fact: fact.started_unix_s)
    for name in ("status", "endpoint", "model", "key_id", "input_tokens", "output_tokens", "stream",
                 "attempts", "deployment_id", "error_class", "error_message"):  # fmt: skip
        assert getattr(facts[3], name) == getattr(facts[1], name), name
    assert facts[3].error_class == error_class
    assert (facts[3].ttft_ms is None) == (facts[1].ttft_ms is None)
    assert facts[3].response_bytes >= len(of_short.content) * (of_short.status_code == 200)
    assert all(backend.in_flight == 0 for backend in gateway.gateway.table.backends)
    assert (await gateway.http.post(PATH, json=CALL)).status_code == 200


async def test_a_stream_that_breaks_before_its_first_event_is_retried(
    gateway: GatewayHere, double: OpenAiDouble, taken: list[ShortCall]
) -> None:
    double.knobs = Knobs(statuses=[503])
    answer = await gateway.http.post(PATH, json=CALL | {"stream": True})
    assert (answer.status_code, len(taken)) == (200, 1)
    assert answer.content.endswith(b"data: [DONE]\n\n")
    assert (await gateway.facts(2))[1].attempts == 2


async def test_a_caller_that_leaves_a_stream_ends_the_replicas_work(
    gateway: GatewayHere, double: OpenAiDouble, taken: list[ShortCall]
) -> None:
    double.knobs = Knobs(tokens=1000, delay_s=0.01)
    async with gateway.http.stream("POST", PATH, json=CALL | {"stream": True}) as answer:
        async for _ in answer.aiter_raw():
            break
    await until(lambda: double.state.cancelled == 1)
    fact = (await gateway.facts(2))[1]
    assert (fact.status, fact.error_class, len(taken)) == (499, "client_closed", 1)
    assert fact.ttft_ms is not None
    assert fact.response_bytes > 0
    double.knobs = Knobs()
    assert (await gateway.http.post(PATH, json=CALL)).status_code == 200


async def test_a_slow_reader_pauses_a_stream_and_gets_all_of_it(
    gateway: GatewayHere, double: OpenAiDouble, taken: list[ShortCall]
) -> None:
    double.knobs = Knobs(tokens=8000, pad_bytes=4000)
    content = bytearray()
    async with gateway.http.stream("POST", PATH, json=CALL | {"stream": True}) as answer:
        await asyncio.sleep(0.3)
        assert double.state.bytes_sent < 20_000_000  # the rest waits at the replica
        async for piece in answer.aiter_raw():
            content += piece
    assert (content.count(b"data: {"), len(taken)) == (8001, 1)
    assert content.endswith(b"data: [DONE]\n\n")


async def test_a_stream_behind_an_answer_that_is_not_read_waits_at_its_replica(
    gateway: GatewayHere, double: OpenAiDouble, taken: list[ShortCall]
) -> None:
    whole = msgspec.json.encode(CALL | {"double": {"pad_bytes": 900_000}})
    stream = msgspec.json.encode(
        CALL | {"stream": True, "double": {"tokens": 8000, "pad_bytes": 4000}}
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
    for body in [whole] * 9 + [stream]:
        head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\n"
        writer.write(head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
    await until(lambda: double.state.requests == 11)
    await asyncio.sleep(0.3)
    assert double.state.bytes_sent < 25_000_000  # of 40 MB
    content = b""
    while not content.endswith(b"0\r\n\r\n"):
        content = content[-5:] + await asyncio.wait_for(reader.read(1_000_000), 10)
    assert len(taken) == 10
    writer.close()


async def test_a_stop_ends_a_stream_with_an_error_event(
    gateway: GatewayHere, double: OpenAiDouble, taken: list[ShortCall]
) -> None:
    double.knobs = Knobs(tokens=1000, delay_s=0.01)
    asked = asyncio.create_task(gateway.http.post(PATH, json=CALL | {"stream": True}))
    await until(lambda: double.state.in_flight == 1)
    await asyncio.sleep(0.1)
    await gateway.stop()
    answer = await asked
    assert (answer.status_code, len(taken)) == (200, 1)
    assert b'"gateway_stopping"' in answer.content.rsplit(b"data: ", 1)[1]
    assert (await gateway.facts(2))[1].error_class == "gateway_stopped"


async def test_a_fault_in_a_stream_holds_nobody(
    gateway: GatewayHere, double: OpenAiDouble, taken: list[ShortCall],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def fault(*_: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(ShortStream, "_feed", fault)
    with pytest.raises(httpx.RemoteProtocolError):
        await gateway.http.post(PATH, json=CALL | {"stream": True, "double": {"delay_s": 0.02}})
    assert "a fault of ours" in caplog.text
    assert (await gateway.facts(2))[1].error_class == "client_closed"
    assert (await gateway.http.post(PATH, json=CALL)).status_code == 200
    assert all(backend.in_flight == 0 for backend in gateway.gateway.table.backends)
