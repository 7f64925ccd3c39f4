"""Turns the files of a model into a `Description`: GGUF files, or a folder as on the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.kernel.errors import InvalidInput
from core.registry import (
    configuration,
    files,
    jsonfiles,
    listing,
    model_card,
    safetensors,
    tokenizer,
)
from core.registry.description import Adapter, Description, Quantisation
from core.registry.gguf import GgufHeader, read_header

# Architectures that only embed: they have no head that predicts a next token.
_EMBEDDING_ARCHITECTURES = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert",
     "neo-bert", "eurobert", "gemma-embedding", "t5encoder"}
)  # fmt: skip
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9._-]{0,59}")
_NUMBERS = (
    "block_count",
    "context_length",
    "embedding_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
)
_MAX_NUMBER = 1 << 31
_MAX_BASE_MODELS = 16


def describe(paths: list[Path]) -> dict[str, Any]:
    """The columns of a model's row from its files: `extract(paths).columns()`.

    Raises:
        InvalidInput: As `extract`.
    """
    return extract(paths).columns()


def extract(paths: Sequence[Path]) -> Description:
    """All that the files of one model say.

    Args:
        paths: The parts of a GGUF model, the first of them first; or the files of a model as it
            lies on the hub; or one folder with either.

    Raises:
        InvalidInput: A file that the model needs is missing or broken, a link leads out of the
            folder, or there is no model.
    """
    found = [entry.path for path in paths for entry in listing.safe_files(path)]
    if not found:
        raise InvalidInput("There are no files.", remedy="Name a model's file or folder.")
    root = next((path for path in paths if path.is_dir()), found[0].parent)
    by_name = {path.relative_to(root).as_posix(): path for path in found}
    if not any(name.lower().endswith(".gguf") and "/" not in name for name in by_name):
        return _from_folder(root, by_name)
    parts = [by_name[name] for name in files.chosen_names(list(by_name), str(root))]
    described = _from_gguf(parts)
    card = by_name.get("README.md")
    return described if card is None else _with_card(described, card)


def _from_gguf(parts: list[Path]) -> Description:
    headers = [read_header(part) for part in parts]
    first = headers[0]
    _check_is_model(first, parts[0].name)
    notes: list[str] = []
    template = first.metadata.get("tokenizer.chat_template")
    has_template = isinstance(template, str) and bool(template)
    return Description(
        format="gguf",
        size_bytes=files.total_bytes(parts),
        architecture=first.architecture,
        quantization=first.quantization,
        context_tokens=first.of_architecture("context_length"),
        layers=first.of_architecture("block_count"),
        heads=first.of_architecture("attention.head_count"),
        kv_heads=first.of_architecture("attention.head_count_kv")
        or first.of_architecture("attention.head_count"),
        key_length=first.of_architecture("attention.key_length") or _head_dimension(first),
        value_length=first.of_architecture("attention.value_length") or _head_dimension(first),
        embedding_length=first.of_architecture("embedding_length"),
        intermediate_length=first.of_architecture("feed_forward_length"),
        vocabulary=first.array_lengths.get("tokenizer.ggml.tokens"),
        tokenizer=_text(first, "tokenizer.ggml.model"),
        chat_template=has_template,
        title=_text(first, "general.name"),
        licence=_text(first, "general.license"),
        licence_name=_text(first, "general.license.name"),
        licence_link=_text(first, "general.license.link"),
        languages=_texts(first, "general.languages"),
        datasets=_texts(first, "general.datasets"),
        tags=_texts(first, "general.tags"),
        base_models=_base_models(first),
        capabilities=tuple(_capabilities(first)),
        **_gguf_parameters(headers),
        **(tokenizer.template_fields(str(template), notes) if has_template else {}),
        notes=tuple(notes),
    )


def _gguf_parameters(headers: Sequence[GgufHeader]) -> dict[str, int | None]:
    total = sum(header.parameters for header in headers)
    routed = sum(header.expert_parameters for header in headers)
    experts = headers[0].of_architecture("expert_count") or None
    used = headers[0].of_architecture("expert_used_count") or None
    is_mixture = experts is not None and used is not None and 0 < used <= experts
    return {
        "parameters": total,
        "active_parameters": total - routed + routed * (used or 0) // (experts or 1)
        if is_mixture and routed
        else None,
        "experts": experts,
        "experts_per_token": used,
        "shared_experts": headers[0].of_architecture("expert_shared_count"),
    }


def _base_models(header: GgufHeader) -> tuple[str, ...]:
    """Hub ids of the models that this one was made from."""
    count = header.metadata.get("general.base_model.count")
    numbers = range(min(count, _MAX_BASE_MODELS)) if isinstance(count, int) else ()
    found = (_text(header, f"general.base_model.{number}.repo_url") for number in numbers)
    hub = "https://huggingface.co/"
    return tuple(url.removeprefix(hub) for url in found if url and url.startswith(hub))


def _texts(header: GgufHeader, key: str) -> tuple[str, ...]:
    value = header.metadata.get(key)
    values = value if isinstance(value, list) else []
    return tuple(text[:120] for text in values if isinstance(text, str) and text)


def _check_is_model(header: GgufHeader, name: str) -> None:
    kind = header.metadata.get("general.type", "model")
    if kind != "model" or not header.of_architecture("block_count"):
        raise InvalidInput(
            f"{name} holds no model that can run on its own"
            + (f" (it says it is {str(kind)[:40]!r})." if kind != "model" else "."),
            remedy="Use a GGUF file of a language or embedding model "
            "(not a LoRA, projector or vocabulary).",
        )
    if not _ARCHITECTURE.fullmatch(header.architecture):
        raise InvalidInput(f"{name} names no usable architecture.", value=header.architecture[:60])
    for key in _NUMBERS:
        number = header.of_architecture(key)
        if number is not None and not 0 <= number < _MAX_NUMBER:
            raise InvalidInput(f"{name} gives an impossible {key}.", value=number)


def _head_dimension(header: GgufHeader) -> int | None:
    width = header.of_architecture("embedding_length")
    heads = header.of_architecture("attention.head_count")
    return width // heads if width and heads else None


# llama.cpp's LLAMA_POOLING_TYPE_RANK: the model has a head that scores a document for a query.
_RANK_POOLING = 4


def _capabilities(header: GgufHeader) -> list[str]:
    pooled = header.of_architecture("pooling_type")
    if pooled == _RANK_POOLING:
        return ["rerank"]
    if header.architecture in _EMBEDDING_ARCHITECTURES or pooled not in (None, 0):
        return ["embedding"]
    # llama.cpp can pool the hidden states of any decoder, so it can embed too.
    chat = ["chat"] if "tokenizer.chat_template" in header.metadata else []
    return [*chat, "completion", "embedding"]


def _text(header: GgufHeader, key: str) -> str | None:
    value = header.metadata.get(key)
    return value[:120] if isinstance(value, str) and value else None


# --- a folder as on the hub ------------------------------------------------------------------

_TORCH = re.compile(r"(?:pytorch_model|model|consolidated)[\w.-]*\.(?:bin|pt|pth)")
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})\.safetensors")
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
# Which way data goes through a model, by the hub's pipeline tags.
_PIPELINES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text-generation": (("text",), ("text",)),
    "image-text-to-text": (("text", "image"), ("text",)),
    "video-text-to-text": (("text", "video"), ("text",)),
    "audio-text-to-text": (("text", "audio"), ("text",)),
    "any-to-any": ((), ()),
    "feature-extraction": (("text",), ("embedding",)),
    "sentence-similarity": (("text",), ("embedding",)),
    "text-ranking": (("text",), ("score",)),
    "text-classification": (("text",), ("label",)),
    "token-classification": (("text",), ("label",)),
    "automatic-speech-recognition": (("audio",), ("text",)),
    "text-to-speech": (("text",), ("audio",)),
    "text-to-audio": (("text",), ("audio",)),
    "text-to-image": (("text",), ("image",)),
    "image-to-image": (("image",), ("image",)),
    "text-to-video": (("text",), ("video",)),
    "image-classification": (("image",), ("label",)),
    "image-to-text": (("image",), ("text",)),
    "translation": (("text",), ("text",)),
    "summarization": (("text",), ("text",)),
}
# What a class name of transformers ends in, and what comes out of such a model.
_HEADS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("ForCausalLM", ("text",)),
    ("LMHeadModel", ("text",)),
    ("ForSequenceClassification", ("label",)),
    ("ForTokenClassification", ("label",)),
    ("ForSpeechSeq2Seq", ("text",)),
    ("ForCTC", ("text",)),
    ("ForMaskedLM", ("text",)),
)
_GENERATION_FIELDS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "do_sample",
                      "max_new_tokens", "max_length", "eos_token_id")  # fmt: skip
_LICENCE_FILES = ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "LICENCE.md", "LICENCE.txt",
                  "COPYING", "LICENSE.pdf", "USE_POLICY.md")  # fmt: skip


def _from_folder(root: Path, by_name: Mapping[str, Path]) -> Description:
    notes: list[str] = []
    fields: dict[str, Any] = {"size_bytes": files.total_bytes(list(by_name.values()))}
    if "config.json" in by_name:
        fields |= configuration.read(jsonfiles.read_object(by_name["config.json"]))
    if "hf_quant_config.json" in by_name and fields.get("quantisation") is None:
        stated = jsonfiles.read_object(by_name["hf_quant_config.json"])
        fields["quantisation"] = configuration.quantisation_from(stated)
    found_tokens, token_notes = tokenizer.read(root)
    notes += token_notes
    fields = _merged(fields, found_tokens)
    adapter = _adapter(by_name)
    fields |= _weights(by_name, fields, adapter, notes)
    fields["generation"] = _generation(by_name, notes)
    fields["licence_file"] = next((name for name in _LICENCE_FILES if name in by_name), None)
    is_model = fields.get("architecture") or fields.get("format") or adapter
    if not is_model and "model_index.json" not in by_name:
        raise InvalidInput(
            f"{root.name} holds no model: no config.json, no weights and no adapter.",
            remedy="Name the folder that holds them.",
        )
    if adapter is not None:
        fields |= {"kind": "adapter", "adapter": adapter, "base_model_relation": "adapter"}
        fields["base_models"] = (adapter.base_model,) if adapter.base_model else ()
    described = Description(**fields, notes=tuple(notes))
    if "README.md" in by_name:
        described = _with_card(described, by_name["README.md"])
    return _with_abilities(described)


def _merged(known: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`known`, with what it does not say from `more`."""
    return {**more, **{name: value for name, value in known.items() if value not in (None, ())}}


