"""Reads the CSV files that the catalogue is made of: published names with what each source says.

One function a file; what a column means, and how far the file is trusted, stands there.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.kernel.errors import NotFound
from core.registry import makers
from core.registry.identity import parse
from core.registry.resolver import Published

_MODES = {
    "chat": (("text",), ("text",)),
    "completion": (("text",), ("text",)),
    "responses": (("text",), ("text",)),
    "embedding": (("text",), ("embedding",)),
    "rerank": (("text",), ("ranking",)),
    "image_generation": (("text",), ("image",)),
    "image_edit": (("text", "image"), ("image",)),
    "audio_transcription": (("audio",), ("text",)),
    "audio_speech": (("text",), ("audio",)),
    "video_generation": (("text",), ("video",)),
    "realtime": (("text", "audio"), ("text", "audio")),
    "moderation": (("text",), ("label",)),
}
_TOKEN_PRICED = ("chat", "completion", "responses", "embedding", "rerank", "realtime", "moderation")
_CATEGORIES = {
    "llm": (("text",), ("text",)),
    "image": (("text",), ("image",)),
    "embedding": (("text",), ("embedding",)),
    "reranker": (("text",), ("ranking",)),
    "speech_to_text": (("audio",), ("text",)),
    "text_to_speech": (("text",), ("audio",)),
}
# Services of makers under other names.
_OWN_SERVICES = {
    "dashscope": "qwen",
    "qwencloud": "qwen",
    "qwen_ai_platform": "qwen",
    "alibaba-cn": "qwen",
    "volcengine": "bytedance",
    "bigmodel": "zai",
    "gemini": "google",
    "google-vertex": "google",
    "vertex_ai-language-models": "google",
}
MODELS_DEV = "models_dev.csv"
LITELLM = "prices_litellm.csv"
_LARGEST_SPEECH = 100e9
_NO_LIMIT = 50_000_000


@dataclass(frozen=True)
class Fact:
    """A value of a model's column, how far its source is trusted (1 most), and the source."""

    value: Any
    trust: int
    source: str


@dataclass
class Entry:
    """A published name with what its source says of the model.

    Attributes:
        price: A row of `prices.parquet` but for the model's id.
        moved_from: The name that it had before, where the source says so.
    """

    published: Published
    facts: dict[str, Fact] = field(default_factory=dict)
    price: dict[str, Any] | None = None
    moved_from: str = ""


def read_csv(folder: Path, file: str) -> Iterator[dict[str, str]]:
    """The rows of one file.

    Raises:
        NotFound: The file is not in the folder.
    """
    path = folder / file
    if not path.is_file():
        raise NotFound(
            f"{file} is not in the folder.",
            value=folder,
            remedy="Give the folder of all CSV files.",
        )
    with path.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def read(folder: Path) -> Iterator[Entry]:
    """What every file says, entry by entry.

    Raises:
        NotFound: A file is missing.
    """
    yield from _open_models(folder)
    yield from _gpustack(folder)
    yield from _embedding_models(folder)
    yield from _helm(folder)
    yield from _models_dev(folder)
    yield from _litellm(folder)
    yield from _boards(folder)


def _open_models(folder: Path) -> Iterator[Entry]:
    file = "open_models.csv"
    for row in read_csv(folder, file):
        facts = {
            "hub_id": row["model_id"] if "/" in row["model_id"] else "",
            "context_tokens": _whole(row["max_position_embeddings"]),
            "embedding_length": _whole(row["hidden_size"]),
            "parameters": _billions(row["params_b"]),
            "open_weights": True,
            "licence_note": row["licence"],
        }
        source = f"{file}: {row['source']}"
        yield entry(row["model_id"], "", file, 1, facts, 3, source, is_hub=True)


def _gpustack(folder: Path) -> Iterator[Entry]:
    file = "gpustack_catalog.csv"
    for row in read_csv(folder, file):
        takes, gives = _CATEGORIES[row["categories"]]
        for hub_id in row["huggingface"].split("|"):
            facts = {
                "hub_id": hub_id,
                "modalities_in": takes,
                "modalities_out": gives,
                "parameters": _gpustack_size(row),
                "active_parameters": _billions(row["activated_size_b"]),
                "licence_note": row["licenses"],
                "release_date": row["release_date"],
                "open_weights": True,
            }
            source = f"{file}: {row['source']}"
            yield entry(hub_id, "", file, 1, facts, 2, source, is_hub=True)


