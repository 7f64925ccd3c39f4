"""What callers are told when a limit refuses them, and whether waiting helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.contracts.route_table import ApiKey, Limit, Price, Route
from gateway.body import Parsed
from gateway.errors import GatewayError
from gateway.limits.gate import LimitGate, _refused
from gateway.limits.limiter import Refusal

KEY = ApiKey(id="key_a", sha256="", project_id="prj_a", user_id="usr_a")


@pytest.mark.parametrize(
    ("asked", "kind", "told"),
    [
        (("requests", "minute", 0), "rate_limited",
         "The limit key.requests_per_minute of 0 requests lets nothing through."),
        (("concurrent", "", 0), "rate_limited", "of 0 requests at once lets nothing through."),
        (("tokens", "day", 0), "rate_limited", "of 0 tokens lets nothing through."),
        (("usd", "month", 0), "budget_exceeded", "of 0 USD lets nothing through."),
        (("tokens", "minute", 50), "rate_limited",
         "may take 101 tokens, more than the whole limit key.tokens_per_minute of 50 tokens, so "
         "waiting does not help. Shorten it, or ask for fewer tokens (max_tokens)"),
        (("usd", "day", 0.5), "budget_exceeded",
         "may take 101 USD, more than the whole limit key.usd_per_day of 0.5 USD"),
    ],
)  # fmt: skip
async def test_where_waiting_never_helps_no_time_to_come_back_is_given(
    tmp_path: Path, asked: Any, kind: str, told: str
) -> None:
    gate = LimitGate(tmp_path)
    metric, window, amount = asked
    limit = Limit(
        project_id="prj_a", level="key", subject="key_a", metric=metric, window=window,
        amount=amount,
    )  # fmt: skip
    gate.use([limit])
    price = Price(input_usd_per_million_tokens=1e6, output_usd_per_million_tokens=1e6)
    served = Route(
        model="tiny", project_id="prj_a", deployment_id="dep_a", upstream_model="tiny",
        capabilities=["chat"], context_tokens=8192, state="ready", price=price,
    )  # fmt: skip
    body = Parsed(b"    ", "tiny", stream=False, stream_options=None, max_tokens=100)
    try:
        with pytest.raises(GatewayError) as refused:
            await gate.admit(KEY, served, body)
    finally:
        await gate.close()
    error = refused.value
    assert (error.error_class, error.status, error.retry_after_s) == (kind, 429, None)
    assert told in error.message
    assert "higher limit" in error.message


async def test_a_budget_of_0_stops_what_costs_nothing_too(tmp_path: Path) -> None:
    gate = LimitGate(tmp_path)
    gate.use([Limit(project_id="prj_a", level="key", subject="key_a", metric="usd", window="day",
                    amount=0.0)])  # fmt: skip
    unpriced = Route(
        model="tiny", project_id="prj_a", deployment_id="dep_a", upstream_model="tiny",
        capabilities=["chat"], context_tokens=8192, state="ready",
    )  # fmt: skip
    try:
        with pytest.raises(GatewayError, match="of 0 USD lets nothing through"):
            await gate.admit(KEY, unpriced, Parsed(b"", "tiny", stream=False, stream_options=None))
    finally:
        await gate.close()


def test_hosts_that_share_a_limit_tell_what_passes_with_time_and_what_does_not() -> None:
    shared = Limit(
        project_id="prj_a", level="key", subject="key_a", metric="tokens", window="minute",
        amount=50,
    )  # fmt: skip
    refusal = Refusal(shared, 7.5, too_large=False)
    assert _refused(refusal, 51, 0.0).retry_after_s is None
    passes = _refused(refusal, 50, 0.0)
    assert passes.retry_after_s == 8
    assert passes.message.endswith("is reached. Try again in 8 s.")
