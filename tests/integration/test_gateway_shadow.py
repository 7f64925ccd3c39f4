"""Shadow traffic through a real gateway: what is copied, and that no caller notices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.contracts.route_table import Limit, Price, Route, Shadow
from gateway import shadow as shadows
from tests.doubles.gateway_harness import CHAT, GatewayHere, route, until
from tests.doubles.openai_server import Knobs, OpenAiDouble

PATH = "/v1/chat/completions"
CALL: dict[str, Any] = {"model": CHAT, "messages": [{"role": "user", "content": "Hello"}]}
PRICE = Price(input_usd_per_million_tokens=1.0, output_usd_per_million_tokens=1.0)
ALL = Shadow(model="next", percent=100.0)


@pytest.fixture
async def doubles() -> AsyncIterator[list[OpenAiDouble]]:
    """That of the route, and that of the model which gets the copies."""
    async with OpenAiDouble(Knobs(tokens=3)) as one, OpenAiDouble(Knobs(tokens=5)) as other:
        yield [one, other]


def routes(doubles: list[OpenAiDouble], **fields: Any) -> list[Route]:
    one, other = doubles
    return [
        route(one.base_url, price=PRICE, shadow=ALL),
        # One that shadows the first: there must be no end of copies.
        route(
            other.base_url, model="next", upstream_model="served", deployment_id="dep_next",
            **{"price": PRICE, "shadow": Shadow(model=CHAT, percent=100.0)} | fields,
        ),
    ]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_a_copy_goes_to_the_other_model_and_counts_apart(
    tmp_path: Path, doubles: list[OpenAiDouble], stream: bool
) -> None:
    one, other = doubles
    limit = Limit(
        project_id="prj_a", level="project", subject="prj_a", metric="requests", window="minute",
        amount=2,
    )  # fmt: skip
    call = {**CALL, "stream": stream, "user": "grace"}
    async with GatewayHere(tmp_path, routes(doubles), limits=[limit]) as running:
        for _ in range(2):
            answer = await running.http.post(PATH, json=call)
            assert answer.status_code == 200
            assert b"served" not in answer.content
        facts = await running.facts(4)
        text = (await running.http.get("/metrics")).text
    assert (one.state.requests, other.state.requests) == (2, 2)
    assert b'"model":"served"' in other.bodies[0]
    assert b'"user":"grace"' in other.bodies[0]
    copies = [fact for fact in facts if fact.shadow_of]
    asked = [fact for fact in facts if not fact.shadow_of]
    assert {fact.shadow_of for fact in copies} == {fact.request_id for fact in asked}
    copy = copies[0]
    assert (copy.model, copy.deployment_id, copy.status) == ("next", "dep_next", 200)
    assert (copy.input_tokens, copy.output_tokens, copy.stream) == (7, 5, stream)
    assert (copy.ttft_ms is not None) == stream
    assert copy.cost_usd == pytest.approx(12 / 1e6)
    assert asked[0].cost_usd == pytest.approx(10 / 1e6)
    labels = f'model="{CHAT}",shadow="next"'
    assert f'bud_shadow_requests_total{{{labels},status="200"}} 2' in text
    assert f'bud_shadow_tokens_total{{{labels},kind="output"}} 10' in text
    assert f'bud_tokens_total{{model="{CHAT}",kind="output"}} 6' in text
    assert 'bud_tokens_total{model="next"' not in text
    assert "bud_requests_total{" in text
    assert 'model="next",status=' not in text


async def test_a_copy_is_in_nobodys_way(
    tmp_path: Path, doubles: list[OpenAiDouble], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = doubles
    monkeypatch.setattr(shadows, "_MOST_AT_ONCE", 2)
    other.knobs.first_delay_s = 30.0
    async with GatewayHere(tmp_path, routes(doubles, fallbacks=[CHAT])) as running:
        for _ in range(4):
            assert (await running.http.post(PATH, json=CALL)).status_code == 200
        await until(lambda: other.state.requests == 2)
        text = (await running.http.get("/metrics")).text
        assert (
            f'bud_shadow_dropped_total{{model="{CHAT}",shadow="next",reason="too_many"}} 2' in text
        )
        assert "bud_requests_in_flight 0" in text
        await running.stop()
    await until(lambda: other.state.cancelled == 2)
    facts = await running.facts(6)
    given_up = [fact for fact in facts if fact.shadow_of]
    assert [fact.error_class for fact in given_up] == ["gateway_stopped"] * 2
    assert one.state.requests == 4


async def test_a_copy_that_fails_is_neither_tried_again_nor_anybody_elses(
    tmp_path: Path, doubles: list[OpenAiDouble]
) -> None:
    one, other = doubles
    other.knobs = Knobs(status=503)
    async with GatewayHere(tmp_path, routes(doubles, fallbacks=[CHAT])) as running:
        assert (await running.http.post(PATH, json=CALL)).status_code == 200
        facts = await running.facts(2)
        text = (await running.http.get("/metrics")).text
    copy = next(fact for fact in facts if fact.shadow_of)
    assert (copy.status, copy.error_class, copy.attempts) == (503, "no_replica", 1)
    assert (one.state.requests, other.state.requests) == (1, 1)
    assert f'bud_shadow_errors_total{{model="{CHAT}",shadow="next",error="no_replica"}} 1' in text
    assert "bud_request_errors_total{" not in text
    assert "bud_retries_total{" not in text


async def test_only_its_share_is_copied_and_only_where_the_model_can_do_it(
    tmp_path: Path, doubles: list[OpenAiDouble]
) -> None:
    one, other = doubles
    table = routes(doubles, capabilities=["completion"])
    async with GatewayHere(tmp_path, table) as running:
        assert (await running.http.post(PATH, json=CALL)).status_code == 200
        text = (await running.http.get("/metrics")).text
        assert 'shadow="next",reason="capability"} 1' in text
        share = route(one.base_url, shadow=Shadow(model="next", percent=25.0))
        await running.publish([share, routes(doubles)[1]])
        for _ in range(100):
            await running.http.post(PATH, json=CALL)
        await until(lambda: other.state.in_flight == 0)
    # Five standard deviations: 100 x 0.25 = 25, and 4.3.
    assert 3 <= other.state.requests <= 47
