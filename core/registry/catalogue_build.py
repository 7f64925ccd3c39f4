"""Makes the shipped catalogue from a folder of CSV files: `bud catalogue build FOLDER`.

Each file is read into entries (a published name with facts); the resolver says which entries are
one model; of the facts of a model the best source's stand, and what others say is kept beside.
The same files give the same bytes.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.registry import licences, makers
from core.registry.catalogue_files import Entry, Fact, parameters, read, truth
from core.registry.identity import Identity, parse
from core.registry.licences.cards import card
from core.registry.resolver import Resolution, resolve

DATA = Path(__file__).parent / "data"
_COLUMNS = [
    "id",
    "name",
    "organisation",
    "maker",
    "family",
    "variant",
    "modalities_in",
    "modalities_out",
    "context_tokens",
    "max_output_tokens",
    "parameters",
    "active_parameters",
    "licence",
    "licence_note",
    "open_weights",
    "release_date",
    "tools",
    "reasoning",
    "vision",
    "hub_id",
    "base_model_id",
    "embedding_length",
    "sources",
    "fact_sources",
    "disagreements",
]
_TRUST_OF_HOSTS = 5
# What a quantisation has in common with its model.
_SHARED = (
    *("modalities_in", "modalities_out", "parameters", "active_parameters", "vision"),
    *("context_tokens", "embedding_length", "licence", "licence_note"),
)
_HOSTS = (5, 6, 7)  # preferences of the lists of hosts
# Hosts that call most open models closed too (nano-gpt 62 of the 71 that are on a hub).
_CALL_ALL_CLOSED = frozenset(
    f"models_dev.csv: {host}"
    for host in (
        *("nano-gpt", "siliconflow", "siliconflow-cn", "qiniu-ai", "helicone", "poe"),
        *("cloudflare-ai-gateway", "vercel", "zenmux"),
    )
)
# Makers whose models are closed unless their name has a size: of them those hosts are right.
_CLOSED_MAKERS = frozenset(
    (
        *("anthropic", "baidu", "bytedance", "deepgram", "elevenlabs", "google", "ideogram"),
        *("openai", "perplexity", "runway", "xai"),
    )
)
_PROPRIETARY = "proprietary-license"
# Notes of licences that come with weights, but are too vague for a key.
_VAGUELY_OPEN = re.compile(
    r"open|non-commercial|qwen|llama|nvidia|nexusflow|https://huggingface\.co/.*", re.IGNORECASE
)
_WHOLE = {
    *("context_tokens", "max_output_tokens", "parameters", "active_parameters"),
    "embedding_length",
}
_FACTS = [
    "name",
    "modalities_in",
    "modalities_out",
    "context_tokens",
    "max_output_tokens",
    "parameters",
    "active_parameters",
    "licence_note",
    "open_weights",
    "release_date",
    "tools",
    "reasoning",
    "vision",
    "hub_id",
    "embedding_length",
    "family",
]


@dataclass(frozen=True)
class Built:
    """The rows of the three tables."""

    catalogue: list[dict[str, Any]]
    names: list[dict[str, Any]]
    prices: list[dict[str, Any]]

    def model_ids(self) -> dict[tuple[str, str, str], tuple[str | None, str]]:
        """Model and setting of each published name, by (name, organisation, source)."""
        return {
            (row["name"], row["organisation"], row["source"]): (row["model_id"], row["setting"])
            for row in self.names
        }


def build(folder: Path) -> Built:
    """Read the CSV files of a folder into the catalogue, its names and prices.

    Raises:
        NotFound: A file is missing.
    """
    entries = list(read(folder))
    resolutions = resolve([entry.published for entry in entries])
    members: dict[str, list[Entry]] = defaultdict(list)
    for entry, resolution in zip(entries, resolutions, strict=True):
        if resolution.model_id:
            members[resolution.model_id].append(entry)
    catalogue = [model_row(model_id, members[model_id]) for model_id in sorted(members)]
    complete(catalogue, catalogue)
    return Built(catalogue, _names(entries, resolutions), _prices(entries, resolutions))


def write(built: Built, folder: Path = DATA) -> None:
    """Write the three Parquet files."""
    import pyarrow as pa

    texts = pa.list_(pa.string())
    catalogue = pa.schema([(column, _arrow_type(column, pa, texts)) for column in _COLUMNS])
    write_table(built.catalogue, catalogue, folder / "catalogue.parquet")
    names = [
        (key, pa.string())
        for key in ["name", "organisation", "source", "model_id", "rule", "setting"]
    ]
    write_table(built.names, pa.schema(names), folder / "names.parquet")
    amounts = {"usd_per_million_input", "usd_per_million_output", "usd_per_million_cached_input"}
    kinds = {key: pa.float64() for key in amounts} | {"context_tokens": pa.int64()}
    keys = [
        "model_id",
        "provider",
        "provider_name",
        "published_name",
        "usd_per_million_input",
        "usd_per_million_output",
        "usd_per_million_cached_input",
        "context_tokens",
        "source",
        "date",
    ]
    prices = pa.schema([(key, kinds.get(key, pa.string())) for key in keys])
    write_table(built.prices, prices, folder / "prices.parquet")


def write_table(rows: Sequence[Mapping[str, Any]], schema: Any, path: Path) -> None:
    """Write rows as one compressed Parquet file with this schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    pq.write_table(table, path, compression="zstd", compression_level=19)