def _gpustack_size(row: Mapping[str, str]) -> int | None:
    """Some of its sizes stand in trillions (under the active part), some of speech in millions."""
    size, active = _billions(row["size_b"]), _billions(row["activated_size_b"])
    if size and active and size < active:
        return size * 1000
    return size // 1000 if size and size > _LARGEST_SPEECH and row["categories"] != "llm" else size


def _embedding_models(folder: Path) -> Iterator[Entry]:
    file = "embedding_models.csv"
    outputs = {"cross-encoder": "ranking"}
    for row in read_csv(folder, file):
        facts = {
            "hub_id": row["model_id"] if "huggingface.co" in row["reference"] else "",
            "modalities_in": ("text",),
            "modalities_out": (outputs.get(row["model_type"], "embedding"),),
            "context_tokens": _whole(row["max_tokens"]),
            "parameters": _whole(row["n_parameters"]),
            "embedding_length": max(map(_whole, row["embed_dim"].split("|")), key=lambda n: n or 0),
            "licence_note": "" if row["licence"] == "not specified" else row["licence"],
            "open_weights": truth(row["open_weights"]),
            "release_date": row["release_date"],
        }
        source = f"{file}: {row['source']}"
        yield entry(row["model_id"], "", file, 1, facts, 2, source, is_hub=True)


def _helm(folder: Path) -> Iterator[Entry]:
    file = "helm_model_metadata.csv"
    access = {"open": True, "closed": False}
    for row in read_csv(folder, file):
        tags = row["tags"]
        takes = ["text"] if "AUDIO_LANGUAGE" in tags or "TEXT" in tags or "VISION" in tags else []
        takes += ["image"] if "VISION_LANGUAGE" in tags else []
        takes += ["audio"] if "AUDIO_LANGUAGE" in tags else []
        facts = {
            "modalities_in": tuple(takes),
            "modalities_out": ("image",) if "TEXT_TO_IMAGE" in tags else ("text",),
            "parameters": _whole(row["num_parameters"]),
            "open_weights": access.get(row["access"]),
            "release_date": row["release_date"],
            "name": row["display_name"],
        }
        yield entry(row["name"], "", file, 4, facts, 4, f"{file}: {row['source']}")


def _models_dev(folder: Path) -> Iterator[Entry]:
    for row in read_csv(folder, MODELS_DEV):
        yield models_dev_entry(row, f"{MODELS_DEV}: {row['source']}")


def models_dev_entry(row: Mapping[str, str], source: str) -> Entry:
    """What models.dev says of one model at one provider.

    Args:
        row: By the columns of `models_dev.csv`; prices in USD per million tokens.
        source: What it was read from, with its date; a price bears both.
    """
    provider = row["provider"]
    official = _is_official(provider, row["model_id"])
    context, output = _tokens(row["context"]), _tokens(row["max_output"])
    facts = {
        "name": row["name"] if official else "",
        "modalities_in": _modalities(row["input_modalities"]),
        "modalities_out": _modalities(row["output_modalities"]),
        "context_tokens": context,
        "max_output_tokens": output,
        "open_weights": truth(row["open_weights"]),
        "release_date": row["release_date"],
        "tools": truth(row["tool_call"]),
        "reasoning": truth(row["reasoning"]),
        "hub_id": row["model_id"] if provider == "huggingface" else "",
    }
    made = entry(
        row["model_id"],
        "",
        f"{MODELS_DEV}: {provider}",
        2 if official else 6,
        facts,
        1 if official else 5,
        f"{source}, {provider}",
        is_served=True,
        maker=_maker(provider, row["model_id"]),
    )
    cost_in, cost_out = _number(row["usd_per_1m_input"]), _number(row["usd_per_1m_output"])
    if cost_in is not None and cost_out is not None and not _is_plan(row, cost_in, cost_out):
        made.price = {
            "provider": provider,
            "provider_name": row["provider_name"],
            "published_name": row["model_id"],
            "usd_per_million_input": cost_in,
            "usd_per_million_output": cost_out,
            "usd_per_million_cached_input": _number(row["usd_per_1m_cache_read"]),
            "context_tokens": context,
            "source": source,
            "date": _date_in(source),
        }
    return made


