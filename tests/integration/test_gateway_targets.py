"""Routes with targets through a real gateway process: canary, keys, fail-over, drain, health."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from core.contracts import gateway_state
from core.contracts.route_table import Replica, Route, RouteTarget
from core.kernel import clock
from tests.doubles.gateway_harness import (
    KEY,
    GatewayProcess,
    api_key,
    facts_on_disk,
    publish,
    route,
    until,
)
from tests.doubles.openai_server import Knobs, OpenAiDouble

CHAT = "/v1/chat/completions"
CALL: dict[str, Any] = {"model": "both", "messages": [{"role": "user", "content": "Hello"}]}
LONG_S = 60.0


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    """Started by the test, killed here."""
    options = ("--health-interval-s", "0.1", "--drain-s", "0.1", "--replica-wait-s", "0.3")
    process = GatewayProcess(tmp_path / "data", *options)
    yield process
    if process.process is not None:
        process.kill()


@asynccontextmanager
async def doubles(number: int) -> AsyncIterator[list[OpenAiDouble]]:
    found = [await OpenAiDouble(Knobs(tokens=2)).start() for _ in range(number)]
    try:
        yield found
    finally:
        for double in found:
            await double.stop()


def client(gateway: GatewayProcess, key: str = KEY) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=LONG_S, verify=False)


def table(*models: tuple[str, OpenAiDouble, RouteTarget], **fields: Any) -> list[Route]:
    """The route `both` with targets, and the routes that those are."""
    own = [
        route(double.base_url, model=name, deployment_id=f"dep_{name}")
        for name, double, _ in models
    ]
    targets = [target for _, _, target in models]
    return [route(model="both", deployment_id="rte_1", targets=targets, **fields), *own]


def states(gateway: GatewayProcess) -> dict[str, gateway_state.ReplicaState]:
    workers = gateway_state.read(gateway.data_dir, clock.unix_s())
    return {replica.id: replica for worker in workers for replica in worker.replicas}


async def taken(http: httpx.AsyncClient, version: int) -> None:
    """Wait until the gateway uses this version of the table."""
    for _ in range(int(LONG_S / 0.02)):
        if (await http.get("/health")).json()["route_table_version"] == version:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"version {version} is not in use")


async def test_a_canary_gets_its_share_and_a_key_its_target(gateway: GatewayProcess) -> None:
    async with doubles(2) as (stable, canary):
        targets = (
            ("stable", stable, RouteTarget(model="stable", weight=80)),
            ("canary", canary, RouteTarget(model="canary", weight=20)),
        )
        secrets = [f"bud-test-key-{number:034d}" for number in range(1, 13)]
        keys = [api_key(secret, id=f"key_{number}") for number, secret in enumerate(secrets)]
        publish(gateway.data_dir, table(*targets), [api_key(), *keys])
        gateway.start()
        async with client(gateway) as http:
            for _ in range(200):
                answer = await http.post(CHAT, json=CALL)
                assert answer.json()["model"] == "both"
            # Five standard deviations: 200 x 0.2 = 40, and 5.7.
            assert 12 <= canary.state.requests <= 68
            assert canary.state.requests + stable.state.requests == 200
            text = (await http.get("/metrics")).text
            sent = canary.state.requests
            assert f'bud_target_requests_total{{model="both",target="canary"}} {sent}\n' in text
            publish(gateway.data_dir, table(*targets, split_by="key"), keys, version=2)
            await taken(http, 2)
        for secret in secrets:
            async with client(gateway, secret) as http:
                for _ in range(4):
                    assert (await http.post(CHAT, json=CALL)).status_code == 200
        await until(lambda: len(facts_on_disk(gateway.data_dir)) >= 248, LONG_S)
    facts = facts_on_disk(gateway.data_dir)
    assert {fact.model for fact in facts} == {"both"}
    by_request = Counter(fact.deployment_id for fact in facts if fact.key_id == "key_test")
    assert by_request == {"dep_stable": 200 - sent, "dep_canary": sent}
    pairs = {(fact.key_id, fact.deployment_id) for fact in facts if fact.key_id != "key_test"}
    assert len(pairs) == len(secrets)
    assert {deployment for _, deployment in pairs} == {"dep_stable", "dep_canary"}


async def test_what_fails_before_the_first_byte_goes_on_to_the_next_target(
    gateway: GatewayProcess,
) -> None:
    async with doubles(3) as (own, second, hosted):
        publish(
            gateway.data_dir,
            table(
                ("own", own, RouteTarget(model="own", weight=99)),
                ("second", second, RouteTarget(model="second")),
                ("hosted", hosted, RouteTarget(model="hosted", priority=1)),
            ),
        )
        gateway.start()
        async with client(gateway) as http:
            # An error of its own, a broken stream, and nothing that listens: all before a byte.
            for knobs in (Knobs(status=500), Knobs(fail="before_first_byte"), Knobs(break_after=0)):
                own.knobs = second.knobs = knobs
                before = hosted.state.requests
                answer = await http.post(CHAT, json={**CALL, "stream": True})
                assert answer.status_code == 200, answer.text
                assert hosted.state.requests == before + 1
            own.knobs = second.knobs = Knobs()
            await own.stop()
            for _ in range(20):
                assert (await http.post(CHAT, json=CALL)).status_code == 200
            assert second.state.finished > 0
            # The request's own fault is nobody else's.
            second.knobs = hosted.knobs = Knobs(status=400)
            before = second.state.requests + hosted.state.requests
            assert (await http.post(CHAT, json=CALL)).status_code == 400
            assert second.state.requests + hosted.state.requests == before + 1
            await second.stop()
            await hosted.stop()
            refused = await http.post(CHAT, json=CALL, timeout=LONG_S)
            assert refused.status_code == 503
            assert "'both'" in refused.json()["error"]["message"]


async def test_a_replica_that_drains_finishes_its_streams_and_gets_no_request(
    gateway: GatewayProcess,
) -> None:
    async with doubles(2) as (old, new):
        one = route(model="one", deployment_id="dep_one")
        replicas = [Replica(id="rep_old", base_url=old.base_url, slots=4)]
        publish(gateway.data_dir, [msgspec.structs.replace(one, replicas=replicas)])
        gateway.start()
        slow = {"tokens": 3, "delay_s": 0.5}
        call = {**CALL, "model": "one"}
        async with client(gateway) as http:
            request = http.build_request(
                "POST", CHAT, json={**call, "stream": True, "double": slow}
            )
            running = await http.send(request, stream=True)
            left = [Replica(id="rep_new", base_url=new.base_url, slots=4)]
            publish(gateway.data_dir, [msgspec.structs.replace(one, replicas=left)], version=2)
            await taken(http, 2)
            await asyncio.gather(*[http.post(CHAT, json=call) for _ in range(20)])
            assert (old.state.requests, new.state.requests) == (1, 20)
            await until(lambda: states(gateway).get("rep_new") is not None, LONG_S)
            assert states(gateway)["rep_old"].draining
            content = await running.aread()
            assert content.endswith(b"data: [DONE]\n\n")
            assert content.count(b'"content":" t') == 3
        assert (old.state.finished, old.state.cancelled) == (1, 0)
        await until(lambda: "rep_old" not in states(gateway), LONG_S)


async def test_a_replica_that_fails_its_health_checks_is_away_until_it_passes_one(
    gateway: GatewayProcess,
) -> None:
    async with doubles(2) as (sick, well):
        replicas = [
            Replica(id=name, base_url=double.base_url, slots=4, health_path="/health")
            for name, double in (("sick", sick), ("well", well))
        ]
        one = route(model="one", deployment_id="dep_one")
        publish(gateway.data_dir, [msgspec.structs.replace(one, replicas=replicas)])
        gateway.start()
        sick.knobs = Knobs(health_status=503)
        call = {**CALL, "model": "one"}
        async with client(gateway) as http:
            await until(lambda: states(gateway)["sick"].health == "away", LONG_S)
            assert 'bud_replica_up{replica="sick"} 0' in (await http.get("/metrics")).text
            for _ in range(30):
                assert (await http.post(CHAT, json=call)).status_code == 200
            assert (sick.state.requests, well.state.requests) == (0, 30)
            sick.knobs = Knobs()
            await until(lambda: states(gateway)["sick"].health == "up", LONG_S)
            for _ in range(int(LONG_S)):
                await asyncio.gather(*[http.post(CHAT, json=call) for _ in range(20)])
                if sick.state.requests:
                    break
            assert sick.state.requests
        gateway.kill(15)
        assert gateway_state.read(gateway.data_dir, clock.unix_s()) == []
