"""Instances are rented whole; what has no price is not free; fast is cheap."""

from __future__ import annotations

import pytest

from core.hardware.schemas import Price
from core.simulation import costs
from core.simulation.schemas import Value


def _price(instance: str, devices: int, usd: float, region: str = "here") -> Price:
    return Price("h100_sxm", "aws", region, instance, devices, usd, "2026-07-20", "test")


EIGHT, ONE = _price("p5.48xlarge", 8, 5.0), _price("p5.4xlarge", 1, 6.0)


def test_a_part_of_an_instance_costs_all_of_it() -> None:
    rates = costs.Rates([EIGHT])
    assert rates.usd_per_hour(1) == rates.usd_per_hour(8) == 40.0
    assert rates.usd_per_hour(9) == 80.0


def test_the_cheapest_way_depends_on_how_many() -> None:
    rates = costs.Rates([EIGHT, ONE])
    assert [rates.usd_per_hour(devices) for devices in (1, 6, 7, 8)] == [6.0, 36.0, 40.0, 40.0]


def test_without_a_price_there_is_no_cost() -> None:
    assert costs.Rates([]).usd_per_hour(8) is None
    assert costs.per_million(None, 100.0) is None
    assert costs.per_million_band(None, Value(100, 80, 120)) is None


def test_a_million_tokens() -> None:
    # 1,000 tokens/s are 3.6 million an hour.
    assert costs.per_million(36.0, 1000.0) == pytest.approx(10.0)
    assert costs.per_million(36.0, 0.0) is None
    band = costs.per_million_band(36.0, Value(1000.0, 500.0, 2000.0))
    assert band is not None
    assert (band.low, band.mean, band.high) == pytest.approx((5.0, 10.0, 20.0))


def test_prices_are_chosen_by_instance_and_region() -> None:
    prices = [EIGHT, ONE, _price("p5.48xlarge", 8, 4.0, "there")]
    assert costs.chosen(prices, instance="p5.4xlarge").prices == [ONE]
    assert costs.chosen(prices, region="there").usd_per_hour(8) == 32.0
    assert costs.chosen(prices).usd_per_hour(8) == 32.0
    assert costs.given("h100_sxm", 2.5).usd_per_device_hour == 2.5
