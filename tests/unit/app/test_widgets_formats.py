"""Numbers carry units, and what is not known is never shown as a number."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from app import formats
from core.kernel import clock


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (98_362_432, "93.8 MiB"),
        (8 << 30, "8.0 GiB"),
        (3 << 50, "3072.0 TiB"),
        (None, "—"),
    ],
)
def test_sizes_are_in_binary_units(value: float | None, text: str) -> None:
    assert formats.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.42, "0.4 ms"),
        (48.4, "48 ms"),
        (1250, "1.2 s"),
        (61_000, "1 min 1 s"),
        (3 * 3_600_000 + 600_000, "3 h 10 min"),
        (50 * 3_600_000, "2 d 2 h"),
        (None, "—"),
    ],
)
def test_durations_grow_into_larger_units(value: float | None, text: str) -> None:
    assert formats.ms(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "—"),
        (0, "$0.00"),
        (12.345, "$12.35"),
        (0.0421, "$0.0421"),
        (0.00123, "$0.0012"),
        (0.0000042, "$0.0000042"),
        (-3.5, "-$3.50"),
    ],
)
def test_a_price_that_is_not_set_is_never_zero(value: float | None, text: str) -> None:
    assert formats.usd(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(999, "999"), (8192, "8.19k"), (134_515_008, "135M"), (1.5e9, "1.5B"), (None, "—")],
)
def test_large_counts_are_short(value: float | None, text: str) -> None:
    assert formats.short_count(value) == text


@pytest.mark.parametrize(
    ("per_minute", "text"),
    [
        (3.21, "3.2 a minute"),
        (0.5, "30 an hour"),
        (1 / 1440, "1 a day"),
        (0, "0 a day"),
    ],
)
def test_few_requests_are_counted_over_a_longer_time(per_minute: float, text: str) -> None:
    assert formats.requests_rate(per_minute) == text


def test_rates_counts_and_shares_carry_their_unit() -> None:
    assert formats.tokens_per_s(41.66) == "41.7 tokens/s"
    assert formats.tokens(1) == "1 token"
    assert formats.tokens(8192) == "8,192 tokens"
    assert formats.percent(0.125) == "12.5%"


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(seconds=1), "just now"),
        (timedelta(seconds=30), "30 s ago"),
        (timedelta(minutes=5), "5 min ago"),
        (timedelta(hours=7), "7 h ago"),
        (timedelta(days=3, hours=2), "3 d ago"),
    ],
)
def test_ages(age: timedelta, text: str) -> None:
    assert formats.ago(clock.now() - age) == text


@pytest.mark.parametrize(
    "show",
    [
        formats.size,
        formats.ms,
        formats.duration,
        formats.count,
        formats.short_count,
        formats.tokens,
        formats.rate,
        formats.tokens_per_s,
        formats.usd,
        formats.percent,
        formats.ago,
        formats.when,
    ],
)
def test_what_is_not_known_is_a_dash(show: Callable[[None], str]) -> None:
    assert show(None) == "—"