def _arrow_type(column: str, pa: Any, texts: Any) -> Any:
    if column in ("modalities_in", "modalities_out", "sources"):
        return texts
    if column in ("open_weights", "tools", "reasoning", "vision"):
        return pa.bool_()
    return pa.int64() if column in _WHOLE else pa.string()


def model_row(model_id: str, entries: Sequence[Entry]) -> dict[str, Any]:
    """One row of the catalogue: of each fact what the most trusted source says, most often."""
    identity = parse(model_id)
    chosen: dict[str, Fact] = {}
    disagreements: dict[str, list[Any]] = {}
    for column in _FACTS:
        facts = [entry.facts[column] for entry in entries if column in entry.facts]
        if column == "parameters":
            # Some sources read the size out of the name, which gives the active part.
            active = parameters(active_in_name(identity))
            facts = [fact for fact in facts if fact.value != active]
        best = _best(column, facts, entries, identity)
        if best:
            chosen[column] = best
            others = {_plain(fact.value) for fact in facts} - {_plain(chosen[column].value)}
            if others and column not in ("name", "hub_id"):
                disagreements[column] = sorted(others, key=str)
    _add_from_name(identity, chosen)
    _add_from_card(entries, chosen)
    _curate(model_id, chosen)
    maker = model_id.partition("/")[0]
    takes = chosen.get("modalities_in")
    row: dict[str, Any] = dict.fromkeys(_COLUMNS)
    row |= {column: fact.value for column, fact in chosen.items()}
    row |= {
        "id": model_id,
        "name": _display_name(row["name"], row["hub_id"], maker, entries),
        "organisation": makers.display_name(maker),
        "maker": maker,
        "family": identity.family or None,
        "variant": _variant(identity),
        "licence": licences.by_id(row["licence_note"]) if row["licence_note"] else None,
        "vision": "image" in takes.value if takes else None,
        "sources": sorted({entry.facts["source"].source for entry in entries}),
        "fact_sources": _json({column: fact.source for column, fact in sorted(chosen.items())}),
        "disagreements": _json(disagreements) if disagreements else None,
    }
    for column in ("modalities_in", "modalities_out"):
        row[column] = list(row[column]) if row[column] else []
    return row


def active_in_name(identity: Identity) -> str:
    """The active size that a mixture's name gives, as in `235B-A22B` and `17B-128E`; else empty."""
    if identity.active:
        return identity.active
    return identity.size if identity.experts else ""


def _best(
    column: str, facts: Sequence[Fact], entries: Sequence[Entry], identity: Identity
) -> Fact | None:
    if column == "open_weights":
        return _openness(entries, identity)
    if column == "licence_note":
        facts = _clearest_licences(facts)
    return agreed(facts) if facts else None


def _clearest_licences(facts: Sequence[Fact]) -> Sequence[Fact]:
    """Those that say most: a licence that is known, then a vague one, then "proprietary"."""
    keys = [licences.by_id(fact.value) for fact in facts]
    known = [fact for fact, key in zip(facts, keys, strict=True) if key not in (None, _PROPRIETARY)]
    vague = [fact for fact in facts if _is_open_licence(fact.value)]
    return known or vague or facts


def _is_open_licence(note: str) -> bool:
    """Whether whoever states this licence has weights to give, be it with conditions."""
    key = licences.by_id(note)
    return key != _PROPRIETARY if key else bool(_VAGUELY_OPEN.fullmatch(note))


