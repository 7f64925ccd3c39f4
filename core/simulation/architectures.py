"""The models the simulator knows, found by any name they go by."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from core.kernel.errors import InvalidInput, NotFound
from core.registry.gguf import read_header
from core.simulation.gguf_configs import from_gguf
from core.simulation.model_configs import from_config
from core.simulation.transformer import Architecture

__all__ = [
    "Architecture",
    "find",
    "from_config",
    "from_gguf",
    "precision_hint",
    "read_file",
    "records",
]

_DATA = Path(__file__).with_name("data")
_NEAREST = 3
# Words of a name that change the weights but not the shape of the model.
_TUNING = frozenset({
    "instruct", "chat", "it", "hf", "kv", "base", "thinking", "preview", "gguf", "mlx", "dynamic",
    "bnb", "unsloth", "latest", "quantized", "text", "qat", "mixed", "pt", "sft", "dpo", "0324",
    "0528",
    "2407", "2410", "2411", "2412", "2501", "2503", "2506", "2507", "2508", "2512",
})  # fmt: skip
_PRECISIONS: tuple[tuple[str, str], ...] = (
    (r"(nv|mx)?fp4|w4a4|w4afp8", "fp4"),
    (r"fp8|f8|w8a8fp8|e4m3", "fp8"),
    (r"int8|w8a8|w8a16|8bit|i?q8", "int8"),
    (r"awq|int4|gptq|w4a16|4bit|i?q4", "int4"),
    (r"bf16|fp16|f16|bfloat16|float16", "bf16"),
)
# Folders of the Hugging Face cache: `…/hub/models--Qwen--Qwen3-32B/snapshots/…`.
_HUB_CACHE = re.compile(r"models--[^/]+--([^/]+)")
# `-FP4-v2` is a second recipe, and `Q4_K_M` one word.
_RECIPES = ((r"(fp[48])-v\d+", r"\1"), (r"[-._](i?q\d)(_[a-z0-9]+)*", r"-\1"), (r"\.gguf$", ""))


@functools.cache
def records() -> Mapping[str, Architecture]:
    """The shipped architectures by id, such as `deepseek-v3` or `llama-3.1-8b`."""
    entries: list[dict[str, Any]] = json.loads(
        (_DATA / "architectures.json").read_text(encoding="utf-8")
    )
    return MappingProxyType({entry["id"]: Architecture(**entry) for entry in entries})


@functools.lru_cache(maxsize=4096)
def find(name: str) -> Architecture:
    """The architecture of a model, by Hugging Face id, local path or short name.

    Case and organisation do not matter, nor do words for the tuning or the precision of a copy
    (`-Instruct`, `-FP8`, `-NVFP4`, `-AWQ` …); any other word must match.

    Raises:
        NotFound: No such model; names the three nearest.
    """
    bare = _bare(name)
    for candidate in (name.strip().lower(), _short(name), bare, bare.replace("-", "")):
        identifier = _names().get(candidate)
        if identifier is not None:
            return records()[identifier]
    nearest = difflib.get_close_matches(bare, _names(), n=_NEAREST * 4, cutoff=0.0)
    ids = list(dict.fromkeys(_names()[match] for match in nearest))[:_NEAREST]
    raise NotFound(
        f"No model of the name {name[:120]!r} is known to the simulator.",
        remedy=f"The nearest are {', '.join(ids)}; or give its config.json or GGUF file.",
    )


def read_file(path: Path) -> Architecture:
    """The architecture of the model in a GGUF file, a `config.json`, or a folder with one.

    Its id is the name of the file or, of a `config.json`, of its folder.

    Raises:
        InvalidInput: There is no such file, or it describes no model that can be simulated.
    """
    path = path.expanduser()
    if path.is_dir():
        path = _file_in(path)
    if path.suffix != ".json":
        header = read_header(path)
        # Of a model in several files, the first one counts its own tensors only.
        is_whole = header.metadata.get("split.count", 0) in (0, 1)
        shape = from_gguf(
            header.metadata,
            path.stem,
            vocabulary=header.array_lengths.get("tokenizer.ggml.tokens"),
            parameters=header.parameters if is_whole else None,
        )
        return replace(shape, stored_bytes=_stored_bytes(path))
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(
            f"{path} cannot be read as JSON: {error}.", remedy="Check the path and the file."
        ) from error
    if not isinstance(config, dict):
        raise InvalidInput(f"{path} holds no configuration of a model.")
    return from_config(config, path.absolute().parent.name)


def _stored_bytes(path: Path) -> int:
    """The size of a GGUF file; of a model in several, that of all (`…-00001-of-00003.gguf`)."""
    part = re.fullmatch(r"(.+-)\d{5}(-of-\d{5}\.gguf)", path.name)
    files = path.parent.glob(f"{part[1]}*{part[2]}") if part else [path]
    return sum(file.stat().st_size for file in files)


def _file_in(folder: Path) -> Path:
    for candidate in (folder / "config.json", *sorted(folder.glob("*.gguf"))):
        if candidate.is_file():
            return candidate
    raise InvalidInput(f"There is no config.json and no GGUF file in {folder}.")


def precision_hint(name: str) -> str | None:
    """What a model's name says of its precision: fp4, fp8, int8, int4, bf16, or None."""
    words = _words(_short(name))
    for pattern, precision in _PRECISIONS:
        if any(re.fullmatch(pattern, word) for word in words):
            return precision
    return None


@functools.cache
def _names() -> Mapping[str, str]:
    """Every name in lower case to its id; bare names only where they mean one model."""
    aliases: dict[str, str] = json.loads((_DATA / "aliases.json").read_text(encoding="utf-8"))
    given = {**{key: key for key in records()}, **aliases}
    names: dict[str, str] = {}
    for name, identifier in given.items():
        names[name.lower()] = names[_short(name)] = identifier
    bare: dict[str, set[str]] = {}
    for name, identifier in given.items():
        # Also as one word: `llama3.1:8b`, `gptoss120b`.
        for form in (_bare(name), _bare(name).replace("-", "")):
            bare.setdefault(form, set()).add(identifier)
    unique = {form: min(ids) for form, ids in bare.items() if form and len(ids) == 1}
    return MappingProxyType(unique | names)


def _short(name: str) -> str:
    """Without the organisation or the folders before it."""
    cached = _HUB_CACHE.search(name)
    if cached is not None:
        return cached[1].lower()
    return name.strip().lower().replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]


def _words(short: str) -> list[str]:
    for pattern, replacement in _RECIPES:
        short = re.sub(pattern, replacement, short)
    return [word for word in re.split(r"[-_\s:]+|\.(?=w\d)", short) if word]


def _bare(name: str) -> str:
    """`Qwen/Qwen3-235B-A22B-Instruct-2507-FP8` → `qwen3-235b-a22b`."""
    return "-".join(word for word in _words(_short(name)) if not _is_variant(word))


def _is_variant(word: str) -> bool:
    return word in _TUNING or any(re.fullmatch(pattern, word) for pattern, _ in _PRECISIONS)
