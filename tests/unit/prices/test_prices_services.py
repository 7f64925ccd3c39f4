"""Dated prices: set, looked up, taken back, refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.kernel import audit, events
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, PermissionDenied
from core.prices import services as prices

MONDAY = datetime(2026, 11, 2, tzinfo=UTC)
DAY = timedelta(days=1)


def set_tokens(admin: Actor, output: float, at: datetime, project_id: str = "prj_a") -> None:
    prices.set_token_price(
        admin,
        project_id,
        "tiny",
        input_usd_per_million_tokens=1.0,
        output_usd_per_million_tokens=output,
        valid_from=at,
    )


def test_a_price_starts_not_set(data_dir: Path, admin: Actor) -> None:
    assert prices.token_price(admin, "prj_a", "tiny") is None
    assert prices.machine_price(admin) is None
    assert prices.token_prices(admin, "prj_a") == []


def test_each_moment_has_the_price_that_held_then(data_dir: Path, admin: Actor) -> None:
    set_tokens(admin, 2.0, MONDAY)
    set_tokens(admin, 3.0, MONDAY + 2 * DAY)

    def output_at(moment: datetime) -> float | None:
        price = prices.token_price(admin, "prj_a", "tiny", moment)
        return price.output_usd_per_million_tokens if price else None

    assert output_at(MONDAY - DAY) is None
    assert output_at(MONDAY) == 2.0
    assert output_at(MONDAY + DAY) == 2.0
    assert output_at(MONDAY + 2 * DAY) == 3.0
    assert len(prices.token_price_history(admin, "prj_a", "tiny")) == 2
    assert [price.model for price in prices.token_prices(admin, "prj_a")] == ["tiny"]


def test_prices_of_another_project_are_not_seen(data_dir: Path, admin: Actor) -> None:
    set_tokens(admin, 2.0, MONDAY, "prj_a")
    assert prices.token_price(admin, "prj_b", "tiny") is None
    member = Actor("usr_b", "b@example.org", "ten_default", "member", {"prj_b": "member"})
    with pytest.raises(PermissionDenied):
        prices.token_price(member, "prj_a", "tiny")


def test_a_token_price_can_be_taken_back(data_dir: Path, admin: Actor) -> None:
    set_tokens(admin, 2.0, MONDAY)
    prices.set_token_price(
        admin,
        "prj_a",
        "tiny",
        input_usd_per_million_tokens=None,
        output_usd_per_million_tokens=None,
    )
    assert prices.token_price(admin, "prj_a", "tiny") is None
    assert prices.token_price(admin, "prj_a", "tiny", MONDAY) is not None


def test_zero_is_a_price_and_not_unset(data_dir: Path, admin: Actor) -> None:
    set_tokens(admin, 0.0, MONDAY)
    price = prices.token_price(admin, "prj_a", "tiny")
    assert price is not None
    assert price.output_usd_per_million_tokens == 0.0


@pytest.mark.parametrize(
    ("given", "cached"),
    [
        ((1.0, None), None),
        ((None, 1.0), None),
        ((None, None), 0.5),
        ((-1.0, 1.0), None),
        ((float("nan"), 1.0), None),
        ((float("inf"), 1.0), None),
        ((2e6, 1.0), None),
    ],
)
def test_wrong_token_prices_are_refused(
    data_dir: Path,
    admin: Actor,
    given: tuple[float | None, float | None],
    cached: float | None,
) -> None:
    with pytest.raises(InvalidInput):
        prices.set_token_price(
            admin,
            "prj_a",
            "tiny",
            input_usd_per_million_tokens=given[0],
            output_usd_per_million_tokens=given[1],
            cached_usd_per_million_tokens=cached,
        )


def test_machine_price_from_power_and_purchase(data_dir: Path, admin: Actor) -> None:
    # 250 W at 0.32 USD/kWh is 0.08 USD/h; 2,628 USD over three years (26,280 h) is 0.10 USD/h.
    price = prices.set_machine_price(
        admin, watts=250, usd_per_kwh=0.32, purchase_usd=2628, lifetime_hours=26280
    )
    assert price.usd_per_hour == pytest.approx(0.18)
    found = prices.machine_price(admin)
    assert found is not None
    assert (found.watts, found.purchase_usd) == (250, 2628)


def test_electricity_alone_is_a_machine_price() -> None:
    assert prices.machine_usd_per_hour(watts=100, usd_per_kwh=0.3) == pytest.approx(0.03)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"watts": 100.0},
        {"usd_per_hour": 1.0, "watts": 100.0},
        {"usd_per_hour": -0.1},
        {"watts": 100.0, "usd_per_kwh": 0.3, "purchase_usd": 1000.0},
        {"watts": -100.0, "usd_per_kwh": 0.3},
    ],
)
def test_wrong_machine_prices_are_refused(
    data_dir: Path, admin: Actor, given: dict[str, float]
) -> None:
    with pytest.raises(InvalidInput):
        prices.set_machine_price(admin, **given)
    assert prices.machine_price_history(admin) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"usd_per_hour": 1e9},
            "USD per hour must be between 0 and 1,000,000. (got: 1,000,000,000)",
        ),
        ({"usd_per_hour": -1.0}, "USD per hour must be between 0 and 1,000,000. (got: -1)"),
        ({"watts": -0.5, "usd_per_kwh": 0.3}, "Power under load (W) must be between"),
    ],
)
def test_a_refused_price_is_named_as_its_field(
    data_dir: Path, admin: Actor, given: dict[str, float], said: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        prices.set_machine_price(admin, **given)
    assert said in str(refused.value)


def test_only_admins_set_prices(data_dir: Path, admin: Actor) -> None:
    member = Actor("usr_m", "m@example.org", "ten_default", "member", {"prj_a": "member"})
    with pytest.raises(PermissionDenied):
        set_tokens(member, 1.0, MONDAY)
    project_admin = Actor("usr_p", "p@example.org", "ten_default", "member", {"prj_a": "admin"})
    with pytest.raises(PermissionDenied):
        prices.set_machine_price(project_admin, usd_per_hour=1.0)
    set_tokens(project_admin, 1.0, MONDAY)
    prices.set_machine_price(admin, usd_per_hour=1.0)
    assert prices.machine_price(member) is not None
    outsider = Actor("usr_o", "o@example.org", "ten_default")
    with pytest.raises(PermissionDenied):
        prices.machine_price(outsider)
    elsewhere = Actor("usr_x", "x@example.org", "ten_other", "admin")
    assert prices.machine_price(elsewhere) is None


def test_a_change_is_audited_and_announced(data_dir: Path, admin: Actor) -> None:
    told: list[str] = []

    def listener() -> None:
        told.append("prices.changed")

    events.subscribe("prices.changed", listener)
    prices.set_machine_price(admin, usd_per_hour=0.5)
    set_tokens(admin, 1.0, MONDAY)
    events._subscribers["prices.changed"].remove(listener)
    assert len(told) == 2
    actions = [entry.action for entry in audit.entries(admin, None)]
    assert sorted(actions) == ["price.machine_set", "price.tokens_set"]


def test_forgetting_a_project_leaves_the_others(data_dir: Path, admin: Actor) -> None:
    set_tokens(admin, 1.0, MONDAY, "prj_a")
    set_tokens(admin, 1.0, MONDAY, "prj_b")
    assert prices.forget_project(admin, "prj_a") == 1
    assert prices.token_price(admin, "prj_a", "tiny") is None
    assert prices.token_price(admin, "prj_b", "tiny") is not None
