"""What the registry knows of the models on the boards, a row a canonical model."""

from __future__ import annotations

from functools import lru_cache

import pandas as pd

from core.leaderboards.ranking import FACTS
from core.registry import catalogue

# Input tokens for each output token in the one price that models are compared by; the ratio that
# Artificial Analysis uses. Cached input is not counted.
BLEND = 3.0


@lru_cache(maxsize=1)
def facts() -> pd.DataFrame:
    """`ranking.FACTS` by model id; the price is that of the cheapest provider."""
    table = catalogue.models().set_index("id")
    table["usd_per_million_tokens"] = cheapest(catalogue.prices()).reindex(table.index)
    return table[[*FACTS, "hub_id"]]


def cheapest(prices: pd.DataFrame) -> pd.Series:
    """The lowest blended price of each model, in USD per million tokens; free offers do not count.

    A price of zero is an offer on terms (a trial, a rate limit), not what a million tokens cost.
    """
    blended = BLEND * prices["usd_per_million_input"] + prices["usd_per_million_output"]
    paid = (blended / (BLEND + 1)).where(blended > 0)
    return paid.groupby(prices["model_id"]).min()