def _litellm(folder: Path) -> Iterator[Entry]:
    for row in read_csv(folder, LITELLM):
        made = litellm_entry(row, f"{LITELLM}: {row['source']}")
        if made is not None:
            yield made


def litellm_entry(row: Mapping[str, str], source: str) -> Entry | None:
    """What LiteLLM says of one model at one provider; None where it is no model that Bud lists.

    Args:
        row: By the columns of `prices_litellm.csv`; prices in USD per token.
        source: What it was read from, with its date if it has one; a price bears both.
    """
    modes = _MODES.get(row["mode"])
    if not modes:
        return None
    official = _is_official(row["provider"], row["key"])
    vision = truth(row["supports_vision"])
    context = _tokens(row["max_input_tokens"])
    facts = {
        "modalities_in": (*modes[0], *(("image",) if vision and "image" not in modes[0] else ())),
        "modalities_out": modes[1],
        "context_tokens": context,
        "max_output_tokens": _whole(row["max_output_tokens"]),
        "tools": truth(row["supports_function_calling"]),
        "reasoning": truth(row["supports_reasoning"]),
        "embedding_length": _whole(row["output_vector_size"]),
    }
    made = entry(
        row["key"],
        "",
        f"{LITELLM}: {row['provider']}",
        3 if official else 7,
        facts,
        3 if official else 6,
        f"{source}, {row['provider']}",
        is_served=row["mode"] == "chat" and row["provider"] != "fireworks_ai",
        maker=_maker(row["provider"], row["key"]),
    )
    made.price = _litellm_price(row, context, source)
    return made


def _litellm_price(
    row: Mapping[str, str], context: int | None, source: str
) -> dict[str, Any] | None:
    cost_in, cost_out = (_per_million(row[f"{way}_cost_per_token"]) for way in ("input", "output"))
    if row["mode"] not in _TOKEN_PRICED or cost_in is None or "commitment" in row["key"]:
        return None
    if cost_in == 0 and not cost_out:
        return None
    return {
        "provider": row["provider"],
        "provider_name": row["provider"],
        "published_name": row["key"],
        "usd_per_million_input": cost_in,
        "usd_per_million_output": cost_out,
        "usd_per_million_cached_input": _per_million(row["cache_read_cost_per_token"]),
        "context_tokens": context,
        "source": source,
        # Of the package there is none: its file bears no date, and its version only an order.
        "date": _date_in(source),
    }


# How far the sources of the shipped facts are trusted, by how their names begin.
_TRUST = (
    ("open_models.csv", 3),
    ("gpustack_catalog.csv", 2),
    ("embedding_models.csv", 2),
    ("helm_model_metadata.csv", 4),
    ("benchmark_results.csv", 5),
    ("Hugging Face", 1),
)
_UNTRUSTED = 7  # names, and what is taken over from another model


def source_trust(source: str, maker: str) -> int:
    """How far a source is trusted about a model, from how the catalogue names it: 1 most, 7 least.

    That of a list of hosts depends on whether the host is the maker: the last word of the source.
    """
    known = next((trust for start, trust in _TRUST if source.startswith(start)), None)
    if known is not None:
        return known
    provider = source.rpartition(", ")[2]
    is_makers = _OWN_SERVICES.get(provider, makers.maker_id(provider)) == maker
    if source.startswith((MODELS_DEV, "models.dev")):
        return 1 if is_makers else 5
    if source.startswith((LITELLM, "LiteLLM")):
        return 3 if is_makers else 6
    return _UNTRUSTED