def _with_card(described: Description, card: Path) -> Description:
    stated, note = model_card.read(card)
    known = {name: getattr(described, name) for name in stated}
    # What a file of the model itself says stands above its card.
    merged = {**stated, **{name: value for name, value in known.items() if value}}
    notes = (*described.notes, note) if note else described.notes
    return described.model_copy(update={**merged, "notes": notes})


def _weights(
    by_name: Mapping[str, Path],
    fields: Mapping[str, Any],
    adapter: Adapter | None,
    notes: list[str],
) -> dict[str, Any]:
    """Format, parameters and precision from the headers of the weights."""
    shards, index = _shards(by_name, adapter)
    if not shards:
        is_torch = any(_TORCH.fullmatch(name) for name in by_name)
        if is_torch:
            notes.append("The weights are pickles, which are not opened: parameters are unknown.")
        return {"format": "pytorch"} if is_torch else {}
    headers = safetensors.read_shards(shards, index)
    quantisation: Quantisation | None = fields.get("quantisation")
    counted = safetensors.count(
        headers,
        method=quantisation.method if quantisation else None,
        bits=quantisation.bits if quantisation else None,
        experts=fields.get("experts"),
        experts_per_token=fields.get("experts_per_token"),
    )
    stored = max(counted.by_dtype, key=counted.by_dtype.__getitem__, default=None)
    label = quantisation.label if quantisation else stored
    return {
        "format": "safetensors",
        "parameters": counted.parameters,
        "parameters_estimated": counted.is_estimated,
        "active_parameters": counted.active,
        "precision": fields.get("precision") or stored,
        "quantization": label[:20] if label else None,
    }