def _openness(entries: Sequence[Entry], identity: Identity) -> Fact | None:
    """Whether the weights can be had: a hub, the maker and a licence know better than hosts."""
    ranked: list[tuple[int, Fact]] = []
    for entry in entries:
        said, licence = entry.facts.get("open_weights"), entry.facts.get("licence_note")
        if said and not _is_empty_denial(said, entry, identity):
            ranked.append((_openness_rank(said), said))
        # A licence beside "closed" is that of the code.
        if licence and _is_open_licence(licence.value) and (said is None or said.value):
            source = f"the licence {licence.value}, {licence.source}"
            ranked.append((1, Fact(True, licence.trust, source)))
        hub = entry.facts.get("hub_id")
        if hub and said is None:
            ranked.append((0, Fact(True, hub.trust, f"on the hub, {hub.source}")))
    best = min((rank for rank, _ in ranked), default=None)
    return agreed([fact for rank, fact in ranked if rank == best]) if ranked else None


def _openness_rank(said: Fact) -> int:
    """0 best: "open" by a hub or the maker; 1 a licence; 2 "closed" by those; 3 most hosts."""
    if said.trust >= _TRUST_OF_HOSTS:
        return 3
    return 0 if said.value else 2


def _is_empty_denial(said: Fact, entry: Entry, identity: Identity) -> bool:
    """A host's "closed" of a model with its size in the name: closed models have none there."""
    if said.value or entry.published.preference not in _HOSTS:
        return False
    if identity.size:
        return True
    return entry.published.source in _CALL_ALL_CLOSED and identity.maker not in _CLOSED_MAKERS


def _add_from_card(entries: Sequence[Entry], chosen: dict[str, Fact]) -> None:
    """The licence that a card names is the model's own word; sources repeat it, or none does."""
    for entry in entries:
        hub = entry.facts.get("hub_id")
        found = card(hub.value if hub else entry.published.name)
        if found:
            chosen["licence_note"] = Fact(found.licence, 0, found.source)
            chosen.setdefault("open_weights", Fact(True, 0, f"on the hub, {found.source}"))
            return


def _curate(model_id: str, chosen: dict[str, Fact]) -> None:
    """`facts.csv`: what the sources have wrong or leave out; an empty value is not known."""
    for row in makers.table("facts.csv"):
        if row["model_id"] != model_id:
            continue
        column, text = row["column"], row["value"]
        if not text:
            chosen.pop(column, None)
            continue
        chosen[column] = Fact(_typed(column, text), 0, row["source"])
        if column == "licence_note" and _is_open_licence(text):
            chosen["open_weights"] = Fact(True, 0, f"the licence {text}, {row['source']}")


def _typed(column: str, text: str) -> Any:
    if column in _WHOLE:
        return int(text)
    return truth(text) if column == "open_weights" else text


def agreed(facts: Sequence[Fact]) -> Fact:
    """Of several facts that of the most trusted sources, and of these what most of them say."""
    trust = min(fact.trust for fact in facts)
    trusted = [fact for fact in facts if fact.trust == trust]
    counts = Counter(_plain(fact.value) for fact in trusted)
    return min(
        trusted, key=lambda fact: (-counts[_plain(fact.value)], str(fact.value), fact.source)
    )


def _add_from_name(identity: Identity, chosen: dict[str, Fact]) -> None:
    """What only the name gives: rounded parameters, and the day of a dated snapshot."""
    active = active_in_name(identity)
    size = identity.size if identity.size != active else ""
    for column, text in (("parameters", size), ("active_parameters", active)):
        count = parameters(text)
        if column not in chosen and count:
            chosen[column] = Fact(count, 7, "the name, rounded")
    snapshot = identity.snapshot
    if "release_date" not in chosen and snapshot and snapshot.year and snapshot.month:
        chosen["release_date"] = Fact(str(snapshot), 7, "the name")


def _display_name(
    name: str | None, hub_id: str | None, maker: str, entries: Sequence[Entry]
) -> str:
    """The hub's spelling, the maker's own name, or the best published one without a setting."""
    if hub_id or name:
        return hub_id.rpartition("/")[2] if hub_id else str(name)
    spelled = [entry.published for entry in entries]
    plain = [each for each in spelled if not parse(each.name).setting] or spelled
    best = min(plain, key=lambda each: (each.preference in _HOSTS, each.preference, each.name))
    bare = best.name.rpartition("/")[2]
    # A host that also makes models puts its own name before those of others.
    first = bare.partition("-")[0].lower()
    is_of_host = makers.is_maker(first) and makers.maker_id(first) != maker
    if is_of_host or best.preference in _HOSTS or parse(best.name).setting:
        return parse(best.name).slug
    return bare


