"""What the registry knows of the models on the boards, a row a canonical model."""

from __future__ import annotations

from functools import lru_cache

import pandas as pd

from core.leaderboards.ranking import FACTS
from core.registry import catalogue

# Input tokens for each output token in the one price that models are compared by; the ratio that
# Artificial Analysis uses. Cached input is not counted.
BLEND = 3.0


def facts() -> pd.DataFrame:
    """`ranking.FACTS` by model id; the price is that of the cheapest provider."""
    return _facts(catalogue.version())


@lru_cache(maxsize=1)
def _facts(_version: int) -> pd.DataFrame:
    table = catalogue.models().set_index("id")
    table["usd_per_million_tokens"] = cheapest(catalogue.prices()).reindex(table.index)
    return table[[*FACTS, "hub_id"]]


def cheapest(prices: pd.DataFrame) -> pd.Series:
    """The lowest blended price of each model, in USD per million tokens; free offers do not count.

    A price of zero is an offer on terms (a trial, a rate limit), not what a million tokens cost.
    """
    paid = blended(prices)
    return (
        paid[paid["usd_per_million_tokens"] > 0].groupby("model_id")["usd_per_million_tokens"].min()
    )


def blended(prices: pd.DataFrame) -> pd.DataFrame:
    """Prices with `usd_per_million_tokens`, of `BLEND` input tokens for each output token."""
    each = BLEND * prices["usd_per_million_input"] + prices["usd_per_million_output"]
    priced = prices.assign(usd_per_million_tokens=each / (BLEND + 1))
    return priced.sort_values("usd_per_million_tokens", kind="stable")