def _shards(by_name: Mapping[str, Path], adapter: Adapter | None) -> tuple[list[Path], Path | None]:
    """The weights of the model, once: some folders hold them in two layouts, or in two types."""
    if adapter is not None and _ADAPTER_WEIGHTS in by_name:
        return [by_name[_ADAPTER_WEIGHTS]], None
    index = by_name.get("model.safetensors.index.json")
    if index is not None:
        names = sorted(set(safetensors.read_index(index).values()))
        missing = [name for name in names if name not in by_name]
        if missing:
            raise InvalidInput(
                f"Of the {len(names)} files of weights {len(missing)} are missing: {missing[0]}.",
                remedy="Put every part into one folder.",
            )
        return [by_name[name] for name in names], index
    if "model.safetensors" in by_name:
        return [by_name["model.safetensors"]], None
    if "model_index.json" in by_name:
        return _pipeline_parts(by_name), None
    top = sorted(name for name in by_name if name.endswith(".safetensors") and "/" not in name)
    _check_complete(top)
    return [by_name[name] for name in top], None


def _pipeline_parts(by_name: Mapping[str, Path]) -> list[Path]:
    """The weights of a diffusion pipeline's parts: one file each, not its variants."""
    variants = (".fp16.safetensors", ".bf16.safetensors", ".non_ema.safetensors")
    names = [name for name in by_name if name.endswith(".safetensors") and name.count("/") == 1]
    plain = [name for name in names if not name.endswith(variants)]
    return [by_name[name] for name in sorted(plain or names)]