def _boards(folder: Path) -> Iterator[Entry]:
    file = "benchmark_results.csv"
    seen: dict[tuple[str, str, str], Entry] = {}
    for row in read_csv(folder, file):
        key = (row["model_name"], row["organization"], row["benchmark"])
        if key in seen:
            continue
        hub = row["benchmark"] in ("MTEB results repo", "Open ASR")
        proprietary = row["licence_of_model"].lower() in ("proprietary", "propretary")
        licence = row["licence_of_model"]
        facts: dict[str, Any] = {
            "licence_note": "" if licence in ("-", "Other") else licence,
            "open_weights": False if proprietary else None,
        }
        if row["benchmark"] == "Open ASR":
            facts |= {"modalities_in": ("audio",), "modalities_out": ("text",)}
        if row["benchmark"] == "MTEB results repo":
            facts |= {"modalities_in": ("text",), "modalities_out": ("embedding",)}
        source = f"{file}: {row['source'].split(' rev=')[0]}"
        seen[key] = entry(
            row["model_name"],
            row["organization"],
            _board_source(row["benchmark"]),
            3 if hub else 8,
            facts,
            5,
            source,
            is_hub=hub,
        )
    yield from seen.values()


def _board_source(board: str) -> str:
    """How the names of a board are marked in `names.parquet`."""
    return f"benchmark_results.csv: {board}"


def entry(
    name: str,
    organisation: str,
    group: str,
    preference: int,
    facts: Mapping[str, Any],
    trust: int,
    source: str,
    *,
    is_hub: bool = False,
    is_served: bool = False,
    maker: str = "",
) -> Entry:
    """A published name with its facts; what is None or empty is not known.

    Args:
        name: As published.
        organisation: As published.
        group: How the name is marked: the list, and the provider in it.
        preference: See `Published`.
        facts: By column of the catalogue.
        trust: How far the source is trusted, 1 most.
        source: Of the facts.
        is_hub: See `Published`.
        is_served: See `Published`.
        maker: See `Published`.
    """
    known = {
        key: Fact(value, trust, source)
        for key, value in facts.items()
        if value is not None and value not in ("", ())
    }
    known["source"] = Fact(source, trust, source)
    published = Published(name, organisation, group, preference, is_hub, is_served, maker)
    return Entry(published, known)


def _is_official(provider: str, name: str) -> bool:
    """Whether a maker's own service lists its own model."""
    maker = _OWN_SERVICES.get(provider, makers.maker_id(provider))
    return makers.is_maker(maker) and parse(name).maker in ("", maker)


def _maker(provider: str, name: str) -> str:
    """A maker's own service names the maker of what no other maker is known for."""
    return _OWN_SERVICES.get(provider, provider) if _is_official(provider, name) else ""


def _is_plan(row: Mapping[str, str], cost_in: float, cost_out: float) -> bool:
    """Zero as the price of a token where a subscription is paid."""
    return cost_in == 0 and cost_out == 0 and "free" not in row["model_id"]


def _modalities(text: str) -> tuple[str, ...]:
    return tuple(sorted(filter(None, text.split("|")), key=_modality_rank))


def _modality_rank(modality: str) -> int:
    order = ["text", "image", "audio", "video", "pdf"]
    return order.index(modality) if modality in order else len(order)


def _whole(text: str) -> int | None:
    number = _number(text)
    return int(number) if number and math.isfinite(number) else None


def _tokens(text: str) -> int | None:
    """A number of tokens; 99,999,999 and its like stand for no limit."""
    tokens = _whole(text)
    return tokens if tokens and tokens < _NO_LIMIT else None


def _number(text: str) -> float | None:
    return float(text) if text else None


def _per_million(text: str) -> float | None:
    return round(float(text) * 1e6, 9) if text else None


def _billions(text: str) -> int | None:
    return round(float(text) * 1e9) if text else None


def parameters(text: str) -> int | None:
    """How many parameters `8b` or `350m` means."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([bmt])", text)
    return round(float(match[1]) * {"m": 1e6, "b": 1e9, "t": 1e12}[match[2]]) if match else None


def truth(text: str) -> bool | None:
    """What `True` or `False` says; None for anything else."""
    return {"True": True, "False": False}.get(text)


def _date_in(source: str) -> str | None:
    found = re.search(r"20\d\d-\d\d(-\d\d)?", source)
    return found[0] if found else None
