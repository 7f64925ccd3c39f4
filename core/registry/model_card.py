"""Reads the front matter of a model card: the YAML between two lines of dashes in README.md.

Field names are those of the Hugging Face hub ("Model Cards", "Model card metadata").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from core.registry.description import Relation

_MAX_BYTES = 2 << 20
_MAX_FRONT_BYTES = 1 << 20
_MAX_VALUES = 200
_MAX_DEPTH = 50
_FRONT = re.compile(
    rb"\A(?:\xef\xbb\xbf)?\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL
)
_TITLE = re.compile(r"^#\s+(.+?)\s*#*$", re.MULTILINE)
_RELATIONS: Mapping[str, Relation] = {
    "finetune": "finetune", "quantized": "quantized", "adapter": "adapter", "merge": "merge",
}  # fmt: skip


def read(path: Path) -> tuple[dict[str, Any], str]:
    """The fields of a `Description` that the card at `path` gives, and a note.

    The note says why the front matter could not be read; it is empty otherwise. A broken card is
    no error: all else is known without it.
    """
    with path.open("rb") as file:
        text = file.read(_MAX_BYTES)
    front = _FRONT.match(text)
    body = text[front.end() :] if front else text
    title = _TITLE.search(body.decode("utf-8", "replace"))
    found: dict[str, Any] = {"title": title[1][:200] if title else None}
    if front is None:
        is_open = text.lstrip(b"\xef\xbb\xbf \r\n").startswith(b"---")
        return found, f"{path.name}: its front matter has no end." if is_open else ""
    try:
        values = _parse(front[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = getattr(error, "problem", None) or str(error) or type(error).__name__
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 2}" if mark is not None else ""
        return found, f"{path.name}: its front matter is no YAML{where}: {str(why)[:160]}."
    return found | _fields(values), ""


def _parse(front: bytes) -> Mapping[str, Any]:
    if len(front) > _MAX_FRONT_BYTES:
        raise ValueError(f"it has {len(front):,} bytes")
    text = front.decode("utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    _check_depth(yaml.parse(text, loader))
    values = yaml.load(text, loader)  # noqa: S506 (both are safe loaders)
    if not isinstance(values, dict):
        raise ValueError("it holds no fields")
    return values


def _check_depth(events: Iterable[yaml.Event]) -> None:
    # The loader in C recurses without a limit: 100,000 brackets end the process.
    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")


def _fields(values: Mapping[str, Any]) -> dict[str, Any]:
    relation = values.get("base_model_relation")
    return {
        "licence": _word(values.get("license")),
        "licence_name": _word(values.get("license_name")),
        "licence_link": _word(values.get("license_link"), 400),
        "languages": _words(values.get("language") or values.get("languages")),
        "datasets": _words(values.get("datasets")),
        "base_models": _words(values.get("base_model")),
        "base_model_relation": _RELATIONS.get(relation) if isinstance(relation, str) else None,
        "pipeline_tag": _word(values.get("pipeline_tag")),
        "library": _word(values.get("library_name")),
        "tags": _words(values.get("tags")),
    }


def _word(value: Any, longest: int = 120) -> str | None:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value.strip()[:longest] or None if isinstance(value, str) else None


def _words(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    # YAML reads the language code of Norwegian as a boolean.
    texts = ("no" if item is False else item for item in values[:_MAX_VALUES])
    found = (item.strip()[:200] for item in texts if isinstance(item, str) and item.strip())
    return tuple(dict.fromkeys(found))
