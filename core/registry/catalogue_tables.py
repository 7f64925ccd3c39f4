"""The three tables of a catalogue, and what is looked up in them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import pandas as pd

from core.registry.catalogue_index import Index
from core.registry.identity import parse

_Key = TypeVar("_Key")
# What only the hub says of a model; the shipped catalogue has none of it.
OF_THE_HUB = {"downloads": "Int64", "gated": "string", "hub_changed": "string"}


@dataclass(frozen=True, eq=False)
class Tables:
    """A catalogue.

    Attributes:
        models: A row a canonical model; see `docs/identity.md`.
        names: Every published name with the model it means, or None, and the rule that decided.
        prices: What hosts ask for a model's tokens, USD per million.
    """

    models: pd.DataFrame
    names: pd.DataFrame
    prices: pd.DataFrame

    @cached_property
    def positions(self) -> dict[str, int]:
        """The row of each model."""
        return {model_id: position for position, model_id in enumerate(self.models["id"])}

    @cached_property
    def by_hub_id(self) -> dict[str, str]:
        """The model of each repository of the hub, in lower case."""
        known = self.models[["hub_id", "id"]].dropna()
        return {hub_id.lower(): model_id for hub_id, model_id in known.itertuples(index=False)}

    @cached_property
    def by_name(self) -> dict[str, str]:
        """The model of each name, in lower case, that means the same wherever it stands."""
        rows = self.names[["name", "model_id"]].itertuples(index=False)
        return _unambiguous((name.lower(), model_id) for name, model_id in rows)

    @cached_property
    def known_names(self) -> frozenset[str]:
        """Every name, in lower case, also of those that no model is known by."""
        return frozenset(self.names["name"].str.lower())

    @cached_property
    def by_meaning(self) -> dict[tuple[str, ...], str]:
        """The model of what a name says, date included, where that is one."""
        rows = self.names[["name", "organisation", "model_id"]].itertuples(index=False)
        return _unambiguous(
            (meaning(name, organisation or ""), model_id)
            for name, organisation, model_id in rows
            if model_id is not None
        )

    @cached_property
    def index(self) -> Index:
        """Ready to be searched; made in about a second."""
        return Index(self.models, self.names, self.prices)


def meaning(name: str, organisation: str) -> tuple[str, ...]:
    """What a published name says: equal for names of one model, with its date or revision."""
    identity = parse(name, organisation)
    return (*identity.key, str(identity.snapshot or ""))


def _unambiguous(rows: Iterable[tuple[_Key, str | None]]) -> dict[_Key, str]:
    found: dict[_Key, set[str | None]] = {}
    for key, model_id in rows:
        found.setdefault(key, set()).add(model_id)
    return {
        key: model_id
        for key, ids in found.items()
        if len(ids) == 1 and (model_id := next(iter(ids))) is not None
    }
