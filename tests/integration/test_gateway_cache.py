"""The response cache through a real gateway: what is given again, to whom, and what it costs."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from msgspec import structs

from core.contracts.guardrails import DenyList, Guardrail
from core.contracts.response_cache import FILE_NAME, FOLDER_NAME
from core.contracts.route_table import Cache, Limit, Price, Project
from tests.doubles.gateway_harness import (
    CHAT,
    EMBEDDER,
    KEY,
    GatewayHere,
    api_key,
    embedder,
    publish,
    route,
    until,
)
from tests.doubles.openai_server import Knobs, OpenAiDouble
from tests.doubles.valkey_server import ValkeyServer

PATH = "/v1/chat/completions"
OTHER_KEY = "bud-test-key-1111111111111111111111111111111111"
CALL: dict[str, Any] = {
    "model": CHAT,
    "temperature": 0,
    "messages": [{"role": "user", "content": "Hello"}],
}
PRICE = Price(input_usd_per_million_tokens=1_000_000.0, output_usd_per_million_tokens=1_000_000.0)


def cache(**fields: Any) -> Cache:
    known: dict[str, Any] = {"ttl_s": 60.0, "max_bytes": 1_000_000}
    return Cache(**known | fields)


def project(cached: Cache | None, id_: str = "prj_a") -> Project:
    return Project(id=id_, name=id_, cache=cached)


@pytest.fixture
async def double() -> AsyncIterator[OpenAiDouble]:
    async with OpenAiDouble(Knobs(tokens=3)) as server:
        yield server


def gateway(tmp_path: Path, double: OpenAiDouble, **fields: Any) -> GatewayHere:
    table = {"projects": [project(cache())]} | fields.pop("table", {})
    routes = fields.pop("routes", [route(double.base_url, price=PRICE)])
    return GatewayHere(tmp_path, routes, table=table, **fields)


async def kept(running: GatewayHere, number: int) -> None:
    """Wait until so many answers are kept."""
    path = running.data_dir / FOLDER_NAME / FILE_NAME

    def count() -> int:
        if not path.exists():
            return 0
        database = sqlite3.connect(path)
        try:
            return int(database.execute("SELECT count(*) FROM answers").fetchone()[0])
        except sqlite3.OperationalError:  # its tables are just being made
            return -1
        finally:
            database.close()

    await until(lambda: count() == number)


async def ask(running: GatewayHere, call: dict[str, Any] = CALL, **headers: str) -> httpx.Response:
    response = await running.http.post(PATH, json=call, headers=headers)
    assert response.status_code == 200, response.text
    return response


async def test_the_same_request_gets_the_kept_answer_and_takes_no_tokens(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    limits = [
        Limit(project_id="prj_a", level="project", subject="prj_a", metric=metric, window=window,
              amount=amount)
        for metric, window, amount in (("requests", "minute", 3), ("usd", "day", 5000))
    ]  # fmt: skip
    async with gateway(tmp_path, double, limits=limits) as running:
        first = await ask(running)
        await kept(running, 1)
        # Fields in another order, and who asks: the same request.
        again = {"messages": CALL["messages"], "user": "grace", "temperature": 0, "model": CHAT}
        second = await ask(running, again)
        third = await running.http.post(PATH, json=CALL, headers={"Cache-Control": "max-age=60"})
        refused = await running.http.post(PATH, json=CALL)
        facts = await running.facts(4)
        text = (await running.http.get("/metrics")).text
    assert [each.headers["X-Bud-Cache"] for each in (first, second, third)] == [
        "miss",
        "hit",
        "hit",
    ]
    assert second.content == first.content
    assert second.headers["Content-Type"] == first.headers["Content-Type"]
    assert second.headers["Age"] == "0"
    assert second.headers["X-Request-Id"] != first.headers["X-Request-Id"]
    assert double.state.requests == 1
    # Hits count as requests: the fourth is over the limit.
    assert refused.status_code == 429
    hit = next(fact for fact in facts if fact.cache == "hit")
    assert (hit.input_tokens, hit.output_tokens, hit.cost_usd) == (0, 0, 0.0)
    assert (hit.saved_tokens, hit.saved_usd, hit.attempts) == (10, 10.0, 0)
    assert hit.deployment_id == "dep_chat"
    assert f'bud_cache_requests_total{{model="{CHAT}",result="hit"}} 2' in text
    assert f'bud_cache_saved_tokens_total{{model="{CHAT}"}} 20' in text


async def test_streams_are_replayed_byte_for_byte_and_apart_from_whole_answers(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    async with gateway(tmp_path, double) as running:
        stream = {**CALL, "stream": True}
        with_usage = {**stream, "stream_options": {"include_usage": True}}
        first = [await ask(running, call) for call in (CALL, stream, with_usage)]
        await kept(running, 3)
        second = [await ask(running, call) for call in (CALL, stream, with_usage)]
        events = [
            event.choices[0].delta.content or ""
            async for event in await running.openai.chat.completions.create(**stream)
        ]
        asked = {**CALL, "max_tokens": 8, "model": CHAT}
        del asked["temperature"]
        told = [
            await running.http.post(
                "/v1/messages", json={**asked, "temperature": 0, "stream": True}
            )
            for _ in range(1)
        ]
        await kept(running, 4)
        told.append(
            await running.http.post(
                "/v1/messages", json={**asked, "temperature": 0, "stream": True}
            )
        )
    assert [each.headers["X-Bud-Cache"] for each in first] == ["miss"] * 3
    assert [each.headers["X-Bud-Cache"] for each in second] == ["hit"] * 3
    for one, other in zip(first, second, strict=True):
        assert one.content == other.content
        assert one.headers["Content-Type"] == other.headers["Content-Type"]
    assert b"data: [DONE]" in second[1].content
    assert b'"usage"' not in second[1].content
    assert b'"completion_tokens":3' in second[2].content
    assert "".join(events) == " t0 t1 t2"
    assert [each.headers["X-Bud-Cache"] for each in told] == ["miss", "hit"]
    assert b"message_stop" in told[1].content
    assert double.state.requests == 4


async def test_only_what_asks_for_the_same_answer_is_kept_and_callers_can_say_no(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    async with gateway(
        tmp_path, double, routes=[route(double.base_url), embedder(double.base_url)]
    ) as running:
        warm = {**CALL, "temperature": 0.7}
        for call in (warm, warm, {**CALL, "temperature": None}):
            assert (await ask(running, call)).headers["X-Bud-Cache"] == "bypass"
        # Servers differ in which of two equal fields they take.
        twice = b'{"model":"%b","temperature":0,"seed":1,"seed":2,"messages":[]}' % CHAT.encode()
        answer = await running.http.post(PATH, content=twice)
        assert answer.headers["X-Bud-Cache"] == "bypass"
        stored = await ask(running, {**warm, "seed": 1}, **{"Cache-Control": "no-store"})
        assert stored.headers["X-Bud-Cache"] == "bypass"
        assert (await ask(running, {**warm, "seed": 1})).headers["X-Bud-Cache"] == "miss"
        await kept(running, 1)
        refreshed = await ask(running, {**warm, "seed": 1}, **{"Cache-Control": "no-cache"})
        assert refreshed.headers["X-Bud-Cache"] == "bypass"
        assert (await ask(running, {**warm, "seed": 1})).headers["X-Bud-Cache"] == "hit"
        embeds = {"model": EMBEDDER, "input": "Hello"}
        for result in ("miss", "hit"):
            answer = await running.http.post("/v1/embeddings", json=embeds)
            assert answer.headers["X-Bud-Cache"] == result
            await kept(running, 2)
        publish(tmp_path, [route(double.base_url)], version=2,
                projects=[project(cache(all_requests=True))])  # fmt: skip
        await until(lambda: running.gateway.table.current.version == 2)
        assert (await ask(running, warm)).headers["X-Bud-Cache"] == "miss"
        await kept(running, 3)
        assert (await ask(running, warm)).headers["X-Bud-Cache"] == "hit"
        publish(tmp_path, [route(double.base_url, cached=False)], version=3,
                projects=[project(cache(all_requests=True))])  # fmt: skip
        await until(lambda: running.gateway.table.current.version == 3)
        assert (await ask(running, warm)).headers["X-Bud-Cache"] == "bypass"


async def test_no_other_project_server_rule_or_generation_gets_it(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    keys = [api_key(), api_key(OTHER_KEY, id="key_b", project_id="prj_b")]
    mine, theirs = route(double.base_url), route(double.base_url, project_id="prj_b")
    on = [project(cache()), project(cache(), "prj_b")]
    words = DenyList(words=("forbidden",))
    rule = Guardrail(id="grl_1", project_id="prj_a", name="words", check=words)
    changes: list[tuple[Any, dict[str, Any]]] = [
        ([structs.replace(mine, deployment_id="dep_next"), theirs], {"projects": on}),
        ([mine, theirs], {"projects": on, "guardrails": [rule]}),
        ([mine, theirs], {"projects": [project(cache(generation=1)), on[1]]}),
    ]
    async with gateway(
        tmp_path, double, routes=[mine, theirs], keys=keys, table={"projects": on}
    ) as running:
        await ask(running)
        await kept(running, 1)
        theirs_first = await ask(running, Authorization=f"Bearer {OTHER_KEY}")
        assert theirs_first.headers["X-Bud-Cache"] == "miss"
        await kept(running, 2)
        for version, (routes, table) in enumerate(changes, start=2):
            publish(tmp_path, routes, keys, version, **table)
            await until(lambda v=version: running.gateway.table.current.version == v)
            if version == 4:
                # What the project kept before is deleted, and only that.
                await kept(running, 1)
            assert (await ask(running)).headers["X-Bud-Cache"] == "miss"
            await kept(running, (0, 0, 3, 4, 2)[version])
        again = await ask(running, Authorization=f"Bearer {OTHER_KEY}")
        assert again.headers["X-Bud-Cache"] == "hit"
        publish(tmp_path, [mine, theirs], keys, 5, projects=[project(None), on[1]])
        await until(lambda: running.gateway.table.current.version == 5)
        await kept(running, 1)
        assert "X-Bud-Cache" not in (await ask(running)).headers


async def test_failures_broken_streams_and_fallbacks_are_not_kept(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    async with OpenAiDouble(Knobs(status=503)) as away:
        routes = [
            route(away.base_url, fallbacks=["spare"]),
            route(double.base_url, model="spare", deployment_id="dep_spare"),
        ]
        async with gateway(tmp_path, double, routes=routes) as running:
            for _ in range(2):
                answer = await ask(running)
                assert answer.headers["X-Bud-Cache"] == "miss"
                assert answer.headers["X-Bud-Fallback"] == "spare"
            spare = {**CALL, "model": "spare"}
            broken = {**spare, "stream": True, "double": {"break_after": 1}}
            for _ in range(2):
                answer = await ask(running, broken)
                assert answer.headers["X-Bud-Cache"] == "miss"
                assert b'"error"' in answer.content
            failed = await running.http.post(PATH, json={**spare, "double": {"status": 400}})
            assert failed.status_code == 400
            large = {**spare, "double": {"pad_bytes": 1_100_000}}
            assert (await ask(running, large)).headers["X-Bud-Cache"] == "miss"
            await ask(running, spare)
            await kept(running, 1)
            assert (await ask(running, spare)).headers["X-Bud-Cache"] == "hit"


async def test_hosts_with_one_valkey_share_answers_and_do_without_it(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    server = ValkeyServer(tmp_path).start()
    one = gateway(tmp_path / "one", double, valkey_url=server.url)
    other = gateway(tmp_path / "other", double, valkey_url=server.url)
    try:
        async with one, other:
            first = await ask(one)
            assert first.headers["X-Bud-Cache"] == "miss"
            await until(lambda: not one.gateway._cache._store._tasks)  # it is written
            second = await ask(other)
            assert (second.headers["X-Bud-Cache"], second.content) == ("hit", first.content)
            server.kill()
            assert (await ask(other)).headers["X-Bud-Cache"] == "bypass"
    finally:
        server.kill()
    assert double.state.requests == 2


async def test_a_damaged_file_costs_no_request(tmp_path: Path, double: OpenAiDouble) -> None:
    folder = tmp_path / FOLDER_NAME
    folder.mkdir()
    (folder / FILE_NAME).write_bytes(b"this is no database" * 1000)
    async with gateway(tmp_path, double) as running:
        for _ in range(2):
            assert (await ask(running)).headers["X-Bud-Cache"] == "bypass"
        text = (await running.http.get("/metrics")).text
    assert "bud_cache_failures_total 2" in text
    assert KEY not in text
