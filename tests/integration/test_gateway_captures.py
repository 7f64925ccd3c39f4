"""Prompts and answers of a project that keeps them, and of one that does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.contracts.capture import FOLDER_NAME, Captured
from core.contracts.route_table import Capture, Project
from tests.doubles.gateway_harness import CHAT, GatewayHere, api_key, route, until
from tests.doubles.openai_server import OpenAiDouble

ASKED = [{"role": "user", "content": "I am ada@example.org, key AKIAIOSFODNN7EXAMPLE"}]
CALL: dict[str, Any] = {"model": CHAT, "messages": ASKED}
KEEPING = Project(id="prj_a", name="A", capture=Capture(keep_days=1, max_bytes=1_000_000))
OTHER_KEY = "bud-other-key"


@pytest.fixture
async def double() -> AsyncIterator[OpenAiDouble]:
    async with OpenAiDouble() as server:
        yield server


def kept(data_dir: Path) -> list[Captured]:
    return [
        msgspec.json.decode(line, type=Captured)
        for path in (data_dir / FOLDER_NAME).rglob("*.ndjson")
        for line in path.read_bytes().splitlines()
    ]


async def test_only_a_project_that_says_so_keeps_what_it_asks_and_is_answered(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    routes = [
        route(double.base_url),
        route(double.base_url, project_id="prj_b", deployment_id="dep_b"),
    ]
    keys = [api_key(), api_key(OTHER_KEY, id="key_b", project_id="prj_b")]
    table = {"projects": [KEEPING, Project(id="prj_b", name="B")]}
    async with GatewayHere(tmp_path, routes, keys=keys, table=table) as gateway:
        other = {"Authorization": f"Bearer {OTHER_KEY}"}
        answers = {
            path: await gateway.http.post(path, json=body)
            for path, body in (
                ("/v1/chat/completions", CALL),
                ("/v1/completions", {"model": CHAT, "prompt": "x", "stream": True}),
                ("/v1/messages", CALL | {"max_tokens": 9, "stream": True}),
                ("/v1/responses", {"model": CHAT, "input": ASKED[0]["content"]}),
            )
        }
        assert {answer.status_code for answer in answers.values()} == {200}
        await gateway.http.post("/v1/chat/completions", json=CALL | {"model": "nobody"})
        refused = await gateway.http.post("/v1/chat/completions", json=CALL, headers=other)
        assert refused.status_code == 200
        await until(lambda: len(kept(tmp_path)) == 5, 20)
        facts = {fact.request_id: fact for fact in await gateway.facts(6)}
    found = {captured.endpoint: captured for captured in kept(tmp_path)}
    assert [path.name for path in (tmp_path / FOLDER_NAME).iterdir()] == ["prj_a"]
    for captured in kept(tmp_path):
        assert facts[captured.request_id].project_id == "prj_a"
        assert "example.org" not in captured.request
        assert "AKIA" not in captured.request
    # Of a stream the text, of a whole answer the body as it went to the caller.
    assert found["completions"].response == found["messages"].response == " t0 t1 t2 t3"
    body = answers["/v1/responses"].json()
    assert msgspec.json.decode(found["responses"].response)["id"] == body["id"]
    refusals = [captured for captured in kept(tmp_path) if captured.status == 404]
    assert [captured.error_class for captured in refusals] == ["not_found"]


async def test_a_callers_pace_holds_for_what_is_recorded_too(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    table = {"projects": [KEEPING]}
    async with GatewayHere(tmp_path, [route(double.base_url)], table=table) as gateway:
        stream = CALL | {"stream": True, "double": {"tokens": 3000, "pad_bytes": 1000}}
        async with gateway.http.stream("POST", "/v1/chat/completions", json=stream) as answer:
            assert answer.status_code == 200
            size_bytes = sum([len(piece) async for piece in answer.aiter_bytes()])
        assert size_bytes > 3_000_000
        await until(lambda: len(kept(tmp_path)) == 1, 20)
    (captured,) = kept(tmp_path)
    assert captured.response_cut
    assert captured.response.startswith(" t0x")
