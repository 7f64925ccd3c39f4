"""What is known of a model: facts with who says each, and what hosts ask for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
import streamlit as st

from app import formats
from app.session import SessionContext
from app.widgets.layout import Kpi, empty_state, escape, kpi_row
from app.widgets.model_subject import Subject, licence_source
from app.widgets.tables import table_with_downloads
from core.kernel.settings import settings
from core.registry import ages, catalogue
from core.registry.schemas import ModelView

Words = Callable[[Any], str | None]
# What some sources write for a date that they do not know.
_NO_DATE = "1970-01-01"


def _listed(value: Any) -> str | None:
    """Several, whether they come as a list or, as others say them, as `text|image`."""
    several = value.split("|") if isinstance(value, str) else value
    return ", ".join(str(each) for each in several) or None if value else None


def _truth(value: Any) -> str | None:
    return {True: "yes", False: "no"}.get(value)


def _tokens(value: Any) -> str | None:
    return formats.tokens(value) if value is not None else None


def _count(value: Any) -> str | None:
    return formats.count(value) if value is not None else None


def _parameters(value: Any) -> str | None:
    if value is None:
        return None
    short, exact = formats.short_count(value), formats.count(value)
    return exact if short == exact else f"{short} ({exact})"


def _text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None


# Columns of the catalogue, in the order in which people ask for them.
_OF_CATALOGUE: dict[str, tuple[str, Words]] = {
    "parameters": ("Parameters", _parameters),
    "active_parameters": ("Active parameters", _parameters),
    "context_tokens": ("Context", _tokens),
    "max_output_tokens": ("Longest answer", _tokens),
    "modalities_in": ("Takes", _listed),
    "modalities_out": ("Gives", _listed),
    "tools": ("Calls tools", _truth),
    "reasoning": ("Reasons before it answers", _truth),
    "open_weights": ("Open weights", _truth),
    "licence_note": ("Licence as stated", _text),
    "release_date": ("Released", _text),
    "family": ("Family", _text),
    "base_model_id": ("Made from", _text),
    "embedding_length": ("Embedding length", _count),
    "hub_id": ("Hugging Face id", _text),
    "downloads": ("Downloads in a month", _count),
    "gated": ("Gate on Hugging Face", _text),
    "hub_changed": ("Last change on Hugging Face", _text),
}
# What the files say: of the record of extraction, then of the model's own columns.
_OF_FILES: dict[str, tuple[str, Words]] = {
    "parameters": ("Parameters", _parameters),
    "active_parameters": ("Active parameters", _parameters),
    "context_tokens": ("Context", _tokens),
    "modalities_in": ("Takes", _listed),
    "modalities_out": ("Gives", _listed),
    "capabilities": ("Can do", _listed),
    "tools": ("Calls tools", _truth),
    "reasoning": ("Reasons before it answers", _truth),
    "reasoning_switch": ("Reasoning is switched by", _text),
    "licence": ("Licence as stated", _text),
    "licence_name": ("Licence, by name", _text),
    "licence_link": ("Licence, at", _text),
    "licence_file": ("Licence file", _text),
    "title": ("Title", _text),
    "architecture": ("Architecture", _text),
    "architecture_class": ("Architecture class", _text),
    "format": ("Format", _text),
    "precision": ("Precision", _text),
    "quantization": ("Quantisation", _text),
    "layers": ("Layers", _count),
    "heads": ("Attention heads", _count),
    "kv_heads": ("KV heads", _count),
    "key_length": ("Key length of a head", _count),
    "value_length": ("Value length of a head", _count),
    "embedding_length": ("Embedding length", _count),
    "intermediate_length": ("Feed-forward length", _count),
    "experts": ("Experts", _count),
    "experts_per_token": ("Experts a token", _count),
    "shared_experts": ("Shared experts", _count),
    "vocabulary": ("Vocabulary", _tokens),
    "tokenizer": ("Tokenizer", _text),
    "chat_template": ("Chat template", _truth),
    "custom_code": ("Needs code of its own", _truth),
    "languages": ("Languages", _listed),
    "datasets": ("Trained on", _listed),
    "base_models": ("Made from", _listed),
    "base_model_relation": ("Made by", _text),
    "library": ("Library", _text),
    "pipeline_tag": ("Task", _text),
    "size_bytes": ("Size of the files", formats.size),
    "sha256": ("SHA-256", _text),
}


def overview(_context: SessionContext, subject: Subject) -> None:
    """Every fact that is known, with who says it."""
    rows = [*_own_rows(subject), *_catalogue_rows(subject)]
    if not rows:
        empty_state(
            "Nothing is known of it yet",
            "Its provider says no more than its name. Facts come with its files.",
            icon="help",
        )
        return
    kpi_row(_kpis(subject), key="model")
    table_with_downloads(
        rows,
        name="model-facts",
        columns={
            "Fact": st.column_config.TextColumn(width=200),
            "Value": st.column_config.TextColumn(width=230),
            "Source": st.column_config.TextColumn(width=400),
            "Others say": st.column_config.TextColumn(width=175),
        },
        height=38 + 35 * min(len(rows), 22),
    )
    for note in (subject.model.extracted.get("notes") or ()) if subject.model else ():
        st.caption(f":material/info: {escape(str(note))}")
    _names(subject)


def _kpis(subject: Subject) -> list[Kpi]:
    size, said = _first(subject, "parameters")
    context, context_said = _first(subject, "context_tokens")
    entry = subject.entry or {}
    paid = _paid(subject)
    cheapest = paid.iloc[0] if len(paid) else None
    kpis = [
        Kpi("Parameters", formats.short_count(size), said),
        Kpi("Context, tokens", formats.count(context), context_said),
    ]
    if subject.model is not None and subject.model.kind == "local":
        kpis.append(Kpi("Files", formats.size(subject.model.size_bytes), "Of the current version"))
    if entry:
        kpis += [
            Kpi("Released", entry["release_date"], subject.fact_sources.get("release_date")),
            Kpi(
                "Cheapest input",
                _usd(cheapest, "usd_per_million_input"),
                "USD per million tokens; see Prices.",
                note=None if cheapest is None else str(cheapest["provider_name"]),
            ),
            Kpi("Hosts", formats.count(catalogue.prices_of(entry["id"])["provider"].nunique())),
        ]
    return kpis


def _first(subject: Subject, name: str) -> tuple[float | None, str | None]:
    """A number that the files say, else the catalogue; and who says it."""
    own = getattr(subject.model, name) if subject.model is not None else None
    if own is not None:
        return own, f"From {_files_of(subject.model)}."
    said = (subject.entry or {}).get(name)
    return said, subject.fact_sources.get(name)


def _usd(row: pd.Series[Any] | None, column: str) -> str | None:
    if row is None or pd.isna(row[column]):
        return None
    return _per_million(float(row[column]))


def _per_million(usd: float) -> str:
    return f"\\{formats.usd(usd)} / M"


def _own_rows(subject: Subject) -> list[dict[str, object]]:
    model = subject.model
    if model is None or model.state == "listed":
        return [] if model is None else _listed_rows(model)
    said = {**model.extracted, **_columns(model)}
    source = _files_of(model)
    sources = {"licence": licence_source(model), "size_bytes": "the files", "sha256": "the files"}
    return [
        {"Fact": title, "Value": text, "Source": sources.get(name, source), "Others say": None}
        for name, (title, words) in _OF_FILES.items()
        if (text := words(said.get(name))) not in (None, formats.NONE)
    ]


def _listed_rows(model: ModelView) -> list[dict[str, object]]:
    """What a provider's list says of a hosted model; an entry's facts are the catalogue's own."""
    if model.kind != "hosted":
        return []
    known = {
        "Name at the provider": model.provider_model,
        "Context": _tokens(model.context_tokens),
    }
    return [
        {"Fact": title, "Value": text, "Source": f"the provider's list, {model.source}"}
        for title, text in known.items()
        if text
    ]