def _check_complete(names: Sequence[str]) -> None:
    """Refuse a model whose file names say that more of them belong to it."""
    counts: dict[tuple[str, int], int] = {}
    for name in names:
        if shard := _SHARD.fullmatch(name):
            key = (shard[1], int(shard[2]))
            counts[key] = counts.get(key, 0) + 1
    for (stem, count), have in counts.items():
        if have != count:
            raise InvalidInput(
                f"Of {stem} in {count} parts there are {have}.",
                remedy="Put every part into one folder.",
            )


def _adapter(by_name: Mapping[str, Path]) -> Adapter | None:
    path = by_name.get("adapter_config.json")
    if path is None:
        return None
    stated = jsonfiles.read_object(path)
    targets = stated.get("target_modules")
    targets = [targets] if isinstance(targets, str) else targets
    return Adapter(
        method=_string(stated.get("peft_type"), 40),
        base_model=_string(stated.get("base_model_name_or_path"), 200),
        rank=_whole(stated.get("r")),
        alpha=_whole(stated.get("lora_alpha")),
        target_modules=tuple(sorted(str(name)[:80] for name in targets))
        if isinstance(targets, list)
        else (),
        task=_string(stated.get("task_type"), 40),
    )


def _generation(by_name: Mapping[str, Path], notes: list[str]) -> dict[str, Any]:
    path = by_name.get("generation_config.json")
    if path is None:
        return {}
    try:
        stated = jsonfiles.read_object(path)
    except InvalidInput as error:
        notes.append(error.what)
        return {}
    kept = {name: stated[name] for name in _GENERATION_FIELDS if stated.get(name) is not None}
    return {name: value for name, value in kept.items() if isinstance(value, int | float | list)}


def _with_abilities(described: Description) -> Description:
    """What goes in and comes out of a model, and what it can be asked to do."""
    stated_in, stated_out = _PIPELINES.get(described.pipeline_tag or "", ((), ()))
    by_class = next(
        (out for end, out in _HEADS if (described.architecture_class or "").endswith(end)), ()
    )
    # A head of classification also carries rerankers and reward models: there the card knows.
    out = stated_out or by_class
    inputs = tuple(dict.fromkeys((*described.modalities_in, *stated_in)))
    return described.model_copy(
        update={
            "modalities_in": inputs,
            "modalities_out": out,
            "capabilities": tuple(_abilities(described, inputs, out)),
        }
    )


def _abilities(described: Description, inputs: tuple[str, ...], out: tuple[str, ...]) -> list[str]:
    found = []
    if "text" in out and "audio" in inputs and "text" not in inputs:
        found.append("transcription")
    elif "text" in out:
        found += ["chat"] if described.chat_template else []
        found.append("completion")
    found += ["embedding"] if "embedding" in out else []
    found += ["rerank"] if "score" in out else []
    found += ["vision"] if "image" in inputs and "text" in out else []
    found += ["image"] if "image" in out else []
    found += ["speech"] if "audio" in out else []
    return found


def _string(value: Any, longest: int) -> str | None:
    return value[:longest] if isinstance(value, str) and value else None


def _whole(value: Any) -> int | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value) if is_number and 0 <= value < 1 << 31 else None
