"""The facets of the catalogue: what can be chosen, and how many models each choice leaves."""

from __future__ import annotations

import re
from collections.abc import Mapping

import streamlit as st

from app import formats
from app.widgets import models_query as query
from app.widgets.layout import escape
from core.registry import licences
from core.registry.catalogue_index import NO_HOST, UNKNOWN

_MOST = 6
_MOST_IN_POPOVER = 400
_NUMBER = re.compile(r"\d+")
_ANY = "Any"
_CONTEXTS = {"8K": 8_000, "32K": 32_000, "128K": 128_000, "1M": 1_000_000}
_ORDER = (
    query.VERDICT,
    "out",
    query.ABILITY,
    "size",
    "context",
    "maker",
    "weights",
    query.CATEGORY,
    "licence",
    "in",
    "hosted",
    "year",
    "family",
)
_OPEN = frozenset({query.VERDICT, "out", query.ABILITY, "size", "maker", "weights"})
_VERDICTS = ("yes", "conditional", "no", "needs review")
_LABELS = {
    query.VERDICT: {"yes": "allowed", "conditional": "with conditions", "no": "not allowed"},
    "weights": {"yes": "open", "no": "closed"},
    "hosted": {"hosted": "a host is known", NO_HOST: "no host known"},
}
# On a phone the facets are shown when asked for; elsewhere they stand beside the models.
CSS = """<style>
.st-key-catalogue-facets [data-testid="stCheckbox"] { min-height: 1.6rem; }
.st-key-catalogue-facets [data-testid="stCheckbox"] p { font-size: .88rem; }
.st-key-catalogue-facets [data-testid="stVerticalBlock"] { gap: .15rem; }
.st-key-catalogue-facets [data-testid="stExpanderDetails"] { padding: .45rem .8rem .6rem; }
@media (min-width: 641px) { .st-key-facets-shown { display: none; } }
@media (max-width: 640px) {
  [data-testid="stColumn"]:has(.st-key-catalogue-facets-shut) { display: none; } }
</style>"""


def ranges_in_address() -> query.Ranges:
    """Inputs for the ends of ranges."""
    with st.expander("Exact ranges", icon=":material/straighten:"):
        low, high = st.columns(2)
        ends = {
            name: column.number_input(
                label,
                0.0,
                None,
                None,
                key=name,
                bind="query-params",
                placeholder=_ANY,
                on_change=query.first_page,
                help=help_text,
            )
            for column, name, label, help_text in (
                (low, "min_b", "From, B", "Billions of parameters. Unknown sizes are left out."),
                (high, "max_b", "To, B", None),
            )
        }
        least = st.selectbox(
            "Context at least",
            [_ANY, *_CONTEXTS],
            key="min_context",
            bind="query-params",
            on_change=query.first_page,
        )
        usd = st.number_input(
            "Input at most, USD per M tokens",
            0.0,
            None,
            None,
            key="max_usd",
            bind="query-params",
            placeholder=_ANY,
            on_change=query.first_page,
            help="At the cheapest host. Models without a known price are left out.",
        )
    return query.Ranges(ends["min_b"], ends["max_b"], _CONTEXTS.get(least or _ANY), usd)


def facets(
    counts: Mapping[str, Mapping[str, int]], marked: int, tag_counts: Mapping[str, int]
) -> None:
    """Every facet with its values and counts.

    Args:
        counts: Models by value by facet.
        marked: How many favourites the person has in the catalogue.
        tag_counts: Entries of the catalogue by tag.
    """
    _checkbox(query.MARKED, "yes", ":material/star: My favourites", marked)
    for name in _ORDER:
        is_open = name in _OPEN or bool(query.chosen(name))
        with st.expander(query.TITLES[name], expanded=is_open, key=f"facet-{name}"):
            _facet(name, counts[name])
    if tag_counts:
        with st.expander("Tags", expanded=True, key="facet-tags"):
            _facet(query.TAG, tag_counts)


def _facet(name: str, counts: Mapping[str, int]) -> None:
    chosen = query.chosen(name)
    others = _ordered(name, [value for value in counts if value not in chosen])
    most = max(_MOST - len(chosen), 2)
    # A list of two more is not worth a click.
    first = others[:most] if len(others) > most + 2 else others
    for value in (*chosen, *first):
        _checkbox(name, value, escape(_label(name, value)), counts.get(value, 0))
    rest = others[len(first) :]
    if rest:
        st.selectbox(
            "More",
            rest[:_MOST_IN_POPOVER],
            index=None,
            format_func=lambda value: f"{_label(name, value)} · {counts[value]:,}",
            placeholder=f"{len(rest):,} more …",
            label_visibility="collapsed",
            key=f"more-{name}-{len(chosen)}",
            on_change=_take_more,
            args=(name, f"more-{name}-{len(chosen)}"),
        )


def _ordered(name: str, values: list[str]) -> list[str]:
    """Bands by their size, verdicts from the best, years from the newest, else the commonest."""
    if name in ("size", "context"):
        values = sorted(values, key=_lower_end)
    elif name == query.VERDICT:
        values = [value for value in _VERDICTS if value in values]
    elif name == "year":
        values = sorted(values, reverse=True)
    # What is not known stands last, however common it is.
    return sorted(values, key=lambda value: value == UNKNOWN)


def _lower_end(band: str) -> float:
    number = _NUMBER.match(band)
    return float(number[0]) if number else 0.0


def _take_more(name: str, key: str) -> None:
    value = st.session_state[key]
    if value is not None:
        query.choose(name, value, is_chosen=True)


def _checkbox(name: str, value: str, label: str, count: int) -> None:
    key = f"facet-{name}-{value}"
    # The address decides, also when it was changed by a link or a saved view.
    st.session_state[key] = value in query.chosen(name)
    st.checkbox(
        f"{label} :gray[{formats.count(count)}]",
        key=key,
        on_change=_take,
        args=(name, value, key),
    )


def _take(name: str, value: str, key: str) -> None:
    # What the box says, not the other of what the address says: Streamlit also calls this for a
    # box whose last run was cut short.
    query.choose(name, value, is_chosen=bool(st.session_state[key]))


def _label(name: str, value: str) -> str:
    if name == "licence" and value != UNKNOWN:
        return licences.licence(value).spdx or value
    return _LABELS.get(name, {}).get(value, value)
