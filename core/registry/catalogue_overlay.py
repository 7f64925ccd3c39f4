"""What was fetched of a source, kept in a file, and laid over the shipped catalogue.

Of each fact the most trusted source stands, of equal ones the newer. What is curated stays, and so
does a licence that is known where the newer source only has a name that Bud does not know.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.registry import licences, makers
from core.registry.catalogue_build import agreed, complete, model_row
from core.registry.catalogue_files import Entry, Fact, source_trust
from core.registry.catalogue_tables import OF_THE_HUB, Tables
from core.registry.resolver import Published

# Columns of a model that a refresh may change; its name and family are those of its id.
CHANGEABLE = (
    *("hub_id", "open_weights", "licence_note", "parameters", "context_tokens"),
    *("max_output_tokens", "modalities_in", "modalities_out", "release_date", "tools"),
    *("reasoning", "embedding_length", "base_model_id", *OF_THE_HUB),
)
_LISTS = ("modalities_in", "modalities_out")
_TOUCHED = (*CHANGEABLE, "id", "maker", "licence", "vision", "sources")
_HOSTED_TRUST = 5


@dataclass(frozen=True)
class Identified:
    """An entry with the model that it is; without one it stays out of the catalogue.

    Attributes:
        mark: Of the shipped rows that the prices of its source take the place of.
        is_new: Whether the catalogue did not have the model.
    """

    entry: Entry
    model_id: str | None
    rule: str
    setting: str = ""
    mark: str = ""
    is_new: bool = False


def write(found: Iterable[Identified], path: Path) -> None:
    """Keep what was fetched in a Parquet file, whole or not at all."""
    rows = [
        {
            "model_id": each.model_id,
            "rule": each.rule,
            "setting": each.setting,
            "mark": each.mark,
            "is_new": each.is_new,
            "published": json.dumps(asdict(each.entry.published)),
            "facts": json.dumps({name: asdict(fact) for name, fact in each.entry.facts.items()}),
            "price": json.dumps(each.entry.price) if each.entry.price else None,
        }
        for each in found
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pd.DataFrame(rows).to_parquet(partial, index=False, compression="zstd")
    partial.replace(path)


def read(path: Path) -> list[Identified]:
    """What `write` kept."""
    return [
        Identified(
            Entry(
                Published(**json.loads(row["published"])),
                {name: _fact(fact) for name, fact in json.loads(row["facts"]).items()},
                json.loads(row["price"]) if row["price"] else None,
            ),
            row["model_id"],
            row["rule"],
            row["setting"],
            row["mark"],
            row["is_new"],
        )
        for row in pd.read_parquet(path).astype(object).replace({np.nan: None}).to_dict("records")
    ]


def _fact(record: Mapping[str, Any]) -> Fact:
    value = record["value"]
    return Fact(
        tuple(value) if isinstance(value, list) else value, record["trust"], record["source"]
    )


def applied(tables: Tables, paths: Sequence[Path]) -> Tables:
    """A catalogue with what the files say."""
    found = [each for path in paths for each in read(path) if each.model_id is not None]
    models = _with_new(_with_facts(tables.models, found), found)
    return Tables(models, _with_names(tables.names, found), _with_prices(tables.prices, found))


def _with_facts(models: pd.DataFrame, found: Sequence[Identified]) -> pd.DataFrame:
    positions = {model_id: position for position, model_id in enumerate(models["id"])}
    said: dict[tuple[int, str], list[Fact]] = defaultdict(list)
    for each in found:
        position = positions.get(str(each.model_id))
        for column, fact in each.entry.facts.items():
            if position is not None and column in CHANGEABLE:
                said[position, column].append(fact)
    curated = {(row["model_id"], row["column"]) for row in makers.table("facts.csv")}
    # As lists: one look into a column of a frame costs more than a whole list of it.
    columns = {name: models[name].astype(object).to_list() for name in _TOUCHED}
    sources = [json.loads(text) for text in models["fact_sources"]]
    by_hub_id = Tables(models, models, models).by_hub_id
    for (position, column), facts in said.items():
        fact, model_id = agreed(facts), columns["id"][position]
        if column == "base_model_id":
            fact = replace(fact, value=by_hub_id.get(fact.value.lower(), fact.value))
            if fact.value == model_id:
                continue
        trust = source_trust(sources[position].get(column, ""), columns["maker"][position])
        is_free = (model_id, column) not in curated
        if is_free and _replaces(fact, column, columns[column][position], trust):
            _set(columns, position, column, fact)
            sources[position][column] = fact.source
    texts = pd.Series([_json(each) for each in sources], models.index, models["fact_sources"].dtype)
    whole = {name: _series(values, models[name]) for name, values in columns.items()}
    return models.assign(**whole, fact_sources=texts)


def _set(columns: Mapping[str, list[Any]], position: int, column: str, fact: Fact) -> None:
    columns[column][position] = list(fact.value) if column in _LISTS else fact.value
    columns["sources"][position] = sorted({*columns["sources"][position], fact.source})
    if column == "licence_note":
        columns["licence"][position] = licences.by_id(fact.value)
    if column == "modalities_in":
        columns["vision"][position] = "image" in fact.value


def _replaces(fact: Fact, column: str, now: Any, trust: int) -> bool:
    """Whether a fact takes the place of what the catalogue says, which is so far trusted."""
    if column == "open_weights":
        # Hosts call most open models closed, see `catalogue_build`; and what is open once stays so.
        return fact.trust < _HOSTED_TRUST and (_is_unknown(now) or fact.value)
    if _is_unknown(now):
        return True
    if column == "licence_note" and licences.by_id(fact.value) is None:
        return licences.by_id(str(now)) is None
    return fact.trust <= trust


def _is_unknown(value: Any) -> bool:
    return len(value) == 0 if isinstance(value, (np.ndarray, list)) else bool(pd.isna(value))


def _series(values: Sequence[Any], like: pd.Series[Any]) -> pd.Series[Any]:
    if like.dtype != object:
        return pd.Series(values, like.index, like.dtype)
    made = np.empty(len(values), dtype=object)
    for position, value in enumerate(values):
        made[position] = np.array(value, dtype=object) if isinstance(value, list) else value
    return pd.Series(made, like.index, dtype=object)


def _with_new(models: pd.DataFrame, found: Sequence[Identified]) -> pd.DataFrame:
    known = set(models["id"])
    members: dict[str, list[Entry]] = defaultdict(list)
    for each in found:
        if each.model_id is not None and each.model_id not in known:
            members[each.model_id].append(each.entry)
    if not members:
        return models
    rows = [_new_row(model_id, members[model_id]) for model_id in sorted(members)]
    there = models.astype(object).where(models.notna(), None).to_dict("records")
    complete(rows, [*there, *rows])
    return pd.concat([models, _frame(rows, models)], ignore_index=True)


def _new_row(model_id: str, entries: Sequence[Entry]) -> dict[str, Any]:
    row = model_row(model_id, entries)
    for column in ("base_model_id", *OF_THE_HUB):
        facts = [entry.facts[column] for entry in entries if column in entry.facts]
        row[column] = agreed(facts).value if facts else None
    return row


def _frame(rows: Sequence[Mapping[str, Any]], like: pd.DataFrame) -> pd.DataFrame:
    empty = pd.RangeIndex(len(rows))
    return pd.DataFrame(
        {
            name: _series(
                [row.get(name) for row in rows], pd.Series(index=empty, dtype=like[name].dtype)
            )
            for name in like.columns
        }
    )


def _with_names(names: pd.DataFrame, found: Sequence[Identified]) -> pd.DataFrame:
    columns = ["name", "organisation", "source"]
    known = set(names[columns].itertuples(index=False, name=None))
    added = {
        (each.entry.published.name, each.entry.published.organisation, each.entry.published.source):
        (each.model_id, each.rule, each.setting)
        for each in found
    }  # fmt: skip
    rows = [(*key, *value) for key, value in added.items() if key not in known]
    made = pd.DataFrame(rows, columns=[*columns, "model_id", "rule", "setting"])
    return pd.concat([names, made], ignore_index=True) if rows else names


def _with_prices(prices: pd.DataFrame, found: Sequence[Identified]) -> pd.DataFrame:
    marks = tuple({f"{each.mark}:" for each in found if each.mark})
    kept = prices[~prices["source"].str.startswith(marks)] if marks else prices
    rows = [{"model_id": each.model_id} | each.entry.price for each in found if each.entry.price]
    if not rows:
        return kept.reset_index(drop=True)
    whole = pd.concat([kept, _frame(rows, prices)], ignore_index=True)
    order = ["model_id", "provider", "published_name"]
    return whole.sort_values(order, kind="stable").reset_index(drop=True)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
