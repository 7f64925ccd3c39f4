"""Limits as callers of the gateway meet them; workers of one folder, and one killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, get_args

import httpx
import openai
import pytest

from core.contracts.route_table import Limit, LimitLevel, Price, RouteTarget
from core.limits.services import WINDOWS
from gateway.limits.shared_table import IN_TOUCH
from tests.doubles.gateway_harness import (
    CHAT,
    KEY,
    QUICK,
    GatewayHere,
    GatewayProcess,
    api_key,
    publish,
    route,
    until,
)
from tests.doubles.openai_server import OpenAiDouble
from tests.doubles.valkey_server import ValkeyServer
from tests.machine import slowness

CALL: dict[str, Any] = {"model": CHAT, "messages": [{"role": "user", "content": "Hello"}]}
SUBJECTS = {"key": "key_test", "user": "usr_a", "project": "prj_a", "model": CHAT}
PRICE = Price(input_usd_per_million_tokens=1e5, output_usd_per_million_tokens=1e5)


def limit(name: str, amount: float) -> Limit:
    level, _, rest = name.partition(".")
    metric, _, window = rest.partition("_per_")
    asked: Any = {"metric": metric.removesuffix("_requests"), "window": window, "level": level}
    return Limit(project_id="prj_a", subject=SUBJECTS[level], amount=amount, **asked)


@pytest.fixture
async def double() -> AsyncIterator[OpenAiDouble]:
    async with OpenAiDouble() as server:
        yield server


@pytest.mark.parametrize(
    ("name", "amount", "kind"),
    [
        ("key.requests_per_hour", 2, "rate_limited"),
        # 4 tokens out and 1 to 3 in by the double's usage; 10 and the prompt's bytes before.
        ("project.tokens_per_day", 60, "rate_limited"),
        ("user.usd_per_month", 6.0, "budget_exceeded"),
    ],
)
async def test_over_a_limit_is_429_with_its_name_and_when_to_come_back(
    tmp_path: Path, double: OpenAiDouble, name: str, amount: float, kind: str
) -> None:
    served = route(double.base_url, price=PRICE)
    async with GatewayHere(tmp_path, [served], limits=[limit(name, amount)]) as gateway:
        answers = [
            await gateway.http.post("/v1/chat/completions", json={**CALL, "max_tokens": 10})
            for _ in range(12)
        ]
        good = [answer for answer in answers if answer.status_code == 200]
        refused = answers[-1]
        assert 1 < len(good) < 12
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        error = refused.json()["error"]
        assert error["param"] == name
        assert f"{name} of {amount:g}" in error["message"]
        with pytest.raises(openai.RateLimitError, match=name):
            await gateway.openai.chat.completions.create(**CALL, max_tokens=10)
        facts = await gateway.facts(13)
        assert [fact.error_class for fact in facts if fact.status != 200] == [kind] * (
            13 - len(good)
        )
        # Every token of the good ones was paid for by what they used, not by what they held.
        used = sum((fact.input_tokens or 0) + (fact.output_tokens or 0) for fact in facts)
        assert {"rate_limited": used <= 60, "budget_exceeded": used * 0.1 <= 6.0}[kind]
        assert double.state.requests == len(good)


async def test_every_kind_at_every_level_says_its_name_and_that_0_lets_nothing_through(
    tmp_path: Path,
) -> None:
    kinds = [
        (metric, window) for metric, windows in WINDOWS.items() for window in windows
    ]  # fmt: skip
    cases = [(level, *kind) for level in get_args(LimitLevel) for kind in kinds]
    assert len(cases) == 36
    keys, routes, limits = [], [], []
    for number, (level, metric, window) in enumerate(cases):
        project = f"prj_{number}"
        subjects = {"key": f"key_{number}", "user": "usr_a", "project": project, "model": CHAT}
        key = api_key(f"bud-{number}", id=f"key_{number}", project_id=project)
        keys.append(key)
        routes.append(route(project_id=project, deployment_id=f"dep_{number}", price=PRICE))
        limits.append(
            Limit(
                project_id=project, level=level, subject=subjects[level], metric=metric,
                window=window, amount=0,
            )
        )  # fmt: skip
    async with GatewayHere(tmp_path, routes, keys=keys, limits=limits) as gateway:
        for number, limited in enumerate(limits):
            refused = await gateway.http.post(
                "/v1/chat/completions", json=CALL, headers={"Authorization": f"Bearer bud-{number}"}
            )
            assert refused.status_code == 429, limited.name
            assert "retry-after" not in refused.headers  # waiting never helps
            error = refused.json()["error"]
            assert error["param"] == limited.name
            assert f"{limited.name} of 0 " in error["message"]
            assert "lets nothing through" in error["message"]
            budget = limited.metric == "usd"
            assert error["code"] == ("insufficient_quota" if budget else "rate_limit_exceeded")


async def test_gateways_of_two_hosts_share_limits_through_valkey(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    valkey = ValkeyServer(tmp_path).start()
    limits = [limit("key.requests_per_hour", 20)]
    served = [route(double.base_url)]
    try:
        async with (
            GatewayHere(tmp_path / "a", served, limits=limits, valkey_url=valkey.url) as first,
            GatewayHere(tmp_path / "b", served, limits=limits, valkey_url=valkey.url) as second,
        ):
            both = (first, second)

            async def post(number: int) -> int:
                gateway = both[number % 2]
                return (await gateway.http.post("/v1/chat/completions", json=CALL)).status_code

            # A server that was just started gives nothing until every host has spoken.
            statuses = [await post(number) for number in (0, 1)]
            assert statuses == [503, 503]
            assert "\nbud_limits_hosts 0\n" in (await first.http.get("/metrics")).text
            tables = [host.gateway.limits._limiter.table for host in both]  # type: ignore[union-attr]
            await until(lambda: all(table.words[IN_TOUCH] for table in tables), 30 * slowness())
            statuses = [await post(number // 15) for number in range(30)]
            assert statuses.count(200) == 20
            assert set(statuses) == {200, 429}
            assert "\nbud_limits_hosts 2\n" in (await first.http.get("/metrics")).text
    finally:
        valkey.kill()


async def test_requests_at_once_are_free_again_however_they_end(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    limits = [limit("model.concurrent_requests", 2)]
    async with GatewayHere(tmp_path, [route(double.base_url)], limits=limits) as gateway:
        endless = {**CALL, "stream": True, "double": {"tokens": 10_000, "delay_s": 0.01}}

        async def leaves() -> None:
            async with gateway.http.stream("POST", "/v1/chat/completions", json=endless) as answer:
                assert answer.status_code == 200
                await seen_full.wait()

        seen_full = asyncio.Event()
        leaving = [asyncio.create_task(leaves()) for _ in range(2)]
        await until(lambda: double.state.in_flight == 2)
        full = await gateway.http.post("/v1/chat/completions", json=CALL)
        assert (full.status_code, full.headers["retry-after"]) == (429, "1")
        seen_full.set()
        await asyncio.gather(*leaving)
        await until(lambda: double.state.in_flight == 0)
        for knobs in ({"status": 500}, {"break_after": 1}, {}):
            ended = [
                await gateway.http.post(
                    "/v1/chat/completions", json={**CALL, "stream": True, "double": knobs}
                )
                for _ in range(3)
            ]
            assert 429 not in [answer.status_code for answer in ended]


async def test_work_in_the_background_that_is_refused_holds_nothing(
    tmp_path: Path, double: OpenAiDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.responses._MAX_RUNNING", 0)
    limits = [limit("key.concurrent_requests", 1)]
    async with GatewayHere(tmp_path, [route(double.base_url)], limits=limits) as gateway:
        asked = {"model": CHAT, "input": "Hello", "background": True}
        refused = await gateway.http.post("/v1/responses", json=asked)
        assert refused.status_code == 429
        assert "in the background" in refused.json()["error"]["message"]
        assert (await gateway.http.post("/v1/chat/completions", json=CALL)).status_code == 200


async def test_limits_are_changed_and_taken_away_while_it_runs(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    async with GatewayHere(tmp_path, [route(double.base_url)]) as gateway:

        async def statuses(*limits: Limit) -> list[int]:
            version = gateway.gateway.table.current.version + 1
            publish(tmp_path, [route(double.base_url)], version=version, limits=limits)
            await until(lambda: gateway.gateway.table.current.version == version)
            answers = [await gateway.http.post("/v1/chat/completions", json=CALL) for _ in "123"]
            return [answer.status_code for answer in answers]

        assert await statuses() == [200, 200, 200]
        assert not (tmp_path / "limits").exists()
        assert await statuses(limit("key.requests_per_day", 2)) == [200, 200, 429]
        assert await statuses(limit("key.requests_per_day", 3)) == [200, 429, 429]
        assert await statuses(limit("key.requests_per_day", 0)) == [429, 429, 429]
        assert await statuses() == [200, 200, 200]


async def test_two_workers_share_limits_and_a_killed_ones_are_given_back(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    data_dir = tmp_path / "data"
    limits = [limit("key.requests_per_hour", 40), limit("project.concurrent_requests", 3)]
    publish(data_dir, [route(double.base_url, double.base_url)], [api_key()], limits=limits)
    first, second = GatewayProcess(data_dir), GatewayProcess(data_dir)
    async with AsyncExitStack() as stack:
        for worker in (first, second):
            stack.enter_context(worker)
        clients = [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    base_url=worker.url,
                    headers={"Authorization": f"Bearer {KEY}"},
                    verify=False,
                    timeout=30,
                )
            )
            for worker in (first, second)
        ]

        async def post(worker: int, **double: Any) -> int:
            body = {**CALL, "stream": True, "double": double}
            return (await clients[worker].post("/v1/chat/completions", json=body)).status_code

        held = [asyncio.create_task(post(0, tokens=10_000, delay_s=0.05)) for _ in range(3)]
        await until(lambda: double.state.in_flight == 3)
        assert await post(1) == 429
        first.kill()
        await asyncio.gather(*held, return_exceptions=True)
        # Its requests at once are free again within a second or two; what they took is not.
        for _ in range(100):
            status = await post(1)
            if status == 200:
                break
            await asyncio.sleep(0.05)
        first.start()
        statuses = [status, *[await post(n % 2) for n in range(60)]]
        assert statuses.count(200) + 3 == 40


def of_model(model: str, metric: Any, window: Any, amount: float) -> Limit:
    return Limit(
        project_id="prj_a", level="model", subject=model, metric=metric, window=window,
        amount=amount,
    )  # fmt: skip


async def test_a_deployments_own_limit_holds_for_what_comes_through_a_route(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    targets = [RouteTarget(model="large"), RouteTarget(model="small", priority=1)]
    served = [
        route(model="both", deployment_id="rte_1", targets=targets, price=PRICE),
        route(model="shelf", deployment_id="dep_shelf", fallbacks=["small"]),
        route(double.base_url, model="large", deployment_id="dep_large", price=PRICE),
        route(double.base_url, model="small", deployment_id="dep_small"),
    ]
    limits = [
        of_model("large", "requests", "hour", 3),
        of_model("small", "requests", "hour", 3),
        of_model("small", "concurrent", "", 1),
    ]
    async with GatewayHere(tmp_path, served, limits=limits, timeouts=QUICK) as gateway:

        async def asked(model: str) -> httpx.Response:
            return await gateway.http.post("/v1/chat/completions", json=CALL | {"model": model})

        answers = [await asked("both") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 5
        # As a fallback it counts as well; then neither takes any more.
        assert (await asked("shelf")).headers["x-bud-fallback"] == "small"
        for model in ("both", "shelf", "large", "small"):
            refused = await asked(model)
            assert refused.status_code == 429, model
            assert refused.json()["error"]["param"] == "model.requests_per_hour"
        facts = await gateway.facts(10)
        answered = [fact.deployment_id for fact in facts if fact.status == 200]
        assert answered == ["dep_large"] * 3 + ["dep_small"] * 3
        assert double.state.requests == 6


async def test_a_target_that_gives_no_answer_takes_nothing_of_its_limits(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    targets = [RouteTarget(model="gone"), RouteTarget(model="small", priority=1)]
    served = [
        route(model="both", deployment_id="rte_1", targets=targets),
        route("http://127.0.0.1:9", model="gone", deployment_id="dep_gone"),
        route(double.base_url, model="small", deployment_id="dep_small"),
    ]
    limits = [of_model("gone", "concurrent", "", 1), of_model("small", "tokens", "hour", 60)]
    async with GatewayHere(tmp_path, served, limits=limits, timeouts=QUICK) as gateway:
        call = CALL | {"max_tokens": 10}
        statuses = []
        while not statuses or statuses[-1] == 200:
            answer = await gateway.http.post("/v1/chat/completions", json=call | {"model": "both"})
            statuses.append(answer.status_code)
        facts = await gateway.facts(len(statuses))
        used = sum((fact.input_tokens or 0) + (fact.output_tokens or 0) for fact in facts)
        # Settled by what it took: held alone, two requests would have been too many.
        assert 2 < len(statuses) < 30
        assert 60 - 40 < used <= 60
        gone = await gateway.http.post("/v1/chat/completions", json=call | {"model": "gone"})
        assert gone.status_code == 503, "no request is in flight there any more"
