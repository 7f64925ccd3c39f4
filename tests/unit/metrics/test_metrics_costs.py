"""The split of a machine's cost, with numbers computed by hand (see docs/prices.md)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.contracts.route_table import Price
from core.kernel.actor import Actor
from core.metrics import ingest, segments, services, store
from core.metrics.schemas import RequestCost, StoredFact, Window
from core.metrics.store import WritableStore
from core.prices import services as prices
from gateway import usage

NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
MINUTE = int(NOON.timestamp()) // 60
HOUR = Window(start=NOON, end=NOON + timedelta(hours=1))
# 3.60 USD/h is 0.001 USD a second.
USD_PER_HOUR = 3.6


def fact(name: str, at_s: float, duration_s: float, **values: object) -> StoredFact:
    defaults: dict[str, object] = {"project_id": "prj_a", "model": "m", "replica_id": "rep_1"}
    return StoredFact(
        request_id=name,
        started_unix_s=NOON.timestamp() + at_s,
        endpoint="/v1/chat/completions",
        duration_ms=duration_s * 1000,
        **(defaults | values),  # type: ignore[arg-type]
    )


@pytest.fixture
def metrics(data_dir: Path) -> Iterator[WritableStore]:
    opened = ingest.open_store(data_dir)
    store.set_writer(opened)
    yield opened
    store.set_writer(None)
    opened.close()


def add(metrics: WritableStore, data_dir: Path, *facts: StoredFact) -> None:
    segments.write(data_dir, f"seg-{facts[0].request_id}", facts)
    ingest.ingest_once(metrics, data_dir)


def up(metrics: WritableStore, minutes: int) -> None:
    metrics.add_uptime("this-machine", {MINUTE + n: 60.0 for n in range(minutes)})


def price(admin: Actor, usd_per_hour: float = USD_PER_HOUR, at: datetime = NOON) -> None:
    prices.set_machine_price(admin, usd_per_hour=usd_per_hour, valid_from=at)


def costs_by_request(admin: Actor, project_id: str = "prj_a") -> dict[str, float | None]:
    rows = services.requests(admin, project_id, HOUR)
    return {row.request_id: row.cost_usd for row in rows}


def test_without_a_price_cost_is_unknown_not_zero(
    metrics: WritableStore, data_dir: Path, admin: Actor
) -> None:
    up(metrics, 60)
    add(metrics, data_dir, fact("a", 0, 10))
    costs = services.costs(admin, "prj_a", HOUR)
    assert costs.requests_usd is None
    assert costs.unpriced_requests == 1
    assert costs.machines[0].total_usd is None
    assert services.request_cost(admin, "prj_a", "a").basis == "not set"


def test_a_lone_request_pays_for_its_own_seconds(
    metrics: WritableStore, data_dir: Path, admin: Actor
) -> None:
    price(admin)
    up(metrics, 60)
    add(metrics, data_dir, fact("a", 10, 10))
    costs = services.costs(admin, "prj_a", HOUR)
    assert costs.requests_usd == pytest.approx(0.010)
    machine = costs.machines[0]
    assert (machine.up_s, machine.busy_s) == (3600, 10)
    assert machine.busy_usd == pytest.approx(0.010)
    assert machine.idle_usd == pytest.approx(3.590)
    assert machine.total_usd == pytest.approx(3.60)
    found = services.request_cost(admin, "prj_a", "a")
    assert (found.cost_usd, found.basis) == (pytest.approx(0.010), "machine time")


def test_requests_at_the_same_time_share_the_busy_time(
    metrics: WritableStore, data_dir: Path, admin: Actor
) -> None:
    # a: 0-30 s, b: 20-40 s. Busy 40 s, requests 50 s: each second of a request is 0.8 s of it.
    price(admin)
    up(metrics, 1)
    add(metrics, data_dir, fact("a", 0, 30), fact("b", 20, 20, project_id="prj_b"))
    assert costs_by_request(admin) == {"a": pytest.approx(0.024)}
    assert costs_by_request(admin, "prj_b") == {"b": pytest.approx(0.016)}
    machine = services.costs(admin, "prj_a", HOUR).machines[0]
    assert machine.busy_usd == pytest.approx(0.040)
    assert machine.idle_usd == pytest.approx(0.020)


def test_a_long_request_pays_in_each_of_its_minutes(
    metrics: WritableStore, data_dir: Path, admin: Actor
) -> None:
    # a: 30-150 s lies in three minutes (30 + 60 + 30 s); b shares 60-120 s with it wholly.
    price(admin)
    up(metrics, 3)
    add(metrics, data_dir, fact("a", 30, 120), fact("b", 60, 60))
    assert costs_by_request(admin) == {"a": pytest.approx(0.090), "b": pytest.approx(0.030)}
    assert services.costs(admin, "prj_a", HOUR).machines[0].busy_s == pytest.approx(120)


def test_facts_that_come_later_change_the_split_of_their_minute_only(
    metrics: WritableStore, data_dir: Path, admin: Actor
) -> None:
    price(admin)
    up(metrics, 2)
    add(metrics, data_dir, fact("a", 0, 30), fact("next", 70, 10))
    assert costs_by_request(admin)["a"] == pytest.approx(0.030)
    add(metrics, data_dir, fact("b", 0, 30))
    assert costs_by_request(admin) == {
        "a": pytest.approx(0.015),
        "b": pytest.approx(0.015),
        "next": pytest.approx(0.010),
    }


def test_busy_shares_add_up_to_the_busy_cost(
    metrics: WritableStore, data_dir: Path, admin: Actor
) -> None:
    price(admin)
    up(metrics, 60)
    add(metrics, data_dir, *(fact(f"r{n}", n * 7.3, 3 + n % 90) for n in range(300)))
    costs = services.costs(admin, "prj_a", Window(start=NOON, end=NOON + timedelta(hours=2)))
    assert costs.requests_usd == pytest.approx(costs.machines[0].busy_usd)
    assert sum(group.cost_usd or 0 for group in costs.by_model) == pytest.approx(costs.requests_usd)
    series = services.series(admin, "prj_a", HOUR, group_by="model", bucket=60)
    assert sum(point.cost_usd or 0 for point in series.points) == pytest.approx(costs.requests_usd)


def test_a_price_counts_from_the_minute_it_was_set_in(
    metrics: WritableStore, data_dir: Path, admin: Actor
) -> None:
    price(admin, USD_PER_HOUR, at=NOON + timedelta(minutes=1, seconds=30))
    price(admin, 2 * USD_PER_HOUR, at=NOON + timedelta(minutes=3))
    up(metrics, 5)
    add(metrics, data_dir, *(fact(f"m{n}", n * 60, 10) for n in range(5)))
    assert costs_by_request(admin) == {
        "m0": None,
        "m1": pytest.approx(0.010),
        "m2": pytest.approx(0.010),
        "m3": pytest.approx(0.020),
        "m4": pytest.approx(0.020),
    }
    assert services.costs(admin, "prj_a", HOUR).unpriced_requests == 1


def test_a_price_taken_back_is_unknown_again(
    metrics: WritableStore, data_dir: Path, admin: Actor
) -> None:
    price(admin)
    prices.clear_machine_price(admin)
    assert prices.machine_price(admin) is None
    assert prices.machine_price(admin, at=NOON + timedelta(seconds=1)) is not None


def test_a_token_price_wins_over_machine_time(
    metrics: WritableStore, data_dir: Path, admin: Actor
) -> None:
    price(admin)
    up(metrics, 1)
    add(metrics, data_dir, fact("a", 0, 10, cost_usd=0.5), fact("b", 20, 10))
    assert costs_by_request(admin) == {"a": 0.5, "b": pytest.approx(0.010)}
    assert services.costs(admin, "prj_a", HOUR).requests_usd == pytest.approx(0.510)
    assert services.request_cost(admin, "prj_a", "a").basis == "token price"


def test_a_request_that_reached_no_replica_costs_nothing_and_is_not_unpriced(
    metrics: WritableStore, data_dir: Path, admin: Actor
) -> None:
    price(admin)
    up(metrics, 1)
    refused = fact("a", 0, 1, replica_id="", error_class="authentication", status=401)
    add(metrics, data_dir, refused)
    costs = services.costs(admin, "prj_a", HOUR)
    assert (costs.requests_usd, costs.unpriced_requests) == (None, 0)
    assert costs.machines[0].busy_s == 0


def test_work_done_while_the_app_was_down_still_counts_as_busy(
    metrics: WritableStore, data_dir: Path, admin: Actor
) -> None:
    # No heartbeat in the second minute, but a request was worked on for 10 s.
    price(admin)
    up(metrics, 1)
    add(metrics, data_dir, fact("a", 60, 10))
    machine = services.costs(admin, "prj_a", HOUR).machines[0]
    assert (machine.up_s, machine.busy_s) == (70, 10)
    assert machine.idle_usd == pytest.approx(0.060)


def test_uptime_of_a_minute_never_exceeds_it(metrics: WritableStore, admin: Actor) -> None:
    for _ in range(3):
        metrics.add_uptime("this-machine", {MINUTE: 25.0})
    assert services.costs(admin, "prj_a", HOUR).machines[0].up_s == 60


def test_members_see_their_costs_but_not_the_machine(
    metrics: WritableStore, data_dir: Path, admin: Actor
) -> None:
    price(admin)
    up(metrics, 1)
    add(metrics, data_dir, fact("a", 0, 10))
    member = Actor("usr_m", "m@example.org", "ten_default", "member", {"prj_a": "member"})
    costs = services.costs(member, "prj_a", HOUR)
    assert costs.requests_usd == pytest.approx(0.010)
    assert costs.machines == []


def test_the_estimate_is_an_upper_bound_of_the_share(
    metrics: WritableStore, data_dir: Path, admin: Actor
) -> None:
    price(admin)
    up(metrics, 1)
    add(metrics, data_dir, fact("a", 0, 30), fact("b", 20, 20))
    estimate = services.estimate_cost(
        admin, "prj_a", "m", duration_ms=30_000, input_tokens=1, output_tokens=1
    )
    assert (estimate.cost_usd, estimate.basis) == (pytest.approx(0.030), "machine time")
    share = services.request_cost(admin, "prj_a", "a").cost_usd
    assert share is not None
    assert share < 0.030


def test_the_estimate_uses_token_prices_first(data_dir: Path, admin: Actor) -> None:
    unset = services.estimate_cost(
        admin, "prj_a", "m", duration_ms=10, input_tokens=1, output_tokens=1
    )
    assert (unset.cost_usd, unset.basis) == (None, "not set")
    prices.set_token_price(
        admin,
        "prj_a",
        "m",
        input_usd_per_million_tokens=1.0,
        output_usd_per_million_tokens=4.0,
    )
    found = services.estimate_cost(
        admin, "prj_a", "m", duration_ms=10, input_tokens=1000, output_tokens=500
    )
    assert (found.cost_usd, found.basis) == (pytest.approx(0.003), "token price")


@pytest.mark.parametrize(
    ("cached_price", "cached_tokens", "usd"),
    [(0.1, 800, 0.00228), (None, 800, 0.003), (0.1, 0, 0.003), (0.0, 1000, 0.002)],
)
def test_the_estimate_counts_cached_tokens_as_the_gateway_does(
    data_dir: Path, admin: Actor, cached_price: float | None, cached_tokens: int, usd: float
) -> None:
    prices.set_token_price(
        admin,
        "prj_a",
        "m",
        input_usd_per_million_tokens=1.0,
        output_usd_per_million_tokens=4.0,
        cached_usd_per_million_tokens=cached_price,
    )
    estimate = services.estimate_cost(
        admin,
        "prj_a",
        "m",
        duration_ms=10,
        input_tokens=1000,
        output_tokens=500,
        cached_tokens=cached_tokens,
    )
    assert (estimate.cost_usd, estimate.basis) == (pytest.approx(usd), "token price")
    billed = usage.cost_usd(
        Price(
            input_usd_per_million_tokens=1.0,
            output_usd_per_million_tokens=4.0,
            cached_usd_per_million_tokens=cached_price,
        ),
        usage.Usage(
            prompt_tokens=1000,
            completion_tokens=500,
            prompt_tokens_details=usage.PromptDetails(cached_tokens=cached_tokens),
        ),
    )
    assert billed == pytest.approx(usd)


def test_the_estimate_of_a_request_without_token_counts(
    metrics: WritableStore, data_dir: Path, admin: Actor
) -> None:
    # What broke off on a replica took its time; what never began may have reached no machine.
    price(admin)
    up(metrics, 1)
    prices.set_token_price(
        admin, "prj_a", "m", input_usd_per_million_tokens=1.0, output_usd_per_million_tokens=4.0
    )

    def estimate(*, began: bool) -> RequestCost:
        return services.estimate_cost(
            admin,
            "prj_a",
            "m",
            duration_ms=10_000,
            input_tokens=None,
            output_tokens=None,
            began=began,
        )

    add(
        metrics,
        data_dir,
        fact("broke off", 0, 10, error_class="upstream_broke", status=200),
        fact("refused", 20, 10, replica_id="", error_class="no_replica", status=503),
    )
    assert costs_by_request(admin) == {"broke off": pytest.approx(0.010), "refused": None}
    assert estimate(began=True) == RequestCost(cost_usd=0.010, basis="machine time")
    assert estimate(began=False) == RequestCost(cost_usd=None, basis="not known yet")
