"""Restricted keys, access tokens, blocking rules, CORS: as callers of the gateway meet them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from core.contracts.route_table import BlockRule, Project
from gateway.access_config import AccessConfig, Issuer
from tests.doubles.gateway_harness import (
    CHAT,
    KEY,
    GatewayHere,
    GatewayProcess,
    api_key,
    embedder,
    route,
)
from tests.doubles.openai_server import OpenAiDouble
from tests.doubles.token_issuer import AUDIENCE, TokenIssuer

CALL: dict[str, Any] = {"model": CHAT, "messages": [{"role": "user", "content": "Hello"}]}
BEHIND_PROXY = AccessConfig(trusted_proxies=("127.0.0.1/32", "10.0.0.0/8"), country_header="X-Land")


@pytest.fixture
async def double() -> AsyncIterator[OpenAiDouble]:
    async with OpenAiDouble() as server:
        yield server


async def test_a_key_opens_only_the_endpoints_of_its_scopes(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    key = api_key(scopes=("chat.completions", "messages"))
    routes = [route(double.base_url), embedder(double.base_url)]
    async with GatewayHere(tmp_path, routes, keys=[key]) as gateway:
        assert (await gateway.http.post("/v1/chat/completions", json=CALL)).status_code == 200
        asked = {"model": "tiny-embedder", "input": "x"}
        for method, path, body in (
            ("POST", "/v1/embeddings", asked),
            ("POST", "/v1/responses", {"model": CHAT, "input": "x"}),
            ("GET", "/v1/responses/resp_1", None),
            ("GET", "/v1/models", None),
        ):
            refused = await gateway.http.request(method, path, json=body)
            assert refused.status_code == 403, path
            error = refused.json()["error"]
            assert error["code"] == "scope_not_allowed"
            assert "chat.completions, messages" in error["message"]
        # What belongs to an endpoint comes with it; the double does not count tokens.
        counted = await gateway.http.post("/v1/messages/count_tokens", json=CALL)
        assert counted.status_code != 403
        facts = await gateway.facts(6)
        refused_by = [fact.endpoint for fact in facts if fact.error_class == "permission"]
        assert sorted(refused_by) == ["embeddings", "models", "responses", "responses.kept"]
        assert {fact.key_id for fact in facts} == {"key_test"}


async def test_a_key_opens_only_from_its_networks_as_trusted_proxies_tell(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    served, keys = [route(double.base_url)], [api_key(networks=("203.0.113.0/24", "2001:db8::/32"))]

    async def status(gateway: GatewayHere, *forwarded: str) -> int:
        headers = [("X-Forwarded-For", each) for each in forwarded]
        answer = await gateway.http.post("/v1/chat/completions", json=CALL, headers=headers)
        return answer.status_code

    async with GatewayHere(tmp_path / "a", served, keys=keys, access=BEHIND_PROXY) as gateway:
        assert await status(gateway, "203.0.113.9") == 200
        assert await status(gateway, "2001:db8::7") == 200
        assert await status(gateway, "198.51.100.1, 203.0.113.9, 10.1.1.1") == 200
        assert await status(gateway, "198.51.100.1", "203.0.113.9") == 200
        # Some proxies write the port as well.
        assert await status(gateway, "203.0.113.9:4711") == 200
        assert await status(gateway, "[2001:db8::7]:4711") == 200
        # What a caller wrote itself stands before what the proxy adds.
        assert await status(gateway, "203.0.113.9, 198.51.100.1") == 403
        assert await status(gateway, "203.0.113.9", "198.51.100.1") == 403
        assert await status(gateway, "203.0.113.9, nonsense") == 403
        assert await status(gateway) == 403
    async with GatewayHere(tmp_path / "b", served, keys=keys) as gateway:
        assert await status(gateway, "203.0.113.9") == 403
        anthropics = await gateway.http.post("/v1/messages", json=CALL | {"max_tokens": 5})
        assert anthropics.status_code == 403
        assert anthropics.json()["error"]["type"] == "permission_error"
        assert "from the address 127.0.0.1" in anthropics.json()["error"]["message"]
        facts = await gateway.facts(2)
        assert {fact.error_class for fact in facts} == {"permission"}
        assert KEY not in str(facts)


async def test_rules_refuse_everywhere_and_by_project_and_facts_name_them(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    blocks = [
        BlockRule(name="abroad", countries=("XX",)),
        BlockRule(name="bots", project_id="prj_a", user_agents=("bot",), paths=("/v1/chat/*",)),
        BlockRule(name="scanners", paths=("/admin*",)),
        BlockRule(name="others", project_id="prj_b", networks=("0.0.0.0/0",)),
    ]
    served = [route(double.base_url)]
    async with GatewayHere(
        tmp_path, served, access=BEHIND_PROXY, table={"blocks": blocks}
    ) as gateway:

        async def refused(path: str = "/v1/chat/completions", **headers: str) -> str:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            answer = await gateway.http.post(path, json=CALL, headers=named)
            if answer.status_code != 403:
                return str(answer.status_code)
            assert answer.json()["error"]["code"] == "request_blocked"
            return str(answer.json()["error"]["message"])

        assert "abroad" in await refused(x_land="xx")
        # Before the key is looked at.
        assert "abroad" in await refused(x_land="XX", authorization="Bearer nothing")
        assert "scanners" in await refused("/administrator")
        assert "bots" in await refused(user_agent="Some Bot/1.0")
        assert await refused(x_land="DE", user_agent="python") == "200"
        assert await refused("/v1/completions", user_agent="bot") == "200"
        facts = await gateway.facts(6)
        named = {fact.blocked_by: fact for fact in facts}
        assert set(named) == {"abroad", "scanners", "bots", ""}
        assert {fact.error_class for name, fact in named.items() if name} == {"blocked"}
        assert (named["bots"].project_id, named["scanners"].project_id) == ("prj_a", "")
        assert double.state.requests == 2


async def test_no_rule_and_no_country_of_someone_who_is_no_proxy(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    blocks = [BlockRule(name="abroad", countries=("XX",))]
    distrusting = AccessConfig(trusted_proxies=("10.0.0.0/8",), country_header="X-Land")
    async with GatewayHere(
        tmp_path, [route(double.base_url)], access=distrusting, table={"blocks": blocks}
    ) as gateway:
        answer = await gateway.http.post(
            "/v1/chat/completions", json=CALL, headers={"X-Land": "XX"}
        )
        assert answer.status_code == 200


async def test_pages_of_allowed_origins_may_call_and_no_others(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    cors = AccessConfig(cors_origins=("https://app.example",), cors_headers=("X-Own",))
    async with GatewayHere(tmp_path, [route(double.base_url)], access=cors) as gateway:

        async def preflight(origin: str, asked: str = "authorization") -> httpx.Response:
            headers = {
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": asked,
            }
            async with httpx.AsyncClient(base_url=gateway.url) as browser:
                return await browser.options("/v1/chat/completions", headers=headers)

        told = await preflight("https://app.example", "authorization, x-stainless-os, x-own, x-bad")
        assert told.status_code == 200
        assert told.headers["access-control-allow-origin"] == "https://app.example"
        assert told.headers["vary"] == "Origin"
        allowed = told.headers["access-control-allow-headers"]
        assert allowed == "authorization, x-stainless-os, x-own"
        for origin in ("https://app.example.evil", "http://app.example", "null", ""):
            refused = await preflight(origin)
            assert "access-control-allow-origin" not in refused.headers
        stream = CALL | {"stream": True}
        for body, status in ((CALL, 200), (stream, 200), ({"model": "nobody"}, 404)):
            answer = await gateway.http.post(
                "/v1/chat/completions", json=body, headers={"Origin": "https://app.example"}
            )
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == "https://app.example"
            assert "X-Request-Id" in answer.headers["access-control-expose-headers"]
        other = await gateway.http.post("/v1/chat/completions", json=CALL)
        assert "access-control-allow-origin" not in other.headers
        assert other.headers["vary"] == "Origin"


async def test_no_page_may_call_unless_it_is_said(tmp_path: Path, double: OpenAiDouble) -> None:
    async with GatewayHere(tmp_path, [route(double.base_url)]) as gateway:
        headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        told = await gateway.http.options("/v1/chat/completions", headers=headers)
        assert told.status_code == 405
        answer = await gateway.http.get("/v1/models", headers=headers)
        assert not {name for name in answer.headers if name.startswith(("access-", "vary"))}


async def test_a_callers_request_id_is_kept_when_it_is_one(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    async with GatewayHere(tmp_path, [route(double.base_url)]) as gateway:

        async def named(given: str) -> str:
            answer = await gateway.http.post(
                "/v1/chat/completions", json=CALL, headers={"X-Request-Id": given}
            )
            return answer.headers["x-request-id"]

        mine = "0af7651916cd43dd8448eb211c80319c"
        assert await named(mine) == mine
        for wrong in ("short", "with space in it", "x" * 129, "quote\"'quote", "-leading-dash"):
            assert (await named(wrong)).startswith("req_")
        responses = [
            await gateway.http.post(
                "/v1/responses",
                json={"model": CHAT, "input": "Hello"},
                headers={"X-Request-Id": mine},
            )
            for _ in "12"
        ]
        assert [answer.status_code for answer in responses] == [200, 200]
        assert len({answer.json()["id"] for answer in responses}) == 2
        facts = await gateway.facts(8)
        assert [fact.request_id for fact in facts].count(mine) == 3


async def test_an_access_token_opens_a_project_beside_keys(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    with TokenIssuer() as issuer:
        config = AccessConfig(issuers=(Issuer(name="local", issuer=issuer.url, audience=AUDIENCE),))
        table = {"projects": [Project(id="prj_a", name="Alpha")]}
        async with GatewayHere(
            tmp_path, [route(double.base_url)], access=config, table=table
        ) as gateway:

            async def post(token: str, **headers: str) -> httpx.Response:
                sent = {"Authorization": f"Bearer {token}", **headers}
                return await gateway.http.post("/v1/chat/completions", json=CALL, headers=sent)

            good = issuer.token(bud_project="Alpha")
            assert (await post(good)).status_code == 200
            assert (await post(good, **{"OpenAI-Project": "prj_a"})).status_code == 200
            assert (await post(KEY)).status_code == 200
            forged = await post(issuer.token(aud="other"))
            assert forged.status_code == 401
            assert forged.json()["error"]["code"] == "invalid_access_token"
            facts = await gateway.facts(4)
            assert [fact.user_id for fact in facts] == ["local:ada", "local:ada", "usr_a", ""]
            assert facts[0].key_id.startswith("jwt_")
            assert good not in str(facts)


def test_a_process_reads_the_variables_and_names_the_one_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUD_CORS_ORIGINS", "https://app.example")
    monkeypatch.setenv("BUD_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("BUD_OTLP_HEADERS", "x-token=s3cret")
    with GatewayProcess(tmp_path) as gateway:
        answer = httpx.get(f"{gateway.url}/v1/models", headers={"Origin": "https://app.example"})
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "s3cret" not in gateway.log.read_text()
    monkeypatch.setenv("BUD_OTLP_HEADERS", "s3cret")
    with pytest.raises(AssertionError, match="BUD_OTLP_HEADERS"):
        GatewayProcess(tmp_path).start()
    assert "s3cret" not in gateway.log.read_text()
