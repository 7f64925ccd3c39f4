"""Hedged requests through a real gateway: who answers, what is cancelled, what is counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.contracts.request_fact import RequestFact
from core.contracts.route_table import Hedge, Limit, Price, Route, RouteTarget
from gateway.body import parse
from gateway.hedge import Attempt, HedgingProxy
from gateway.hedging import Hedging
from gateway.patience import Patience
from gateway.proxy import Call
from gateway.stats import Stats
from tests.doubles.gateway_harness import CHAT, QUICK, GatewayHere, route, until
from tests.doubles.openai_server import Knobs, OpenAiDouble

PATH = "/v1/chat/completions"
CALL: dict[str, Any] = {"model": CHAT, "messages": [{"role": "user", "content": "Hello"}]}
AT_ONCE = Hedge(after_ms=20.0, percent=100.0)
PRICE = Price(input_usd_per_million_tokens=1_000_000.0, output_usd_per_million_tokens=1_000_000.0)
LATE_S = 30.0


@pytest.fixture
async def doubles() -> AsyncIterator[list[OpenAiDouble]]:
    """A slow one and a quick one."""
    slow, quick = OpenAiDouble(Knobs(first_delay_s=LATE_S, tokens=3)), OpenAiDouble(Knobs(tokens=3))
    async with slow, quick:
        yield [slow, quick]


def two_replicas(doubles: list[OpenAiDouble], **fields: Any) -> Route:
    # Of the replicas the first is free at first, so that it is asked first.
    return route(
        *(each.base_url for each in doubles), **{"hedge": AT_ONCE, "price": PRICE} | fields
    )


async def first_asks(running: GatewayHere, number: int) -> None:
    """Let the first replica look quicker, so that the next request goes there."""
    backends = running.gateway.table.current.routes["prj_a", CHAT].backends
    for place, backend in enumerate(backends):
        backend.latency_ms = 1.0 if place == number else 50.0


async def hedged(running: GatewayHere, call: dict[str, Any]) -> RequestFact:
    await first_asks(running, 0)
    known = len(await running.facts(0))
    answer = await running.http.post(PATH, json=call)
    assert answer.status_code == 200, answer.text
    return (await running.facts(known + 1))[-1]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_late_answer_is_given_up_for_the_second_one(
    tmp_path: Path, doubles: list[OpenAiDouble], stream: bool
) -> None:
    slow, quick = doubles
    limits = [
        Limit(project_id="prj_a", level="project", subject="prj_a", metric=metric, window=window,
              amount=amount)
        for metric, window, amount in (("requests", "minute", 1), ("concurrent", "", 1))
    ]  # fmt: skip
    async with GatewayHere(tmp_path, [two_replicas(doubles)], limits=limits) as running:
        fact = await hedged(running, {**CALL, "stream": stream})
        assert (fact.hedge, fact.attempts, fact.replica_id) == ("won", 2, "rep_dep_chat_1")
        # Three tokens out and seven in, and seven in at the one that was cancelled.
        assert (fact.input_tokens, fact.cost_usd, fact.hedge_cost_usd) == (7, 17.0, 7.0)
        assert (slow.state.requests, quick.state.requests) == (1, 1)
        await until(lambda: slow.state.cancelled == 1)
        first, second = running.gateway.table.current.routes["prj_a", CHAT].backends
        assert (first.in_flight, first.failures, first.breaker) == (0, 0, "closed")
        assert (second.in_flight, second.answers) == (0, 1)
        # It is known to be slower than it seemed, though it never answered.
        assert first.latency_ms > 1.0
        # The limit on requests counted one.
        refused = await running.http.post(PATH, json=CALL)
        assert refused.status_code == 429
        assert refused.json()["error"]["param"] == "project.requests_per_minute"
        text = (await running.http.get("/metrics")).text
        assert f'bud_hedges_total{{model="{CHAT}",result="won"}} 1' in text


async def test_the_first_answer_counts_when_it_comes_first_and_failures_are_survived(
    tmp_path: Path, doubles: list[OpenAiDouble]
) -> None:
    slow, quick = doubles
    slow.knobs.first_delay_s, quick.knobs.first_delay_s = 0.1, LATE_S
    async with GatewayHere(tmp_path, [two_replicas(doubles)]) as running:
        fact = await hedged(running, CALL)
        assert (fact.hedge, fact.replica_id, fact.cost_usd) == ("lost", "rep_dep_chat_0", 17.0)
        await until(lambda: quick.state.cancelled == 1)
        # The second one fails: the first one's answer is waited for, and it cost nothing.
        quick.knobs = Knobs(status=500)
        fact = await hedged(running, CALL)
        assert (fact.hedge, fact.status, fact.hedge_cost_usd) == ("lost", 200, None)
        # The first one fails when the second one has been asked.
        slow.knobs = Knobs(first_delay_s=0.05, break_after=0)
        quick.knobs = Knobs(first_delay_s=0.1, tokens=3)
        fact = await hedged(running, CALL)
        assert (fact.hedge, fact.status, fact.hedge_cost_usd) == ("won", 200, None)


async def test_one_replica_is_never_asked_twice_and_few_requests_are(
    tmp_path: Path, doubles: list[OpenAiDouble]
) -> None:
    slow, _ = doubles
    slow.knobs.first_delay_s = 0.05
    few = Hedge(after_ms=10.0, percent=25.0)
    async with GatewayHere(tmp_path, [route(slow.base_url, hedge=AT_ONCE)]) as running:
        for _ in range(2):
            assert (await running.http.post(PATH, json=CALL)).status_code == 200
        assert slow.state.requests == 2
        await running.publish([two_replicas([slow, slow], hedge=few)])
        for _ in range(8):
            assert (await running.http.post(PATH, json=CALL)).status_code == 200
        facts = await running.facts(10)
    assert sum(fact.hedge != "" for fact in facts) == 2
    assert slow.state.requests == 12


async def test_a_target_of_one_replica_is_hedged_with_the_next_target(
    tmp_path: Path, doubles: list[OpenAiDouble]
) -> None:
    slow, quick = doubles
    targets = [RouteTarget(model="own"), RouteTarget(model="spare", priority=1)]
    routes = [
        route(model="both", deployment_id="rte_1", targets=targets, hedge=AT_ONCE),
        route(slow.base_url, model="own", deployment_id="dep_own", price=PRICE, context_tokens=0),
        route(quick.base_url, model="spare", deployment_id="dep_spare", context_tokens=0),
    ]
    limits = [
        Limit(project_id="prj_a", level="model", subject=model, metric="tokens", window="day",
              amount=530)
        for model in ("own", "spare")
    ]  # fmt: skip
    async with GatewayHere(tmp_path, routes, limits=limits) as running:
        answer = await running.http.post(PATH, json={**CALL, "model": "both"})
        assert answer.json()["model"] == "both"
        fact = (await running.facts(1))[0]
        assert (fact.hedge, fact.deployment_id, fact.attempts) == ("won", "dep_spare", 2)
        assert fact.hedge_cost_usd == 7.0
        await until(lambda: slow.state.cancelled == 1)
        # Each counts in the limit of its own model: seven tokens in here, and three out more there.
        slow.knobs.first_delay_s = 0.0
        for model, tokens in (("own", 7), ("spare", 10)):
            for left, status in ((530 - tokens + 1, 429), (530 - tokens, 200)):
                asked = json.dumps({**CALL, "model": model, "max_tokens": 100})
                most = left - len(asked) // 4  # a token for each four bytes
                body = asked.replace("100", str(most))
                answer = await running.http.post(PATH, content=body)
                assert answer.status_code == status, (model, left, answer.text)


async def test_a_caller_who_leaves_ends_both(tmp_path: Path, doubles: list[OpenAiDouble]) -> None:
    slow, quick = doubles
    quick.knobs.first_delay_s = LATE_S
    async with GatewayHere(tmp_path, [two_replicas(doubles)]) as running:
        with pytest.raises(httpx.ReadTimeout):
            await running.http.post(PATH, json=CALL, timeout=0.15)
        await until(lambda: slow.state.cancelled + quick.state.cancelled == 2)
        fact = (await running.facts(1))[0]
        backends = running.gateway.table.current.routes["prj_a", CHAT].backends
        assert fact.error_class == "client_closed"
        assert [each.in_flight for each in backends] == [0, 0]


def test_late_is_the_95th_percentile_of_its_own_kind() -> None:
    hedging = Hedging(Hedge(percent=10.0))
    for number in range(19):
        hedging.seen(100.0 + number, stream=False)
    assert hedging.after_s(stream=False) is None
    hedging.seen(900.0, stream=False)
    assert hedging.after_s(stream=False) == 0.9
    assert hedging.after_s(stream=True) is None
    for _ in range(200):
        hedging.seen(10.0, stream=False)
    assert hedging.after_s(stream=False) == 0.01
    assert not hedging.take()
    for _ in range(1000):
        hedging.request()
    assert sum(hedging.take() for _ in range(100)) == 10


async def test_an_answer_whose_caller_leaves_at_the_last_moment_is_let_go() -> None:
    released = []

    class Begun:
        def release(self) -> None:
            released.append(self)

    async def slow() -> Any:
        try:
            await asyncio.sleep(LATE_S)
        finally:
            await asyncio.sleep(0.05)  # the end of what is cancelled takes a moment

    async def quick() -> Any:
        return Begun()

    body = parse(b'{"model":"m"}', can_stream=True)
    fact = RequestFact(request_id="req_1", started_unix_s=0.0, endpoint="chat.completions")
    call = Call(PATH, body, fact, Patience(QUICK), 0, None)
    proxy = HedgingProxy(Stats())
    second = Attempt(quick(), None)
    race = asyncio.ensure_future(proxy.race(call, Attempt(slow(), None), 0.0, lambda _: second))
    await asyncio.sleep(0.02)
    race.cancel()
    with pytest.raises(asyncio.CancelledError):
        await race
    assert len(released) == 1
