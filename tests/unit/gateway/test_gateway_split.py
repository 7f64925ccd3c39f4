"""Which target of a route a request goes to: shares, priorities, keys that stay."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.contracts.route_table import Price, Replica, Route, RouteTarget
from core.kernel import clock
from gateway import split
from gateway.balancer import Backend, RetryBudget
from gateway.config import Timeouts
from gateway.policies import p2c
from gateway.table import Share, TableHolder, Target, Traffic, seed_of
from tests.doubles.gateway_harness import CHAT, publish, route

URL = "http://127.0.0.1:9"
KEYS = [f"key_{number}" for number in range(4000)]


def share(name: str, weight: float = 1.0, priority: int = 0) -> Share:
    backend = Backend(Replica(id=f"rep_{name}", base_url=URL), "")
    target = Target(
        route(deployment_id=f"dep_{name}"), (backend,), RetryBudget(), (backend,), p2c,
        Timeouts(), Traffic(),
    )  # fmt: skip
    seed = seed_of(CHAT, f"dep_{name}")
    return Share(name, target, weight, priority, seed)


def names(targets: Iterable[Target]) -> list[str]:
    return [target.route.deployment_id.removeprefix("dep_") for target in targets]


def within(count: int, share: float, of: int) -> bool:
    """Whether a count is within five standard deviations of what its share says."""
    return abs(count - of * share) <= 5 * math.sqrt(of * share * (1 - share))


def test_requests_are_shared_by_weight_and_go_on_by_weight() -> None:
    random.seed(5)
    shares = [share("a", 90), share("b", 9), share("c", 1)]
    orders = [names(split.order(shares)) for _ in range(4000)]
    first = Counter(order[0] for order in orders)
    for name, part in (("a", 0.9), ("b", 0.09), ("c", 0.01)):
        assert within(first[name], part, 4000), first
    after_a = Counter(order[1] for order in orders if order[0] == "a")
    assert within(after_a["b"], 0.9, first["a"]), after_a


@pytest.mark.parametrize("model", ["chat", "x"])
def test_keys_are_shared_by_weight(model: str) -> None:
    shares = [share("a", 3), share("b", 1)]
    seeded = [
        Share(each.name, each.target, each.weight, 0, seed_of(model, each.name)) for each in shares
    ]
    first = Counter(names(split.order(seeded, key))[0] for key in KEYS)
    assert within(first["a"], 0.75, len(KEYS)), first


def test_the_splits_of_two_routes_do_not_depend_on_each_other() -> None:
    def of(model: str) -> list[bool]:
        shares = [share("a"), share("b")]
        seeded = [
            Share(each.name, each.target, 1.0, 0, seed_of(model, each.name)) for each in shares
        ]
        return [names(split.order(seeded, key))[0] == "a" for key in KEYS]

    same = sum(one == other for one, other in zip(of("chat"), of("mail"), strict=True))
    assert within(same, 0.5, len(KEYS))


_FIVE = [share(str(number)) for number in range(5)]


@given(
    key=st.text(min_size=1, max_size=40),
    weights=st.lists(st.floats(0.01, 100), min_size=2, max_size=5),
    more=st.floats(1.0, 10.0),
)
@settings(max_examples=60, deadline=None)
def test_a_key_stays_and_moves_only_to_what_grew(
    key: str, weights: list[float], more: float
) -> None:
    shares = [replace(each, weight=weight) for each, weight in zip(_FIVE, weights, strict=False)]
    order = names(split.order(shares, key))
    assert names(split.order(list(reversed(shares)), key)) == order
    # Without its first target a key goes on to the next one, and nothing else changes.
    assert names(split.order([each for each in shares if each.name != order[0]], key)) == order[1:]
    grown = [replace(shares[0], weight=weights[0] * more), *shares[1:]]
    after = names(split.order(grown, key))[0]
    assert after in (order[0], "0")


def test_priorities_come_first_and_what_cannot_answer_comes_last_or_never() -> None:
    own, hosted, spare = share("own"), share("hosted", priority=1), share("spare", 0)
    assert names(split.order([hosted, spare, own])) == ["own", "hosted"]
    bad = own.target.backends[0]
    bad.failed(clock.monotonic_s(), away=False)
    assert names(split.order([own, hosted])) == ["hosted", "own"]
    bad.failed(clock.monotonic_s() + 1, away=True)
    assert names(split.order([own, hosted])) == ["hosted"]


async def test_a_table_with_targets_shares_the_replicas_and_keeps_counts(tmp_path: Path) -> None:
    a = route(URL, deployment_id="dep_a", model="a")
    b = route("http://127.0.0.1:10", deployment_id="dep_b", model="b")
    targets = [RouteTarget(model="a", weight=9), RouteTarget(model="b"), RouteTarget(model="gone")]
    both = route(
        model="both", deployment_id="rte_1", targets=targets, policy="fastest", timeouts=a.timeouts
    )
    held = TableHolder(tmp_path / "routes" / "table.json", tmp_path / "keys")
    publish(tmp_path, [both, a, b])
    await held.refresh()
    whole, plain = held.current.routes["prj_a", "both"], held.current.routes["prj_a", "a"]
    assert names(each.target for each in whole.shares) == ["a", "b"]
    first = whole.shares[0].target
    assert first.backends == plain.backends
    assert (first.route.model, first.route.policy, first.route.upstream_model) == (
        "both",
        "fastest",
        CHAT,
    )
    assert plain.route.policy == "p2c"
    first.traffic.requests = 7
    assert plain.traffic.requests == 0
    publish(tmp_path, [both, a], version=2)
    await held.refresh()
    whole = held.current.routes["prj_a", "both"]
    assert whole.shares[0].target.traffic.requests == 7
    assert whole.part("dep_a").own
    assert not whole.part("dep_b").own


async def test_the_cheapest_target_comes_first_and_an_own_machine_before_it(
    tmp_path: Path,
) -> None:
    def priced(model: str, usd: float | None) -> Route:
        price = Price(input_usd_per_million_tokens=usd, output_usd_per_million_tokens=2.0)
        return route(
            URL, model=model, deployment_id=f"dep_{model}", price=None if usd is None else price
        )

    served = [priced("dear", 9.0), priced("cheap", 0.5), priced("own", None), priced("idle", 0.0)]
    weights = {"dear": 90.0, "idle": 0.0}
    targets = [
        RouteTarget(model=each.model, weight=weights.get(each.model, 1.0)) for each in served
    ]
    chat = route(model="chat", deployment_id="rte_1", targets=targets, policy="cheapest")
    mail = route(model="mail", deployment_id="rte_2", targets=targets)
    held = TableHolder(tmp_path / "routes" / "table.json", tmp_path / "keys")
    publish(tmp_path, [chat, mail, *served])
    await held.refresh()

    def order(model: str) -> list[str]:
        return names(split.order(held.current.routes["prj_a", model].shares))

    assert {tuple(order("chat")) for _ in range(20)} == {("own", "cheap", "dear")}
    assert Counter(order("mail")[0] for _ in range(40)).most_common(1)[0][0] == "dear"
