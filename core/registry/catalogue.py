"""The shipped catalogue of models: what is known of each, its names and its prices."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.kernel.errors import NotFound
from core.registry.catalogue_index import Index

DATA = Path(__file__).parent / "data"


@cache
def models() -> pd.DataFrame:
    """A row a canonical model; see `docs/identity.md`."""
    return pd.read_parquet(DATA / "catalogue.parquet", dtype_backend="numpy_nullable")


@cache
def names() -> pd.DataFrame:
    """Every published name with the model it means, or None, and the rule that decided."""
    frame = pd.read_parquet(DATA / "names.parquet")
    known = frame["model_id"].astype(object)
    return frame.assign(model_id=known.where(known.notna(), None))


@cache
def prices() -> pd.DataFrame:
    """What hosts ask for a model's tokens, USD per million."""
    return pd.read_parquet(DATA / "prices.parquet", dtype_backend="numpy_nullable")


def entry(model_id: str) -> dict[str, Any]:
    """All that the catalogue says of one model, by column; None where it is silent.

    Raises:
        NotFound: There is no such model; names the nearest.
    """
    found = _positions().get(model_id.strip().lower())
    if found is None:
        near = difflib.get_close_matches(model_id.lower(), _positions(), n=3, cutoff=0.6)
        raise NotFound(
            f"The catalogue has no model {model_id!r}.",
            remedy=f"The nearest: {', '.join(near)}." if near else "Search the catalogue for it.",
        )
    row = models().iloc[found].to_dict()
    return {name: _plain(value) for name, value in row.items()}


def has(model_id: str) -> bool:
    """Whether the catalogue has a model of this canonical id."""
    return model_id.lower() in _positions()


def id_on_hub(hub_id: str) -> str | None:
    """The model whose weights a repository of Hugging Face holds, in any case; None: not known."""
    return _by_hub_id().get(hub_id.strip().lower())


def id_of_name(name: str) -> str | None:
    """The model that a published name means wherever it stands, in any case; None: not known."""
    return _by_name().get(name.strip().lower())


def names_of(model_id: str) -> pd.DataFrame:
    """The names that a model goes by, each with its source and the rule that decided."""
    return names()[names()["model_id"] == model_id]


def prices_of(model_id: str) -> pd.DataFrame:
    """What each host asks for a model's tokens, the cheapest input first."""
    found = prices()[prices()["model_id"] == model_id]
    return found.sort_values(["usd_per_million_input", "usd_per_million_output"], kind="stable")


@cache
def _positions() -> dict[str, int]:
    return {model_id: position for position, model_id in enumerate(models()["id"])}


@cache
def _by_hub_id() -> dict[str, str]:
    known = models()[["hub_id", "id"]].dropna()
    return {hub_id.lower(): model_id for hub_id, model_id in known.itertuples(index=False)}


@cache
def _by_name() -> dict[str, str]:
    found: dict[str, set[str | None]] = {}
    for name, model_id in names()[["name", "model_id"]].itertuples(index=False):
        found.setdefault(name.lower(), set()).add(model_id)
    return {
        name: model_id
        for name, ids in found.items()
        if len(ids) == 1 and (model_id := next(iter(ids))) is not None
    }


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if value is pd.NA or value is None else value


def model_of() -> dict[tuple[str, str, str], str | None]:
    """The model of each published name, by (name, organisation, source)."""
    rows = names()[["name", "organisation", "source", "model_id"]].itertuples(index=False)
    return {(name, organisation, source): model for name, organisation, source, model in rows}


@cache
def index() -> Index:
    """The shipped catalogue, ready to be searched; made once, in about a second."""
    return Index(models(), names(), prices())
