"""The catalogue of models: the shipped one, with what was fetched since and applied."""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.kernel.errors import NotFound
from core.kernel.settings import settings
from core.registry import catalogue_overlay
from core.registry.catalogue_index import Index
from core.registry.catalogue_tables import OF_THE_HUB, Tables, meaning

DATA = Path(__file__).parent / "data"


def folder() -> Path:
    """Where applied refreshes of the catalogue lie, a file a source."""
    return settings().data_dir / "catalogue"


def tables() -> Tables:
    """The catalogue now; made anew only when a refresh was applied or taken back."""
    return _tables(_files())


def version() -> int:
    """Of the catalogue; differs whenever it does."""
    return hash(_files())


def shipped() -> Tables:
    """The catalogue as it came with Bud."""
    return _tables(())


def with_file(path: Path, *, instead_of: Path) -> Tables:
    """The catalogue as it would be with one more file, in the place of another."""
    others = [each for each, _ in _files() if each != instead_of]
    return catalogue_overlay.applied(shipped(), [*others, path])


def _files() -> tuple[tuple[Path, int], ...]:
    return tuple((path, path.stat().st_mtime_ns) for path in sorted(folder().glob("*.parquet")))


@lru_cache(maxsize=3)
def _tables(files: tuple[tuple[Path, int], ...]) -> Tables:
    if files:
        return catalogue_overlay.applied(shipped(), [path for path, _ in files])
    names = pd.read_parquet(DATA / "names.parquet")
    known = names["model_id"].astype(object)
    models = pd.read_parquet(DATA / "catalogue.parquet", dtype_backend="numpy_nullable")
    unknown = {name: pd.array([pd.NA] * len(models), kind) for name, kind in OF_THE_HUB.items()}
    return Tables(
        models.assign(**unknown),
        names.assign(model_id=known.where(known.notna(), None)),
        pd.read_parquet(DATA / "prices.parquet", dtype_backend="numpy_nullable"),
    )


def models() -> pd.DataFrame:
    """A row a canonical model; see `docs/identity.md`."""
    return tables().models


def names() -> pd.DataFrame:
    """Every published name with the model it means, or None, and the rule that decided."""
    return tables().names


def prices() -> pd.DataFrame:
    """What hosts ask for a model's tokens, USD per million."""
    return tables().prices


def entry(model_id: str) -> dict[str, Any]:
    """All that the catalogue says of one model, by column; None where it is silent.

    Raises:
        NotFound: There is no such model; names the nearest.
    """
    positions = tables().positions
    found = positions.get(model_id.strip().lower())
    if found is None:
        near = difflib.get_close_matches(model_id.lower(), positions, n=3, cutoff=0.6)
        raise NotFound(
            f"The catalogue has no model {model_id!r}.",
            remedy=f"The nearest: {', '.join(near)}." if near else "Search the catalogue for it.",
        )
    row = models().iloc[found].to_dict()
    return {name: _plain(value) for name, value in row.items()}


def has(model_id: str) -> bool:
    """Whether the catalogue has a model of this canonical id."""
    return model_id.lower() in tables().positions


def id_on_hub(hub_id: str) -> str | None:
    """The model whose weights a repository of Hugging Face holds, in any case; None: not known."""
    return tables().by_hub_id.get(hub_id.strip().lower())


def id_of_name(name: str) -> str | None:
    """The model that a published name means wherever it stands, in any case; None: not known."""
    return tables().by_name.get(name.strip().lower())


def recognised(name: str, organisation: str = "") -> str | None:
    """The model that a name means: as it was resolved before, or by all that the name says.

    A name that could mean several models means none; so does the date of a snapshot that the
    catalogue does not know.
    """
    if name.strip().lower() in tables().known_names:
        return id_of_name(name)
    return tables().by_meaning.get(meaning(name, organisation))


def is_moving(model_id: str) -> bool:
    """Whether it is a name that its maker moves from model to model, such as `…-latest`.

    No source of the catalogue says what such a name means at the time, so it stands for itself:
    its price is known, its weights are not. `gpt-4o-latest-2024-08-08` is a snapshot and is none.
    """
    return re.search(r"[/-]latest$", model_id) is not None


def names_of(model_id: str) -> pd.DataFrame:
    """The names that a model goes by, each with its source and the rule that decided."""
    return names()[names()["model_id"] == model_id]


def prices_of(model_id: str) -> pd.DataFrame:
    """What each host asks for a model's tokens, the cheapest input first."""
    found = prices()[prices()["model_id"] == model_id]
    return found.sort_values(["usd_per_million_input", "usd_per_million_output"], kind="stable")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return None if value is pd.NA or value is None else value


def model_of() -> dict[tuple[str, str, str], str | None]:
    """The model of each published name, by (name, organisation, source)."""
    rows = names()[["name", "organisation", "source", "model_id"]].itertuples(index=False)
    return {(name, organisation, source): model for name, organisation, source, model in rows}


def index() -> Index:
    """The catalogue, ready to be searched; made once, in about a second."""
    return tables().index
