"""Networks and blocking rules: what lies in them, what they match, and at what cost."""

from __future__ import annotations

import ipaddress
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.contracts.route_table import BlockRule
from gateway.blocks import Visit, compiled, first_match
from gateway.networks import Networks, address
from tests.machine import slowness

V4 = st.builds(
    lambda number, length: str(ipaddress.ip_network((number, length), strict=False)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)
V6 = st.builds(
    lambda number, length: str(ipaddress.ip_network((number, length), strict=False)),
    # Two bits at each end, so that some lie in each other.
    st.builds(lambda high, low: (high << 126) | low, st.integers(0, 3), st.integers(0, 3)),
    st.integers(0, 128),
)


@given(st.lists(V4 | V6, max_size=8), st.ip_addresses())
def test_a_set_of_networks_holds_what_one_of_them_holds(
    ranges: list[str], one: ipaddress.IPv4Address | ipaddress.IPv6Address
) -> None:
    inside = [ipaddress.ip_network(text)[0] for text in ranges]
    found = Networks(ranges)
    for each in [one, *inside]:
        told = any(
            each in network
            for network in map(ipaddress.ip_network, ranges)
            if network.version == each.version
        )
        assert (each in found) == told


def test_addresses_as_they_are_written() -> None:
    assert address("::ffff:192.0.2.1") == address("192.0.2.1")
    assert address("192.0.2.1:80") is None
    assert None not in Networks(["0.0.0.0/0"])


def visit(
    text: str = "192.0.2.1", country: str = "", agent: str = "", path: str = "/v1/models"
) -> Visit:
    return Visit(address(text), country, agent, path)


@pytest.mark.parametrize(
    ("conditions", "met", "not_met"),
    [
        ({"networks": ("192.0.2.0/24",)}, visit(), visit("192.0.3.1")),
        ({"countries": ("DE", "FR")}, visit(country="FR"), visit()),
        ({"user_agents": ("Curl",)}, visit(agent="curl/8.0"), visit(agent="python")),
        ({"user_agent_patterns": ("^bot/[0-9]+$", "x")}, visit(agent="Bot/7"), visit(agent="bot")),
        ({"paths": ("/v1/models",)}, visit(), visit(path="/v1/models/x")),
        ({"paths": ("/v1/models/*",)}, visit(path="/v1/models/x"), visit()),
        (
            {"user_agents": ("curl",), "paths": ("/v1/models",)},
            visit(agent="curl"),
            visit(agent="curl", path="/v1/responses"),
        ),
    ],
)
def test_a_rule_refuses_what_meets_all_of_its_conditions(
    conditions: dict[str, Any], met: Visit, not_met: Visit
) -> None:
    rules = compiled([BlockRule(name="rule", **conditions)]).everywhere
    assert first_match(rules, met) == "rule"
    assert first_match(rules, not_met) == ""


def test_a_rule_that_cannot_be_understood_leaves_the_others() -> None:
    made = compiled(
        [
            BlockRule(name="broken", user_agent_patterns=("(",)),
            BlockRule(name="also", networks=("nowhere",)),
            BlockRule(name="good", project_id="prj_a", countries=("DE",)),
        ]
    )
    assert made.everywhere == ()
    assert [rule.name for rule in made.by_project["prj_a"]] == ["good"]


def test_a_pattern_costs_no_more_than_its_text() -> None:
    # Python's own expressions would take years for this one.
    rules = compiled([BlockRule(name="rule", user_agent_patterns=("(a*)*(a*)*b",))]).everywhere
    began_s = time.perf_counter()
    assert first_match(rules, visit(agent="a" * 100_000)) == ""
    assert time.perf_counter() - began_s < 0.5 * slowness()
