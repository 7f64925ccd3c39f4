"""Keys with restrictions, and blocking rules, as callers of the gateway meet them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.contracts.route_table import BlockRule
from gateway.config import AccessConfig
from tests.doubles.gateway_harness import CHAT, KEY, GatewayHere, api_key, embedder, route
from tests.doubles.openai_server import OpenAiDouble

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
