"""OpenAI's own Python client, unchanged, against a real gateway on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import openai
import pytest

from core.contracts.route_table import Price
from tests.doubles.gateway_harness import (
    CHAT,
    EMBEDDER,
    KEY,
    GatewayHere,
    api_key,
    embedder,
    route,
)
from tests.doubles.openai_server import Knobs, OpenAiDouble

HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
async def double() -> AsyncIterator[OpenAiDouble]:
    async with OpenAiDouble() as server:
        yield server


@pytest.fixture
async def gateway(tmp_path: Path, double: OpenAiDouble) -> AsyncIterator[GatewayHere]:
    price = Price(
        input_usd_per_million_tokens=1.0,
        output_usd_per_million_tokens=2.0,
        cached_usd_per_million_tokens=0.5,
    )
    routes = [
        route(double.base_url, price=price),
        embedder(double.base_url),
        route(model="stopped", deployment_id="dep_stopped", state="stopped"),
        route(double.base_url, model="other-project", project_id="prj_b", deployment_id="dep_b"),
        route(
            double.base_url, model="team/renamed", upstream_model="u", deployment_id="dep_renamed"
        ),
    ]
    keys = [
        api_key(),
        api_key("bud-narrow", id="key_narrow", models=(EMBEDDER,)),
        api_key("bud-expired", id="key_old", expires_unix_s=1.0),
    ]
    async with GatewayHere(tmp_path, routes, keys=keys) as running:
        yield running


async def test_chat_answer_usage_and_fact(gateway: GatewayHere, double: OpenAiDouble) -> None:
    double.knobs.cached_tokens = 2
    answer = await gateway.openai.chat.completions.create(
        model=CHAT, messages=HELLO, extra_body={"min_p": 0.1}
    )
    assert answer.choices[0].message.content == " t0 t1 t2 t3"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 4)
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")
    # What routing does not know is forwarded byte for byte.
    assert msgspec.json.decode(double.bodies[0])["min_p"] == 0.1
    (fact,) = await gateway.facts()
    assert fact.request_id == answer._request_id
    assert (fact.endpoint, fact.model, fact.status) == ("chat.completions", CHAT, 200)
    assert (fact.project_id, fact.key_id, fact.user_id) == ("prj_a", "key_test", "usr_a")
    assert (fact.deployment_id, fact.replica_id) == ("dep_chat", "rep_dep_chat_0")
    assert (fact.input_tokens, fact.output_tokens, fact.cached_tokens) == (7, 4, 2)
    assert fact.cost_usd == pytest.approx((5 * 1.0 + 2 * 0.5 + 4 * 2.0) / 1e6)
    assert fact.error_class == ""
    assert fact.attempts == 1
    assert fact.duration_ms > 0
    assert fact.request_bytes > 0


@pytest.mark.parametrize(
    "knobs",
    [Knobs(), Knobs(usage_null=True), Knobs(crlf=True), Knobs(pings=3), Knobs(pad_bytes=5000)],
    ids=["plain", "usage_null", "crlf", "pings", "large"],
)
async def test_stream_hides_usage_that_was_not_asked_for(
    gateway: GatewayHere, double: OpenAiDouble, knobs: Knobs
) -> None:
    double.knobs = knobs
    stream = await gateway.openai.chat.completions.create(model=CHAT, messages=HELLO, stream=True)
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text.replace("x", "") == " t0 t1 t2 t3"
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    sent = msgspec.json.decode(double.bodies[0])
    assert sent["stream_options"] == {"include_usage": True}
    (fact,) = await gateway.facts()
    assert fact.stream
    assert (fact.input_tokens, fact.output_tokens) == (7, 4)
    assert fact.ttft_ms is not None
    assert 0 < fact.ttft_ms <= fact.duration_ms


async def test_stream_gives_usage_that_was_asked_for(gateway: GatewayHere) -> None:
    stream = await gateway.openai.chat.completions.create(
        model=CHAT, messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 11


async def test_raw_stream_is_what_openai_sends(gateway: GatewayHere) -> None:
    answer = await gateway.http.post(
        "/v1/chat/completions", json={"model": CHAT, "messages": HELLO, "stream": True}
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content.endswith(b"data: [DONE]\n\n")
    assert b"usage" not in answer.content


async def test_completions_whole_and_streamed(gateway: GatewayHere) -> None:
    answer = await gateway.openai.completions.create(model=CHAT, prompt="Hello")
    assert answer.choices[0].text == " t0 t1 t2 t3"
    stream = await gateway.openai.completions.create(model=CHAT, prompt="Hello", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == " t0 t1 t2 t3"


async def test_embeddings(gateway: GatewayHere) -> None:
    answer = await gateway.openai.embeddings.create(
        model=EMBEDDER, input=["a"], encoding_format="float"
    )
    assert answer.data[0].embedding == [0.25] * 4
    (fact,) = await gateway.facts()
    assert (fact.input_tokens, fact.output_tokens, fact.endpoint) == (7, None, "embeddings")


async def test_large_answer_is_forwarded_whole_with_its_usage(
    gateway: GatewayHere, double: OpenAiDouble
) -> None:
    double.knobs = Knobs(vectors=300, dimensions=1024)
    answer = await gateway.openai.embeddings.create(
        model=EMBEDDER, input=["a"], encoding_format="float"
    )
    assert len(answer.data) == 300
    (fact,) = await gateway.facts()
    assert fact.response_bytes > 1_200_000
    assert fact.input_tokens == 7


async def test_model_names_are_translated_both_ways(
    gateway: GatewayHere, double: OpenAiDouble
) -> None:
    whole = await gateway.openai.chat.completions.create(model="team/renamed", messages=HELLO)
    assert whole.model == "team/renamed"
    stream = await gateway.openai.chat.completions.create(
        model="team/renamed", messages=HELLO, stream=True
    )
    assert {chunk.model async for chunk in stream} == {"team/renamed"}
    assert [msgspec.json.decode(body)["model"] for body in double.bodies] == ["u", "u"]


async def test_models_are_those_of_the_key(gateway: GatewayHere) -> None:
    listed = [model.id async for model in gateway.openai.models.list()]
    assert listed == [CHAT, EMBEDDER, "stopped", "team/renamed"]
    assert (await gateway.openai.models.retrieve("team/renamed")).id == "team/renamed"
    narrow = gateway.openai.with_options(api_key="bud-narrow")
    assert [model.id async for model in narrow.models.list()] == [EMBEDDER]
    with pytest.raises(openai.NotFoundError):
        await gateway.openai.models.retrieve("other-project")


async def test_wrong_keys_are_refused(gateway: GatewayHere) -> None:
    for secret in ("bud-wrong", "bud-expired", "sk-other"):
        with pytest.raises(openai.AuthenticationError) as refused:
            await gateway.openai.with_options(api_key=secret).chat.completions.create(
                model=CHAT, messages=HELLO
            )
        assert refused.value.code == "invalid_api_key"
        assert secret not in str(refused.value)
    answer = await gateway.http.post("/v1/chat/completions", headers={"Authorization": ""})
    assert answer.status_code == 401
    facts = await gateway.facts(4)
    assert {fact.error_class for fact in facts} == {"authentication"}
    assert {fact.project_id for fact in facts} == {""}


async def test_x_api_key_header_is_taken(gateway: GatewayHere) -> None:
    headers = {"x-api-key": KEY}
    answer = await httpx.AsyncClient(verify=False).get(f"{gateway.url}/v1/models", headers=headers)
    assert answer.status_code == 200


async def test_unknown_and_forbidden_models(gateway: GatewayHere) -> None:
    for model in ("nothing", "other-project"):
        with pytest.raises(openai.NotFoundError) as missing:
            await gateway.openai.chat.completions.create(model=model, messages=HELLO)
        assert missing.value.code == "model_not_found"
        assert missing.value.param == "model"
        assert CHAT in str(missing.value)
    narrow = gateway.openai.with_options(api_key="bud-narrow")
    with pytest.raises(openai.PermissionDeniedError):
        await narrow.chat.completions.create(model=CHAT, messages=HELLO)


async def test_missing_capability_is_named(gateway: GatewayHere) -> None:
    with pytest.raises(openai.BadRequestError, match="'embedding'"):
        await gateway.openai.embeddings.create(model=CHAT, input="a")
    with pytest.raises(openai.BadRequestError, match="'chat'"):
        await gateway.openai.chat.completions.create(model=EMBEDDER, messages=HELLO)


async def test_route_without_replicas_says_its_state(gateway: GatewayHere) -> None:
    with pytest.raises(openai.InternalServerError, match="stopped") as refused:
        await gateway.openai.chat.completions.create(model="stopped", messages=HELLO)
    assert refused.value.status_code == 503
    assert int(refused.value.response.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff\xfe{}", "not valid"),
        (b"[1]", "not valid"),
        (b'{"messages":[]}', "names no model"),
        (b'{"model":3}', "not valid"),
        (b'{"model":"tiny-chat","stream":"yes"}', "stream"),
        (b'{"model":"tiny-chat","messages":[}', "not valid JSON"),
    ],
)
async def test_malformed_bodies(gateway: GatewayHere, body: bytes, says: str) -> None:
    answer = await gateway.http.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert says in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"


async def test_unknown_routes_and_methods(gateway: GatewayHere) -> None:
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("POST", "/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
    ):
        answer = await gateway.http.request(method, path)
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == "unknown_url"
        assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("stream", [False, True])
async def test_context_too_long_is_openais_error(
    gateway: GatewayHere, double: OpenAiDouble, stream: bool
) -> None:
    double.knobs = Knobs(
        status=400,
        error={
            "code": 400,
            "message": "request (3031 tokens) exceeds the available context size (512 tokens)",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 3031,
            "n_ctx": 512,
        },
    )
    with pytest.raises(openai.BadRequestError, match="3031") as refused:
        await gateway.openai.chat.completions.create(model=CHAT, messages=HELLO, stream=stream)
    assert refused.value.code == "context_length_exceeded"
    assert refused.value.param == "messages"
    (fact,) = await gateway.facts()
    assert (fact.status, fact.error_class) == (400, "context_length")
    assert fact.deployment_id == "dep_chat"


async def test_errors_of_the_replica(gateway: GatewayHere, double: OpenAiDouble) -> None:
    cases: list[tuple[int, type[openai.APIStatusError], int]] = [
        (400, openai.BadRequestError, 400),
        (401, openai.InternalServerError, 502),
        (422, openai.BadRequestError, 400),
        (429, openai.RateLimitError, 429),
        (500, openai.InternalServerError, 500),
        (501, openai.BadRequestError, 400),
    ]
    for status, expected, seen in cases:
        double.knobs = Knobs(status=status)
        with pytest.raises(expected) as failed:
            await gateway.openai.chat.completions.create(model=CHAT, messages=HELLO)
        assert failed.value.status_code == seen
    assert len(double.bodies) == len(cases)


async def test_health_and_metrics(gateway: GatewayHere) -> None:
    await gateway.openai.chat.completions.create(model=CHAT, messages=HELLO)
    stream = await gateway.openai.chat.completions.create(model=CHAT, messages=HELLO, stream=True)
    assert [chunk async for chunk in stream]
    await gateway.http.get("/v1/nothing")
    health = (await gateway.http.get("/health")).json()
    assert health["status"] == "ok"
    assert health["route_table_version"] == 1
    assert health["route_table_age_s"] >= 0
    text = ""
    async with asyncio.timeout(30):
        while "bud_event_loop_lag_seconds_count" not in text:
            text = (await gateway.http.get("/metrics")).text
    chat = f'endpoint="chat.completions",model="{CHAT}",status="200"'
    assert f"bud_requests_total{{{chat}}} 2" in text
    assert 'bud_requests_total{endpoint="unknown",model="",status="404"} 1' in text
    assert f'bud_tokens_total{{model="{CHAT}",kind="output"}} 8' in text
    assert f'bud_time_to_first_token_seconds_count{{model="{CHAT}"}} 1' in text
    assert f'bud_request_duration_seconds_bucket{{model="{CHAT}",le="+Inf"}} 2' in text
    assert "bud_route_table_version 1" in text
    assert "bud_facts_dropped_total 0" in text
    assert 'bud_replica_requests_in_flight{replica="rep_dep_chat_0"} 0' in text
