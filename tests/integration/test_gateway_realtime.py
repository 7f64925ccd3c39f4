"""`/v1/realtime` by OpenAI's own client and as a browser asks, before a double of a server."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import openai
import pytest

from core.contracts.guardrails import Guardrail, Pii
from core.contracts.route_table import Hosted, Limit, Price, Replica, RouteTarget
from core.kernel.crypto import Keyring, Secret
from tests.doubles import surface_server
from tests.doubles.gateway_harness import (
    KEY,
    QUICK,
    GatewayHere,
    api_key,
    free_port,
    publish,
    route,
    until,
)
from tests.doubles.surface_server import Seen
from tests.machine import slowness


@pytest.fixture(autouse=True)
def _keys(tmp_path: Path, keys_dir: Path) -> None:
    shutil.copytree(keys_dir, tmp_path / "keys")


@pytest.fixture
def seen() -> Iterator[Seen]:
    with surface_server.serving() as serving:
        yield serving


@asynccontextmanager
async def gateway(
    folder: Path,
    seen: Seen,
    limits: list[Limit] | None = None,
    guardrails: list[Guardrail] | None = None,
    **timeouts: float,
) -> AsyncIterator[GatewayHere]:
    price = Price(input_usd_per_million_tokens=1.0, output_usd_per_million_tokens=2.0)
    keyring = Keyring(folder / "keys")
    sealed = keyring.seal(Secret('{"api_key":"sk-hosted"}'), context="provider:prv_a")

    def hosted(kind: str, path: str) -> list[Replica]:
        there = Hosted(kind=kind, model="theirs", account_id="prv_a")
        return [
            Replica(id=f"rep_{kind}", base_url=seen.url + path, credential=sealed, hosted=there)
        ]

    able: dict[str, Any] = {"capabilities": ["realtime"], "price": price}
    away = f"http://127.0.0.1:{free_port()}"
    routes = [
        route(seen.url, model="talk", upstream_model="theirs", deployment_id="dep_talk", **able),
        route(away, seen.url, model="half", deployment_id="dep_half", **able),
        route(model="hosted", deployment_id="dep_h", replicas=hosted("openai", "/v1"), **able),
        route(model="claude", deployment_id="dep_c", replicas=hosted("anthropic", ""), **able),
        route(seen.url, model="chat-only", deployment_id="dep_chat_only"),
        route(
            model="moved", deployment_id="dep_m", replicas=hosted("vllm", "/elsewhere"), **able
        ),
        route(
            model="either", deployment_id="rte_either",
            targets=[RouteTarget(model="talk"), RouteTarget(model="half", priority=1)], **able,
        ),
    ]  # fmt: skip
    running = GatewayHere(
        folder,
        routes,
        keys=[api_key()],
        limits=limits or [],
        timeouts=replace(QUICK, **timeouts),
        table={"guardrails": guardrails or []},
    )
    async with running:
        yield running


@asynccontextmanager
async def session(
    running: GatewayHere, model: str = "talk", **options: Any
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    options.setdefault("headers", {"Authorization": f"Bearer {KEY}"})
    url = f"{running.url}/v1/realtime?model={model}"
    async with aiohttp.ClientSession() as client, client.ws_connect(url, **options) as socket:
        assert (await socket.receive_json(timeout=10))["type"] == "session.created"
        yield socket


async def test_openais_client_talks_and_the_session_is_counted(tmp_path: Path, seen: Seen) -> None:
    async with gateway(tmp_path, seen) as running:
        async with running.openai.realtime.connect(model="talk") as connection:
            created = await connection.recv()
            assert created.type == "session.created"
            assert created.model == "theirs"  # type: ignore[union-attr]
            await connection.session.update(session={"type": "realtime", "instructions": "é"})
            said: Any = await connection.recv()
            assert said.said["session"]["instructions"] == "é"
            for _ in range(2):
                await connection.response.create()
                assert (await connection.recv()).type == "response.done"
        (fact,) = await running.facts()
    assert (fact.endpoint, fact.status, fact.error_class) == ("realtime", 101, "")
    assert (fact.deployment_id, fact.key_id, fact.attempts) == ("dep_talk", "key_test", 1)
    assert (fact.input_tokens, fact.output_tokens, fact.cached_tokens) == (16, 10, 4)
    assert fact.cost_usd == pytest.approx((16 + 20) / 1e6)
    assert fact.response_bytes > fact.request_bytes > 0


async def test_a_browser_gives_its_key_as_a_protocol(tmp_path: Path, seen: Seen) -> None:
    offered = ["realtime", f"openai-insecure-api-key.{KEY}", "openai-project.p"]
    async with gateway(tmp_path, seen) as running:
        async with session(running, headers={}, protocols=offered) as socket:
            assert socket.protocol == "realtime"
            await socket.send_bytes(b"\x00\xff")
            assert await socket.receive_bytes() == b"\x00\xff"
        assert KEY not in str(seen.headers)
        assert seen.headers[0]["Sec-WebSocket-Protocol"] == "realtime"
        for headers, model, status in (
            ({}, "talk", 401),
            ({"Sec-WebSocket-Protocol": "openai-insecure-api-key.wrong"}, "talk", 401),
            ({"Authorization": f"Bearer {KEY}"}, "nothing", 404),
            ({"Authorization": f"Bearer {KEY}"}, "chat-only", 400),
            ({"Authorization": f"Bearer {KEY}"}, "claude", 400),
            ({"Authorization": f"Bearer {KEY}"}, "", 400),
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with session(running, model, headers=headers):
                    pass
            assert refused.value.status == status, (headers, model)
        answer = await running.http.get("/v1/realtime?model=talk")
        assert (answer.status_code, answer.json()["error"]["type"]) == (
            426, "invalid_request_error",
        )  # fmt: skip
        with pytest.raises(openai.AuthenticationError):
            await running.openai.with_options(api_key="x").models.list()
        before = len(seen.paths)
        for wrong, status in ((("Version", "12"), 426), (("Key", "short"), 400)):
            asked = await handshake(running, "talk", {f"Sec-WebSocket-{wrong[0]}": wrong[1]})
            assert (asked.status_code, asked.json()["error"]["type"]) == (
                status, "invalid_request_error",
            )  # fmt: skip
        assert len(seen.paths) == before


async def test_another_replica_and_a_provider_take_sessions(tmp_path: Path, seen: Seen) -> None:
    async with gateway(tmp_path, seen) as running:
        for _ in range(3):
            async with session(running, "half"):
                pass
        async with session(running, "hosted") as socket:
            await socket.send_json({"type": "double.close", "code": 1000})
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
        assert seen.headers[-1]["Authorization"] == "Bearer sk-hosted"
        async with session(running, autoclose=False) as last:
            stopping = asyncio.create_task(running.stop())
            message = await last.receive()
            assert (message.data, message.extra) == (1001, "The gateway is stopping.")
            await last.close()
            await stopping
        *facts, stopped = await running.facts(5)
    assert (stopped.error_class, stopped.status) == ("gateway_stopped", 503)
    assert {fact.replica_id for fact in facts} == {"rep_dep_half_1", "rep_openai"}
    assert max(fact.attempts for fact in facts) <= 2


async def test_close_codes_go_both_ways(tmp_path: Path, seen: Seen) -> None:
    async with gateway(tmp_path, seen) as running:
        async with session(running, autoclose=False) as socket:
            await socket.send_json({"type": "double.close", "code": 4001})
            message = await socket.receive()
            assert (message.data, message.extra) == (4001, "as told")
        async with session(running) as socket:
            await socket.close(code=4002, message=b"enough")
        async with session(running) as socket:
            await socket.send_json({"type": "double.cut"})
            await socket.receive()
            assert socket.close_code == 1011
        async with session(running) as socket:
            transport = socket.get_extra_info("socket")
            assert transport is not None
            socket._response.connection.transport.abort()  # type: ignore[union-attr]
        await until(lambda: len(seen.closes) >= 4)
        facts = await running.facts(4)
    assert [fact.error_class for fact in facts] == ["", "", "upstream_broke", "client_closed"]
    assert 4002 in seen.closes
    assert seen.closes[-1] == 1001


async def test_times_and_limits_of_sessions(tmp_path: Path, seen: Seen) -> None:
    limits = [
        Limit(project_id="prj_a", level="key", subject="key_test", metric="concurrent", amount=1)
    ]
    async with gateway(tmp_path, seen, limits, session_idle_s=0.3, session_total_s=0.8) as running:
        async with session(running) as first:
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                async with session(running):
                    pass
            assert refused.value.status == 429
            assert (await first.receive()).type is aiohttp.WSMsgType.CLOSE
            assert first.close_code == 1001
        async with session(running, autoclose=False) as busy:
            message = None
            async with asyncio.timeout(10):
                while message is None or message.type is aiohttp.WSMsgType.TEXT:
                    with_echo = {"type": "echo"}
                    await busy.send_json(with_echo)
                    message = await busy.receive()
                    await asyncio.sleep(0.05)
            assert "min at most" in (message.extra or "")
        facts = await running.facts(3)
    assert sorted(fact.error_class for fact in facts) == ["", "rate_limited", "timeout"]


async def test_who_does_not_read_holds_the_other_side_up(tmp_path: Path, seen: Seen) -> None:
    async with gateway(tmp_path, seen, session_idle_s=30, session_total_s=60) as running:
        async with session(running, max_msg_size=0) as socket:
            await socket.send_json({"type": "double.flood", "messages": 1000})
            sent = -1
            while sent != len(seen.bodies) or not sent:
                sent = len(seen.bodies)
                await asyncio.sleep(0.2)
            assert sent < 900  # 65 MB: it waits, and little is held on the way
            for _ in range(1000):
                assert len(await socket.receive_bytes(timeout=20)) == 65_536
        (fact,) = await running.facts()
    assert fact.response_bytes > 65_536_000


async def handshake(running: GatewayHere, model: str, more: dict[str, str]) -> httpx.Response:
    headers = {
        "Connection": "Upgrade", "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }  # fmt: skip
    return await running.http.get(f"/v1/realtime?model={model}", headers=headers | more)


async def refused(running: GatewayHere, model: str) -> tuple[int, str]:
    """How a session of a model is refused before it begins."""
    answer = await handshake(running, model, {})
    return answer.status_code, answer.json()["error"]["code"]


async def last_words(socket: aiohttp.ClientWebSocketResponse) -> tuple[str, int | None]:
    """The code of the error event that ends a session, and of its close."""
    code = ""
    while (message := await socket.receive(timeout=10)).type is aiohttp.WSMsgType.TEXT:
        event = message.json()
        code = event["error"]["code"] if event["type"] == "error" else code
    return code, socket.close_code


async def test_a_session_ends_with_its_key_and_with_a_new_guardrail(
    tmp_path: Path, seen: Seen
) -> None:
    async with gateway(tmp_path, seen) as running:
        table = running.gateway.table
        able = route(seen.url, model="talk", capabilities=["realtime"])
        async with session(running) as socket:
            await running.publish([able], [api_key(scopes=("realtime",)), api_key("b", id="key_b")])
            await socket.send_json({"type": "still here"})
            assert (await socket.receive_json())["type"] == "double.said"
            began_s = asyncio.get_running_loop().time()
            await running.publish([able], [api_key("b", id="key_b")])
            assert await last_words(socket) == ("invalid_api_key", 1008)
            assert asyncio.get_running_loop().time() - began_s < 1.0 * slowness()
        await running.publish([able])
        async with session(running) as socket:
            version = table.current.version + 1
            publish(tmp_path, [able], [api_key()], version, guardrails=[_pii()])
            assert await last_words(socket) == ("guardrail_unavailable", 1008)
        assert await refused(running, "talk") == (400, "guardrail_unavailable")
        facts = await running.facts(3)
    assert [fact.error_class for fact in facts] == ["authentication", "guardrail", "guardrail"]
    assert facts[1].blocked_by == "pii"


def _pii(**fields: Any) -> Guardrail:
    return Guardrail(id="grl_pii", project_id="prj_a", name="pii", check=Pii(), **fields)


async def test_a_guardrail_that_may_let_through_lets_sessions_through(
    tmp_path: Path, seen: Seen
) -> None:
    rules = [_pii(on_failure="open")]
    async with gateway(tmp_path, seen, guardrails=rules) as running:
        async with session(running):
            pass
        (fact,) = await running.facts()
    assert fact.guardrails.count('"let_through"') == 2


async def test_what_is_spent_counts_at_once_and_ends_a_session(tmp_path: Path, seen: Seen) -> None:
    def limit(level: Any, subject: str, metric: Any, amount: float, window: Any = "day") -> Limit:
        return Limit(project_id="prj_a", level=level, subject=subject, metric=metric,
                     window=window, amount=amount)  # fmt: skip

    limits = [
        limit("key", "key_test", "tokens", 60),
        limit("model", "talk", "tokens", 30),
        limit("model", "half", "requests", 1),
    ]
    async with gateway(tmp_path, seen, limits) as running:
        # 13 tokens an answer: the third one goes over the limit of the target.
        async with session(running, "either") as socket:
            for _ in range(3):
                await socket.send_json({"type": "response.create"})
            assert await last_words(socket) == ("rate_limit_exceeded", 1008)
        # The next target takes the next session, and the key's own limit holds there as well.
        async with session(running, "either") as socket:
            for _ in range(2):
                await socket.send_json({"type": "response.create"})
            assert await last_words(socket) == ("rate_limit_exceeded", 1008)
        assert await refused(running, "either") == (429, "rate_limit_exceeded")
        facts = await running.facts(3)
    assert [fact.input_tokens for fact in facts] == [24, 16, None]
    assert [fact.deployment_id for fact in facts[:2]] == ["dep_talk", "dep_half"]
    assert {fact.error_class for fact in facts} == {"rate_limited"}


async def test_an_answer_whose_end_nobody_waits_for_counts_as_estimated(
    tmp_path: Path, seen: Seen
) -> None:
    limit = Limit(project_id="prj_a", level="key", subject="key_test", metric="tokens",
                  window="day", amount=500)  # fmt: skip
    async with gateway(tmp_path, seen, [limit]) as running:
        for event in ("response.create", "double.begin"):
            async with session(running) as socket:
                await socket.send_json({"type": event})
                assert (await socket.receive_json())["type"].startswith("response.")
        assert await refused(running, "talk") == (429, "rate_limit_exceeded")


async def test_a_redirect_is_not_followed(tmp_path: Path, seen: Seen) -> None:
    async with gateway(tmp_path, seen) as running:
        assert await refused(running, "moved") == (502, "replica_error")
    assert seen.paths == ["/elsewhere/realtime"]
