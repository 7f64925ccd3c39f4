"""Which licence the card of a repository of Hugging Face names: `data/licences/cards.csv`."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache

from core.registry.licences import index
from core.registry.licences.texts import DATA


@dataclass(frozen=True, slots=True)
class Card:
    """What a card states of its licence.

    Attributes:
        licence: Its name or key, one that `by_id` knows.
        source: Where that stands.
    """

    licence: str
    source: str


def card(hub_id: str) -> Card | None:
    """What the card of a repository states, in any case; None: Bud has not read it."""
    return _cards().get(hub_id.lower())


def hub_ids() -> list[str]:
    """The repositories whose card Bud has read."""
    return [row["hub_id"] for row in _rows()]


@cache
def of_repository(hub_id: str) -> str | None:
    """The key of the licence that the card of a repository names; None: not known."""
    found = card(hub_id)
    return None if found is None else index.key_of(found.licence)


@cache
def _cards() -> dict[str, Card]:
    return {row["hub_id"].lower(): Card(row["licence"], row["source"]) for row in _rows()}


@cache
def _rows() -> list[dict[str, str]]:
    with (DATA / "cards.csv").open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))
