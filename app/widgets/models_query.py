"""What is asked of the catalogue, as it stands in the address: words, facets, ranges, order, page.

The address is the only place that holds it. A click changes the address, and everything shown is
read from it: so any view can be sent as a link, kept under a name, and opened again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

import streamlit as st

from core.registry import catalogue, licences
from core.registry.catalogue_index import UNKNOWN, Found

PAGE_ROWS = 50
BILLION = 1e9
# The parameter of each facet in the address, the facet of the index, and its title.
FACETS = {
    "maker": ("organisation", "Maker"),
    "out": ("modalities_out", "Gives"),
    "in": ("modalities_in", "Takes"),
    "weights": ("open_weights", "Open weights"),
    "licence": ("licence", "Licence"),
    "size": ("size", "Parameters"),
    "context": ("context", "Context, tokens"),
    "family": ("family", "Family"),
    "year": ("year", "Released"),
    "hosted": ("hosted", "Hosts"),
}
# Facets that are worked out from others: what a licence allows, its category, abilities.
VERDICT, CATEGORY, ABILITY = "verdict", "category", "can"
MARKED, TAG = "marked", "tag"
ABILITIES = ("tools", "reasoning", "vision")
TITLES = {name: title for name, (_, title) in FACETS.items()} | {
    VERDICT: "Licence allows the use",
    CATEGORY: "Licence category",
    ABILITY: "Can do",
}
# Title → sort of the index, and whether from the top.
SORTS: dict[str, tuple[str, bool | None]] = {
    "Best match": ("relevance", None),
    "Newest": ("release_date", True),
    "Largest": ("parameters", True),
    "Smallest": ("parameters", False),
    "Longest context": ("context_tokens", True),
    "Cheapest input": ("usd_per_million_input", False),
    "Cheapest output": ("usd_per_million_output", False),
    "Most hosts": ("hosts", True),
    "Name": ("name", False),
    "Maker": ("organisation", False),
}
# Widgets that are bound to the address themselves, and how their text there is read.
_WIDGETS: dict[str, Callable[[str], object]] = {
    "q": str,
    "use": str,
    "sort": str,
    "min_b": float,
    "max_b": float,
    "min_context": str,
    "max_usd": float,
}


@dataclass(frozen=True)
class Ranges:
    """Ends of ranges: billions of parameters, tokens, USD per million input tokens; None: open."""

    min_b: float | None
    max_b: float | None
    min_context: int | None
    max_usd: float | None

    @property
    def of_index(self) -> dict[str, tuple[float | None, float | None]]:
        """As the index takes them."""
        low, high = (None if end is None else end * BILLION for end in (self.min_b, self.max_b))
        found = {
            "parameters": (low, high),
            "context_tokens": (self.min_context, None),
            "usd_per_million_input": (None, self.max_usd),
        }
        return {name: ends for name, ends in found.items() if ends != (None, None)}


def chosen(name: str) -> list[str]:
    """The values of a facet that the address names."""
    return list(st.query_params.get_all(name))


def count_chosen() -> int:
    """How many values of facets are chosen."""
    return sum(len(chosen(name)) for name in (*TITLES, TAG, MARKED))


def choose(name: str, value: str, *, is_chosen: bool) -> None:
    """Choose a value of a facet, or take the choice back; from the first page on."""
    had = chosen(name)
    if is_chosen == (value in had):
        return
    wanted = [*had, value] if is_chosen else [each for each in had if each != value]
    st.query_params.pop(name, None)
    if wanted:
        st.query_params[name] = wanted
    first_page()


def clear() -> None:
    """Choose nothing; the words and the order stay."""
    for name in (*TITLES, TAG, MARKED):
        st.query_params.pop(name, None)
    first_page()


def first_page() -> None:
    """Back to the first page, because what is asked has changed."""
    st.query_params.pop("page", None)


def page_number() -> int:
    """The page that the address names, from 1."""
    asked = st.query_params.get("page", "1")
    return max(int(asked), 1) if asked.isascii() and asked.isdigit() else 1


def as_dict() -> dict[str, str]:
    """The address's parameters, as a saved view keeps them; several values by newlines."""
    found = {name: st.query_params.get_all(name) for name in (*TITLES, TAG, MARKED, *_WIDGETS)}
    return {name: "\n".join(values) for name, values in found.items() if values}


def restore(query: Mapping[str, str]) -> None:
    """Ask what a saved view asks; called before the page's widgets are made."""
    clear()
    for name, read in _WIDGETS.items():
        # The address follows: these are bound to it.
        st.session_state[name] = read(query[name]) if name in query else None
    for name in (*TITLES, TAG, MARKED):
        if name in query:
            st.query_params[name] = query[name].split("\n")


def search(
    words: str,
    use: str,
    ranges: Ranges,
    sort: str,
    among: Collection[str] | None,
    *,
    limit: int,
    offset: int = 0,
) -> Found:
    """What the catalogue holds of what is asked."""
    facets: dict[str, list[str]] = {
        facet: chosen(name) for name, (facet, _) in FACETS.items() if name != "licence"
    }
    facets["licence"] = _licences(use)
    facets |= {ability: ["yes"] for ability in chosen(ABILITY) if ability in ABILITIES}
    order, descending = SORTS[sort]
    return catalogue.index().search(
        words, facets, ranges.of_index, order, descending, limit=limit, offset=offset, among=among
    )


def _licences(use: str) -> list[str]:
    """The licences that the choices of licence, category and verdict leave; empty leaves all."""
    if not any(chosen(name) for name in ("licence", CATEGORY, VERDICT)):
        return []
    left = [key for key in _known_licences(catalogue.version()) if _is_left(key, use)]
    # Nothing has both: a value that no model bears.
    return left or ["-"]


def _is_left(key: str, use: str, but: str = "") -> bool:
    values = {"licence": key, CATEGORY: category(key), VERDICT: outcome(key, use)}
    return all(
        not chosen(name) or value in chosen(name) for name, value in values.items() if name != but
    )


def counts(found: Found, use: str) -> dict[str, Mapping[str, int]]:
    """How many models each value of each facet would leave, by the facets' names in the address."""
    said: dict[str, Mapping[str, int]] = {
        name: found.facets[facet] for name, (facet, _) in FACETS.items()
    }
    said[ABILITY] = {ability: found.facets[ability].get("yes", 0) for ability in ABILITIES}
    by_licence = found.facets["licence"]
    for name, read in (
        ("licence", lambda key: key),
        (CATEGORY, category),
        (VERDICT, lambda key: outcome(key, use)),
    ):
        grouped: dict[str, int] = {}
        for key, count in by_licence.items():
            if _is_left(key, use, but=name):
                grouped[read(key)] = grouped.get(read(key), 0) + count
        said[name] = dict(sorted(grouped.items(), key=lambda item: -item[1]))
    return said


@lru_cache(maxsize=1)
def _known_licences(_version: int) -> tuple[str, ...]:
    return (*sorted(set(catalogue.models()["licence"].dropna())), UNKNOWN)


@lru_cache(maxsize=4096)
def outcome(key: str | None, use: str) -> str:
    """The verdict on a licence for a use: `needs review` where none is known."""
    known = key if key not in (None, UNKNOWN) else None
    return licences.verdict(known, licences.USES[use]).outcome


@lru_cache(maxsize=4096)
def category(key: str) -> str:
    """ScanCode's category of a licence."""
    return "unknown" if key == UNKNOWN else licences.licence(key).category
