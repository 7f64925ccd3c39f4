"""What is used of limits now: for the Gateway page and `bud limits list`."""

from __future__ import annotations

from collections.abc import Sequence

from core.contracts.route_table import Limit, LimitMetric
from core.kernel.settings import settings
from core.limits.schemas import LimitView
from gateway.limits import usage

UNITS: dict[LimitMetric, str] = {
    "requests": "requests",
    "tokens": "tokens",
    "concurrent": "requests at once",
    "usd": "USD",
}


def used_now(limits: Sequence[LimitView]) -> list[float | None]:
    """What this host has used of each: requests, tokens or USD; None while nothing was counted."""
    return usage.used_now(
        settings().data_dir,
        [
            Limit(
                project_id=limit.project_id,
                level=limit.level,
                subject=limit.subject,
                metric=limit.metric,
                window=limit.window,
                amount=limit.amount,
            )
            for limit in limits
        ],
    )


def told(limit: LimitView) -> str:
    """What a limit allows: `600 requests per minute`, `5 USD per day`, `8 requests at once`."""
    per = f" per {limit.window}" if limit.window else ""
    unit = UNITS[limit.metric]
    if limit.amount == 1:
        unit = unit.replace("requests", "request").replace("tokens", "token")
    return f"{limit.amount:,.15g} {unit}{per}"
