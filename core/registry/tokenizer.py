"""Reads the files of a tokenizer: vocabulary, special tokens, chat template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from core.kernel.errors import InvalidInput
from core.registry import chat_templates, jsonfiles

_MAX_TOKENIZER_BYTES = 64 << 20
_MAX_TEMPLATE_BYTES = 4 << 20
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token",
            "mask_token")  # fmt: skip


class _Added(msgspec.Struct):
    id: int


class _Model(msgspec.Struct):
    type: str | None = None
    vocab: dict[str, int] | list[Any] = {}


class _Tokenizer(msgspec.Struct):
    """The fields of tokenizer.json that are read; the rest is skipped, not kept."""

    model: _Model
    added_tokens: list[_Added] = []


def read(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The fields of a `Description` that the tokenizer in `folder` gives, and notes.

    `vocabulary` is the largest token's number plus one, which is what the embedding has to hold.
    A broken file is a note: all else is known without it.
    """
    notes: list[str] = []
    config = _object(folder / "tokenizer_config.json", notes)
    found: dict[str, Any] = {}
    if special := _special_tokens(config | _object(folder / "special_tokens_map.json", notes)):
        found["special_tokens"] = special
    found |= _vocabulary(folder, config, notes)
    template = read_template(folder, config, notes)
    if config or template is not None:
        found["chat_template"] = template is not None
    if template is not None:
        found |= template_fields(template, notes)
    return found, notes


def template_fields(template: str, notes: list[str]) -> dict[str, Any]:
    """The fields of a `Description` that a chat template gives; what is unsure goes to `notes`."""
    facts = chat_templates.read(template)
    if facts.note:
        notes.append(f"{facts.note[0].upper()}{facts.note[1:]}.")
    return {
        "tools": facts.tools,
        "reasoning": facts.reasoning,
        "reasoning_switch": facts.reasoning_switch,
    }


def read_template(folder: Path, config: Mapping[str, Any], notes: list[str]) -> str | None:
    """The default chat template: of its own file, else of tokenizer_config.json.

    Of several named ones, `tool_use` is added to `default`, as transformers chooses between them.
    """
    own = folder / "chat_template.jinja"
    if own.is_file():
        if own.stat().st_size <= _MAX_TEMPLATE_BYTES:
            return own.read_text(encoding="utf-8", errors="replace")
        notes.append("chat_template.jinja is over 4 MB and was not read.")
    stated = config.get("chat_template")
    if stated is None:
        stated = _object(folder / "chat_template.json", notes).get("chat_template")
    if isinstance(stated, list):
        named = {entry.get("name"): entry.get("template") for entry in stated
                 if isinstance(entry, dict)}  # fmt: skip
        texts = [named.get(name) for name in ("default", "tool_use")]
        stated = "".join(text for text in texts if isinstance(text, str)) or None
    return stated if isinstance(stated, str) and stated else None


def _object(path: Path, notes: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return jsonfiles.read_object(path)
    except InvalidInput as error:
        notes.append(error.what)
        return {}


def _special_tokens(stated: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name in _SPECIAL:
        value = stated.get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text[:200]
    return found


def _vocabulary(folder: Path, config: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    path = folder / "tokenizer.json"
    kind = config.get("tokenizer_class")
    found: dict[str, Any] = {"tokenizer": kind[:60] if isinstance(kind, str) else None}
    if not path.is_file():
        return found
    try:
        if path.stat().st_size > _MAX_TOKENIZER_BYTES:
            notes.append("tokenizer.json is over 64 MB and was not read.")
            return found
        tokenizer = msgspec.json.decode(path.read_bytes(), type=_Tokenizer)
    except (OSError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        notes.append(f"tokenizer.json cannot be read: {str(error)[:160]}.")
        return found
    vocabulary = tokenizer.model.vocab
    numbers = vocabulary.values() if isinstance(vocabulary, dict) else (len(vocabulary) - 1,)
    last = max((*numbers, *(token.id for token in tokenizer.added_tokens)), default=-1)
    kind = tokenizer.model.type
    return found | {
        "vocabulary": last + 1 if last >= 0 else None,
        "tokenizer": found["tokenizer"] or (kind[:60] if kind else None),
    }
