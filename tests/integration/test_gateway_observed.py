"""What is seen of requests: a fact for each one, also of those refused, metrics, and logs."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.contracts.route_table import BlockRule, Limit, Price
from tests.doubles.gateway_harness import CHAT, KEY, GatewayHere, api_key, route, until
from tests.doubles.openai_server import OpenAiDouble

CALL: dict[str, Any] = {"model": CHAT, "messages": [{"role": "user", "content": "My secret"}]}
PRICE = Price(input_usd_per_million_tokens=1.0, output_usd_per_million_tokens=1.0)
LIMITED, SCOPED = "bud-limited-key", "bud-scoped-key"
KEYS = [
    api_key(),
    api_key(LIMITED, id="key_limited"),
    api_key(SCOPED, id="key_scoped", scopes=("embeddings",), models=("other",)),
    api_key("bud-models-key", id="key_models", models=("other",)),
]
LIMIT = Limit(
    project_id="prj_a", level="key", subject="key_limited", metric="requests", window="day",
    amount=0,
)  # fmt: skip
BLOCK = BlockRule(name="bots", user_agents=("bot",))
CHAT_PATH = "/v1/chat/completions"

# method, path, body, headers → status, class of error
REFUSALS: list[tuple[str, str, Any, dict[str, str], int, str]] = [
    ("POST", CHAT_PATH, CALL, {"Authorization": ""}, 401, "authentication"),
    ("POST", CHAT_PATH, CALL, {"Authorization": "Bearer bud-unknown"}, 401, "authentication"),
    ("GET", "/v1/models", None, {"Authorization": "Bearer bud-unknown"}, 401, "authentication"),
    ("POST", "/v1/messages", CALL, {"Authorization": "Bearer x"}, 401, "authentication"),
    ("POST", CHAT_PATH, CALL, {"User-Agent": "bot"}, 403, "blocked"),
    ("GET", "/nowhere", None, {"User-Agent": "bot"}, 403, "blocked"),
    ("POST", CHAT_PATH, CALL, {"Authorization": f"Bearer {SCOPED}"}, 403, "permission"),
    ("POST", CHAT_PATH, CALL, {"Authorization": "Bearer bud-models-key"}, 403, "permission"),
    ("GET", "/nowhere", None, {}, 404, "not_found"),
    ("GET", CHAT_PATH, None, {}, 405, "not_found"),
    ("POST", CHAT_PATH, CALL | {"model": "nobody"}, {}, 404, "not_found"),
    ("GET", "/v1/responses/resp_gone", None, {}, 404, "not_found"),
    ("POST", CHAT_PATH, CALL | {"pad": "x" * 1_000_000}, {}, 413, "too_large"),
    ("POST", CHAT_PATH, CALL, {"Content-Encoding": "gzip"}, 415, "invalid_request"),
    ("POST", CHAT_PATH, [], {}, 400, "invalid_request"),
    ("POST", "/v1/embeddings", {"model": CHAT, "input": "x"}, {}, 400, "capability"),
    ("POST", CHAT_PATH, CALL, {"Authorization": f"Bearer {LIMITED}"}, 429, "rate_limited"),
    ("POST", CHAT_PATH, CALL | {"model": "away"}, {}, 503, "no_replica"),
]


@pytest.fixture
async def double() -> AsyncIterator[OpenAiDouble]:
    async with OpenAiDouble() as server:
        yield server


async def test_every_refusal_is_a_fact_and_none_tells_a_key_or_a_prompt(
    tmp_path: Path, double: OpenAiDouble, caplog: pytest.LogCaptureFixture
) -> None:
    served = [
        route(double.base_url),
        route(model="away", upstream_model="away", deployment_id="dep_away", state="stopped"),
    ]
    with caplog.at_level(logging.DEBUG):
        async with GatewayHere(
            tmp_path, served, keys=KEYS, limits=[LIMIT], table={"blocks": [BLOCK]}
        ) as gateway:
            told = []
            for method, path, body, headers, status, _ in REFUSALS:
                answer = await gateway.http.request(method, path, json=body, headers=headers)
                assert answer.status_code == status, (method, path, answer.text)
                told.append(answer.headers["x-request-id"])
            facts = {fact.request_id: fact for fact in await gateway.facts(len(REFUSALS))}
    assert len(facts) == len(REFUSALS)
    for request_id, (method, path, _, _, status, kind) in zip(told, REFUSALS, strict=True):
        fact = facts[request_id]
        assert (fact.error_class, fact.status) == (kind, status), (method, path)
        assert fact.duration_ms > 0
    everything = caplog.text + str(list(facts.values()))
    for secret in ("My secret", KEY, LIMITED, SCOPED, "bud-unknown"):
        assert secret not in everything


async def test_metrics_tell_phases_tokens_cost_refusals_and_the_process(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    served = [route(double.base_url, price=PRICE)]
    async with GatewayHere(
        tmp_path, served, keys=KEYS, limits=[LIMIT], table={"blocks": [BLOCK]}
    ) as gateway:
        stream = CALL | {"stream": True, "double": {"tokens": 5, "delay_s": 0.01}}
        assert (await gateway.http.post(CHAT_PATH, json=stream)).status_code == 200
        for headers in ({"Authorization": f"Bearer {LIMITED}"}, {"User-Agent": "bot"}):
            await gateway.http.post(CHAT_PATH, json=CALL, headers=headers)
        await gateway.http.post(CHAT_PATH, json=CALL | {"model": 'evil"} 1\n'})
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.gateway.port)
        writer.write(b"this is no HTTP\r\n\r\n")
        await reader.read()
        writer.close()
        await until(lambda: "bud_requests_total{" in gateway.gateway.stats.text(), 10)
        text = (await gateway.http.get("/metrics")).text
    values = {
        name: float(value)
        for name, _, value in (
            line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")
        )
    }
    model = f'model="{CHAT}"'
    for name in (
        f"bud_request_queue_seconds_count{{{model}}}",
        f"bud_connect_seconds_count{{{model}}}",
        f"bud_time_to_first_token_seconds_count{{{model}}}",
        f"bud_time_per_output_token_seconds_count{{{model}}}",
        'bud_limit_refusals_total{limit="key.requests_per_day"}',
        'bud_blocked_requests_total{rule="bots"}',
        'bud_request_errors_total{model="",error="not_found"}',
        'bud_not_http_requests_total{status="400"}',
        'bud_replica_requests_total{replica="rep_dep_chat_0"}',
    ):
        assert values[name] == 1, name
    assert values[f"bud_cost_usd_total{{{model}}}"] > 0
    assert values['bud_replica_breaker_state{replica="rep_dep_chat_0"}'] == 0
    assert values["bud_open_connections"] >= 1
    assert values["process_resident_memory_bytes"] > 10e6
    assert values["process_cpu_seconds_total"] > 0
    between = values[f"bud_time_per_output_token_seconds_sum{{{model}}}"]
    assert 0 < between < values[f"bud_request_duration_seconds_sum{{{model}}}"]
    assert "evil" not in text
    # Each family is described once, before its samples; buckets only grow.
    described = re.findall(r"# TYPE (\S+) (counter|gauge|histogram)\n", text)
    names = [name for name, _ in described]
    assert len(names) == len(set(names))
    for line in text.splitlines():
        name = re.match(r"[a-z_]+", line)
        if name is not None:
            family = re.sub(r"_(bucket|sum|count)$", "", name[0])
            assert family in names or name[0] in names
    buckets = re.findall(r'bud_request_duration_seconds_bucket\{.*le="(\S+)"\} (\d+)', text)
    counts = [int(count) for _, count in buckets]
    assert counts == sorted(counts)
    assert buckets[-1][0] == "+Inf"
