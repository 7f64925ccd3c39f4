"""What a refresh of the catalogue would change, as a person can read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from core.registry.catalogue_files import LITELLM
from core.registry.catalogue_overlay import CHANGEABLE
from core.registry.catalogue_tables import Tables

COLUMNS = ["change", "what", "model_id", "host", "old", "new"]
# Prices of one host for one name of a model, in one list of prices.
_PRICE_KEY = ["model_id", "provider", "published_name", "list"]
_LISTS = {True: "LiteLLM", False: "models.dev"}
_PRICES = ["usd_per_million_input", "usd_per_million_output", "usd_per_million_cached_input"]


def difference(before: Tables, after: Tables) -> pd.DataFrame:
    """Every model, fact and price that differs.

    Returns:
        `COLUMNS`, new models first: `change` is added, changed or removed; `what` is `model`,
        `price` or the column of a fact; `old` and `new` are empty where there is none. Prices are
        USD per million tokens of input and output, with cached input where it is known.
    """
    found = [*_models(before, after), *_prices(before, after)]
    for column in CHANGEABLE:
        found += _facts(before.models, after.models, column)
    return pd.DataFrame(found, columns=COLUMNS).fillna("")


def _models(before: Tables, after: Tables) -> Iterator[tuple[str, ...]]:
    known = set(before.models["id"])
    for row in after.models[~after.models["id"].isin(known)].itertuples():
        facts = (row.organisation, _parameters(row.parameters), row.licence)
        about = ", ".join(str(fact) for fact in facts if not _is_missing(fact))
        yield ("added", "model", row.id, "", "", f"{row.name}: {about}")


def _parameters(count: object) -> object:
    return count if _is_missing(count) else f"{float(str(count)) / 1e9:.3g}B"


def _is_missing(value: object) -> bool:
    return bool(pd.isna(value))


def _prices(before: Tables, after: Tables) -> list[tuple[str, ...]]:
    texts = [_priced(each.prices) for each in (before, after)]
    both = texts[0].merge(texts[1], on=_PRICE_KEY, how="outer", suffixes=("_old", "_new"))
    both = both[both["text_old"].fillna("") != both["text_new"].fillna("")]
    return [
        (_change(old, new), "price", model_id, f"{provider} ({listed_by})", old, new)
        for model_id, provider, _, listed_by, old, new in both.fillna("").itertuples(index=False)
    ]


def _priced(prices: pd.DataFrame) -> pd.DataFrame:
    shown = [prices[column].map(lambda usd: f"{usd:.6g}", na_action="ignore") for column in _PRICES]
    text = shown[0].astype("string").str.cat(shown[1].astype("string"), " / ", na_rep="?")
    cached = (", cached " + shown[2].astype("string")).fillna("")
    listed_by = prices["source"].str.startswith((LITELLM, "LiteLLM")).map(_LISTS)
    found = prices.assign(text=text + cached, list=listed_by)[[*_PRICE_KEY, "text"]]
    # A host may list one name twice.
    return found.drop_duplicates(_PRICE_KEY)


def _facts(before: pd.DataFrame, after: pd.DataFrame, column: str) -> list[tuple[str, ...]]:
    """New models stand behind the others, which keep their order."""
    pairs = zip(before["id"], _texts(before[column]), _texts(after[column]), strict=False)
    return [
        (_change(old, new), column, model_id, "", old, new)
        for model_id, old, new in pairs
        if old != new
    ]


def _texts(column: pd.Series[Any]) -> list[str]:
    return [_text(value) for value in column.astype(object).to_list()]


def _text(value: object) -> str:
    if isinstance(value, np.ndarray):
        return ", ".join(value)
    if _is_missing(value):
        return ""
    return str(value) if not isinstance(value, bool) else "yes" if value else "no"


def _change(old: str, new: str) -> str:
    return "added" if not old else "changed" if new else "removed"
