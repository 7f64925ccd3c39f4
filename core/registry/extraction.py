"""Turns a GGUF header into the columns of a model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from core.kernel.errors import InvalidInput
from core.registry import files
from core.registry.description import Description
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


def describe(paths: list[Path]) -> dict[str, Any]:
    """The columns of a model's row from its files: `extract(paths).columns()`.

    Raises:
        InvalidInput: As `extract`.
    """
    return extract(paths).columns()


def extract(paths: list[Path]) -> Description:
    """All that the files of one model say.

    Args:
        paths: The parts of a GGUF model, the first of them first; or one folder with a model.

    Raises:
        InvalidInput: A file that the model needs is missing or broken, or there is no model.
    """
    return _from_gguf(paths)


def _from_gguf(parts: list[Path]) -> Description:
    headers = [read_header(part) for part in parts]
    first = headers[0]
    _check_is_model(first, parts[0].name)
    return Description(
        format="gguf",
        size_bytes=files.total_bytes(parts),
        architecture=first.architecture,
        parameters=sum(header.parameters for header in headers),
        quantization=first.quantization,
        context_tokens=first.of_architecture("context_length"),
        layers=first.of_architecture("block_count"),
        heads=first.of_architecture("attention.head_count"),
        kv_heads=first.of_architecture("attention.head_count_kv")
        or first.of_architecture("attention.head_count"),
        key_length=first.of_architecture("attention.key_length") or _head_dimension(first),
        value_length=first.of_architecture("attention.value_length") or _head_dimension(first),
        embedding_length=first.of_architecture("embedding_length"),
        vocabulary=first.array_lengths.get("tokenizer.ggml.tokens"),
        chat_template="tokenizer.chat_template" in first.metadata,
        licence=_text(first, "general.license"),
        capabilities=tuple(_capabilities(first)),
    )


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


def _capabilities(header: GgufHeader) -> list[str]:
    pooled = header.of_architecture("pooling_type")
    if header.architecture in _EMBEDDING_ARCHITECTURES or pooled not in (None, 0):
        return ["embedding"]
    # llama.cpp can pool the hidden states of any decoder, so it can embed too.
    chat = ["chat"] if "tokenizer.chat_template" in header.metadata else []
    return [*chat, "completion", "embedding"]


def _text(header: GgufHeader, key: str) -> str | None:
    value = header.metadata.get(key)
    return value[:120] if isinstance(value, str) and value else None