def complete(rows: list[dict[str, Any]], among: list[dict[str, Any]]) -> None:
    """Give rows their family and their base, which may be any of `among`."""
    _families(rows)
    _link_bases(rows, among)


def _families(catalogue: list[dict[str, Any]]) -> None:
    """Where no family is known, the first word of the name is one."""
    for row in catalogue:
        first = re.match(r"[A-Za-z]+", row["name"])
        row["family"] = row["family"] or (first[0] if first else row["name"])


def _variant(identity: Identity) -> str | None:
    parts = (identity.tuning, identity.quantisation, str(identity.snapshot or ""))
    return " ".join(filter(None, parts)) or None


def _link_bases(rows: list[dict[str, Any]], among: list[dict[str, Any]]) -> None:
    """A quantisation points at its model, another at what a source names, else at its base by name.

    A base that a source names may be a repository that the catalogue does not have.
    """
    curated = {row["model_id"]: row for row in makers.table("bases.csv")}
    by_id = {row["hub_id"].lower(): row for row in among if row["hub_id"]}
    by_id |= {row["id"]: row for row in among}
    by_key = {}
    for row in among:
        identity = parse(row["id"])
        by_key[(*identity.key, str(identity.snapshot or ""))] = row
    for row in rows:
        identity = parse(row["id"])
        snapshot = str(identity.snapshot or "")
        *rest, tuning, quantisation = identity.key
        by_hand = curated.get(row["id"], {})
        named = row["base_model_id"] or by_hand.get("base_model_id")
        base = by_id.get(named.lower()) if named else None
        if quantisation:
            base = by_key.get((*rest, tuning, "", snapshot)) or base
            _inherit(row, base, _SHARED)
        elif named:
            _inherit(row, base, ())
        elif tuning == "" and _is_language_model(row):
            base = by_key.get((*rest, "base", "", snapshot))
        elif tuning in ("instruct", "chat"):
            bare = by_key.get((*rest, "", "", snapshot))
            base = by_key.get((*rest, "base", "", snapshot)) or bare
        is_stated = named is not None and (base is None or base is by_id.get(named.lower()))
        if not is_stated and base is not None:
            _say(row, {"base_model_id": "the name"})
        elif is_stated and by_hand:
            _say(row, {"base_model_id": by_hand["source"]})
        row["base_model_id"] = base["id"] if base else named


def _is_language_model(row: Mapping[str, Any]) -> bool:
    """Of other models, `base` is a size."""
    return row["modalities_out"] in ([], ["text"]) and row["modalities_in"] != ["audio"]


def _inherit(row: dict[str, Any], base: dict[str, Any] | None, columns: Sequence[str]) -> None:
    """What a child shares with its model and nobody says of it; of open weights it is open."""
    if base is None:
        return
    shared = {
        column for column in columns if _is_silent(row[column]) and not _is_silent(base[column])
    }
    if base["open_weights"] and not row["open_weights"]:
        shared.add("open_weights")
    row |= {column: base[column] for column in shared}
    _say(row, dict.fromkeys(shared, f"its model, {base['id']}"))


def _is_silent(value: Any) -> bool:
    """Whether it says nothing: None, or a list or an array without elements."""
    return value is None or (hasattr(value, "__len__") and len(value) == 0)


def _say(row: dict[str, Any], sources: Mapping[str, str]) -> None:
    """Note who says facts of a row."""
    row["fact_sources"] = _json(json.loads(row["fact_sources"]) | sources)


def _names(entries: Sequence[Entry], resolutions: Sequence[Resolution]) -> list[dict[str, Any]]:
    rows = {
        (entry.published.name, entry.published.organisation, entry.published.source): resolution
        for entry, resolution in zip(entries, resolutions, strict=True)
    }
    return [
        {
            "name": name,
            "organisation": organisation,
            "source": source,
            "model_id": found.model_id,
            "rule": found.rule,
            "setting": found.setting,
        }
        for (name, organisation, source), found in sorted(rows.items())
    ]


def _prices(entries: Sequence[Entry], resolutions: Sequence[Resolution]) -> list[dict[str, Any]]:
    rows = [
        {"model_id": resolution.model_id} | entry.price
        for entry, resolution in zip(entries, resolutions, strict=True)
        if entry.price and resolution.model_id
    ]
    return sorted(rows, key=lambda row: (row["model_id"], row["provider"], row["published_name"]))


def _plain(value: Any) -> Any:
    return "|".join(value) if isinstance(value, tuple) else value


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
