"""What devices cost: instances are rented whole, so a few idle devices are paid for too."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.hardware.schemas import Price
from core.simulation.schemas import Offer, Outcome, Value

_SECONDS_PER_HOUR = 3600.0
_MILLION = 1e6


@dataclass(frozen=True)
class Rates:
    """The prices that may be paid for one kind of device; none at all is "not set"."""

    prices: Sequence[Price]

    def usd_per_hour(self, devices: int) -> float | None:
        """The cheapest way to have that many devices for an hour; None when no price is set."""
        return min((_total(price, devices) for price in self.prices), default=None)

    def offers(self, outcome: Outcome, output_share: float) -> tuple[Offer, ...]:
        """Every way to pay for the devices of `outcome`, cheapest first.

        `output_share` is the share of all tokens that are generated ones.
        """
        found = (_offer(price, outcome, output_share) for price in self.prices)
        return tuple(sorted(found, key=lambda each: (each.usd_per_hour, each.cloud, each.region)))


def given(accelerator_id: str, usd_per_gpu_hour: float) -> Price:
    """A price that the person asking gave, instead of those of the catalogue."""
    return Price(
        accelerator_id=accelerator_id,
        cloud="given",
        region="",
        instance="",
        devices=1,
        usd_per_device_hour=usd_per_gpu_hour,
        price_date="",
        source="given in the question",
    )


def chosen(prices: Iterable[Price], *, instance: str = "", region: str = "") -> Rates:
    """The prices of an instance type and a region; empty strings choose all."""
    return Rates(
        [
            price
            for price in prices
            if instance in ("", price.instance) and region in ("", price.region)
        ]
    )


def per_million(usd_per_hour: float | None, tokens_per_s: float) -> float | None:
    """USD for a million tokens; None without a price, or when nothing is generated."""
    if usd_per_hour is None or tokens_per_s <= 0:
        return None
    return usd_per_hour / _SECONDS_PER_HOUR / tokens_per_s * _MILLION


def per_million_band(usd_per_hour: float | None, tokens_per_s: Value) -> Value | None:
    """The same with bounds: what is fast is cheap, so that low and high change places."""
    mean = per_million(usd_per_hour, tokens_per_s.mean)
    low = per_million(usd_per_hour, tokens_per_s.high)
    high = per_million(usd_per_hour, tokens_per_s.low)
    if mean is None or low is None or high is None:
        return None
    return Value(mean, low, high)


def _instances(price: Price, devices: int) -> int:
    return math.ceil(devices / price.devices)


def _total(price: Price, devices: int) -> float:
    return _instances(price, devices) * price.devices * price.usd_per_device_hour


def _offer(price: Price, outcome: Outcome, output_share: float) -> Offer:
    instances = _instances(price, outcome.devices)
    usd_per_hour = _total(price, outcome.devices)
    output = outcome.tokens_per_s_per_gpu.mean * outcome.devices if outcome.fits else 0.0
    usd = per_million(usd_per_hour, output)
    return Offer(
        cloud=price.cloud,
        region=price.region,
        instance=price.instance,
        instances=instances,
        idle_devices=instances * price.devices - outcome.devices,
        usd_per_hour=usd_per_hour,
        usd_per_million_output_tokens=usd,
        usd_per_million_tokens=None if usd is None else usd * output_share,
        price_date=price.price_date,
        source=price.source,
    )