def _columns(model: ModelView) -> dict[str, Any]:
    return {name: value for name in _OF_FILES if (value := getattr(model, name, None)) is not None}


def _files_of(model: ModelView | None) -> str:
    if model is None or model.path is None:
        return "its files"
    kind = model.extracted.get("format")
    return {
        "gguf": "the header of its GGUF file",
        "safetensors": "its configuration and safetensors headers",
    }.get(str(kind), "its files")


def _catalogue_rows(subject: Subject) -> list[dict[str, object]]:
    if subject.entry is None:
        return []
    sources, others = subject.fact_sources, subject.disagreements
    return [
        {
            "Fact": title,
            "Value": text,
            "As of": _as_of(said := sources.get(name, "; ".join(subject.entry["sources"][:2]))),
            "Source": said,
            "Others say": _others(others.get(name, []), words),
        }
        for name, (title, words) in _OF_CATALOGUE.items()
        if (text := words(subject.entry[name])) is not None
    ]


def _as_of(source: str) -> str:
    dated = ages.of_source(source)
    if not dated.text:
        return formats.NONE
    return f"{dated.text} · old" if ages.is_old_fact(source) else dated.text


def _others(values: list[Any], words: Words) -> str | None:
    told = [text for value in values if value != _NO_DATE and (text := words(value))]
    return " · ".join(told) or None


