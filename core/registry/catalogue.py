"""The shipped catalogue of models: what is known of each, its names and its prices."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

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


def model_of() -> dict[tuple[str, str, str], str | None]:
    """The model of each published name, by (name, organisation, source)."""
    rows = names()[["name", "organisation", "source", "model_id"]].itertuples(index=False)
    return {(name, organisation, source): model for name, organisation, source, model in rows}


@cache
def index() -> Index:
    """The shipped catalogue, ready to be searched; made once, in about a second."""
    return Index(models(), names(), prices())
