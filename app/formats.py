"""How numbers are shown to a person: always with a unit, and "—" for what is not known."""

from __future__ import annotations

import math
from datetime import datetime

from core.kernel import clock

NONE = "—"

_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_COUNT_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def size(size_bytes: float | None) -> str:
    """Bytes in binary units: `93.8 MiB`."""
    if size_bytes is None:
        return NONE
    value, unit = float(size_bytes), 0
    while abs(value) >= 1024 and unit < len(_BINARY_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return (
        f"{value:.0f} {_BINARY_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_BINARY_UNITS[unit]}"
    )


def ms(duration_ms: float | None) -> str:
    """Milliseconds: `48 ms`, `1.25 s`, `2 min 5 s`."""
    if duration_ms is None:
        return NONE
    if duration_ms < 10:
        return f"{duration_ms:.1f} ms"
    if duration_ms < 1000:
        return f"{duration_ms:.0f} ms"
    return duration(duration_ms / 1000)


def duration(duration_s: float | None) -> str:
    """Seconds: `4.2 s`, `2 min 5 s`, `3 h 10 min`, `2 d 4 h`."""
    if duration_s is None:
        return NONE
    if duration_s < 10:
        return f"{duration_s:.1f} s"
    whole = round(duration_s)
    if whole < 60:
        return f"{whole} s"
    for big_s, big, small_s, small in ((60, "min", 1, "s"), (3600, "h", 60, "min")):
        if whole < big_s * (60 if big == "min" else 24):
            return f"{whole // big_s} {big} {whole % big_s // small_s} {small}"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def count(number: float | None) -> str:
    """A count without a unit of its own: `1,234`."""
    return NONE if number is None else f"{number:,.0f}"


def short_count(number: float | None, unit: str = "") -> str:
    """A large count: `134.5M`, `1.5B`; as model sizes and token totals are written."""
    if number is None:
        return NONE
    for factor, letter in _COUNT_UNITS:
        if number >= factor:
            text = f"{number / factor:.3g}" if number < 100 * factor else f"{number / factor:.0f}"
            return f"{text}{letter} {unit}".strip()
    return f"{number:,.0f} {unit}".strip()


def requests_rate(per_minute: float) -> str:
    """A rate of requests, over a time that sees at least one: `3.2 a minute`, `11 a day`."""
    for minutes, unit in ((1, "a minute"), (60, "an hour")):
        if per_minute * minutes >= 1:
            return f"{_one_decimal(per_minute * minutes)} {unit}"
    return f"{_one_decimal(per_minute * 1440)} a day"


def _one_decimal(number: float) -> str:
    return f"{number:,.1f}".removesuffix(".0")


def tokens(number: float | None) -> str:
    """Tokens: `8,192 tokens`."""
    return NONE if number is None else f"{number:,.0f} token{'' if number == 1 else 's'}"


def rate(number: float | None) -> str:
    """A rate whose unit stands in its label: `41.7`."""
    return NONE if number is None else f"{number:,.1f}"


def tokens_per_s(rate: float | None) -> str:
    """A generation rate: `41.7 tokens/s`."""
    return NONE if rate is None else f"{rate:,.1f} tokens/s"


def usd(amount_usd: float | None) -> str:
    """US dollars; None means that no price is set, which is never shown as $0."""
    if amount_usd is None:
        return NONE
    sign, amount = ("-" if amount_usd < 0 else ""), abs(amount_usd)
    if amount == 0 or amount >= 1:
        return f"{sign}${amount:,.2f}"
    if amount >= 0.01:
        return f"{sign}${amount:.4f}"
    # Two digits that count, written out: a person reads $0.000023 and not $2.3e-05.
    return f"{sign}${amount:.{1 - math.floor(math.log10(amount))}f}"


def percent(share: float | None) -> str:
    """A share of 1: `12.5%`."""
    return NONE if share is None else f"{share * 100:.1f}%"


def ago(moment: datetime | None) -> str:
    """How long ago: `just now`, `5 min ago`, `3 d ago`."""
    if moment is None:
        return NONE
    age_s = (clock.now() - moment).total_seconds()
    if age_s < 5:
        return "just now"
    for limit_s, unit_s, unit in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h")):
        if age_s < limit_s:
            return f"{int(age_s // unit_s)} {unit} ago"
    return f"{int(age_s // 86400)} d ago"


def when(moment: datetime | None) -> str:
    """A moment in UTC: `2026-11-24 08:15:02 UTC`."""
    return NONE if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S UTC")