def _names(subject: Subject) -> None:
    if subject.catalogue_id is None:
        return
    known = catalogue.names_of(subject.catalogue_id)
    title = f"Names it goes by ({len(known)})"
    with st.expander(title, icon=":material/alternate_email:", key="model-names"):
        st.caption("What is published under these names is taken to be this model, by that rule.")
        table_with_downloads(
            known[["name", "organisation", "source", "setting", "rule"]].rename(
                columns=str.capitalize
            ),
            name="model-names",
            height=38 + 35 * min(len(known), 10),
        )


def prices(_context: SessionContext, subject: Subject) -> None:
    """What each host asks, with source and date."""
    found = (
        ages.with_ages(catalogue.prices_of(subject.catalogue_id))
        if subject.catalogue_id
        else pd.DataFrame()
    )
    if found.empty:
        empty_state(
            "No price is known",
            "No host of the catalogue offers it by the token. What it costs on your machines, "
            "What if tells.",
            icon="payments",
            action="Open What if",
            page="what_if",
        )
        return
    paid = _paid(subject)
    kpi_row(_price_kpis(found, paid), key="prices")
    oldest_days, old = settings().stale_prices_days, int(found["is_old"].sum())
    if old:
        st.markdown(
            f":orange-badge[:material/history: {old} of {len(found)} prices are over "
            f"{oldest_days} days old] An admin fetches them anew on *Models → Refresh*."
        )
    found["state"] = found["is_old"].map({True: f"over {oldest_days} days old", False: "current"})
    table_with_downloads(
        found.rename(columns=_PRICES)[list(_PRICES.values())],
        name="model-prices",
        columns=_PRICE_COLUMNS,
        height=38 + 35 * min(len(found), 16),
    )
    st.caption(
        "List prices in USD per million tokens. A price of zero is an offer on terms, such as a "
        "trial, and is not counted as the cheapest. A date is that of the list of prices; where it "
        "bears none, that of Bud's snapshot of it."
    )


def _paid(subject: Subject) -> pd.DataFrame:
    """Prices above zero, the cheapest input first."""
    if subject.catalogue_id is None:
        return pd.DataFrame()
    found = catalogue.prices_of(subject.catalogue_id)
    return found[(found["usd_per_million_input"] > 0).fillna(False)]


def _price_kpis(found: pd.DataFrame, paid: pd.DataFrame) -> list[Kpi]:
    cheapest = paid.iloc[0] if len(paid) else None
    outward = paid["usd_per_million_output"].dropna().sort_values()
    return [
        Kpi("Hosts", formats.count(found["provider"].nunique())),
        Kpi(
            "Cheapest input",
            _usd(cheapest, "usd_per_million_input"),
            "USD per million tokens.",
            note=None if cheapest is None else str(cheapest["provider_name"]),
        ),
        Kpi(
            "Cheapest output",
            _per_million(float(outward.iloc[0])) if len(outward) else None,
            "USD per million tokens; maybe of another host.",
        ),
        Kpi("Newest date", found["date"].dropna().max() if found["date"].notna().any() else None),
    ]


_PRICES: Mapping[str, str] = {
    "provider_name": "Host",
    "usd_per_million_input": "Input",
    "usd_per_million_output": "Output",
    "usd_per_million_cached_input": "Cached input",
    "context_tokens": "Context",
    "date": "As of",
    "state": "State",
    "date_is": "That date is",
    "source": "Source",
    "published_name": "Called",
}
_PRICE_COLUMNS: dict[str, Any] = {
    "Host": st.column_config.TextColumn(width=170),
    "Input": st.column_config.NumberColumn(format="dollar", help="USD per million tokens."),
    "Output": st.column_config.NumberColumn(format="dollar", help="USD per million tokens."),
    "Cached input": st.column_config.NumberColumn(format="dollar", help="USD per million tokens."),
    "Context": st.column_config.NumberColumn(format="localized", help="Tokens."),
}
