"""What is known of the licences of models, and which class of use each belongs to.

The shipped list names the licence on the model's own card. The licence of a model of the
registry is the one that its file or the hub gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PERMISSIVE, CONDITIONAL, NON_COMMERCIAL, UNKNOWN = (
    "permissive",
    "with conditions",
    "non-commercial",
    "unknown",
)
UNKNOWN_LICENCE = "unknown licence"

_APACHE, _MIT, _MODIFIED_MIT = "apache-2.0", "mit", "modified-mit"
SHIPPED: Mapping[str, str] = {
    "bloom-7b1": "bigscience-bloom-rail-1.0",
    "decilm-7b": _APACHE,
    # Of R1, V3-0324 and later; the first V3 came with a licence of DeepSeek's own.
    "deepseek-v3": _MIT,
    "glm-5": _MIT,
    "gpt-j-6b": _APACHE,
    "gpt-oss-120b": _APACHE,
    "gpt-oss-20b": _APACHE,
    "kimi-k2.5": _MODIFIED_MIT,
    "llama-2-13b": "llama2",
    "llama-2-70b": "llama2",
    "llama-2-7b": "llama2",
    "llama-3-70b": "llama3",
    "llama-3-8b": "llama3",
    "llama-3.1-405b": "llama3.1",
    "llama-3.1-70b": "llama3.1",
    "llama-3.1-8b": "llama3.1",
    "minimax-m2": _MODIFIED_MIT,
    "mistral-7b-v0.1": _APACHE,
    "mixtral-8x22b": _APACHE,
    "mixtral-8x7b": _APACHE,
    "qwen1.5-7b": "tongyi-qianwen",
    "qwen2-72b": "tongyi-qianwen",
    "qwen2-7b": _APACHE,
    "qwen3-0.6b": _APACHE,
    "qwen3-1.7b": _APACHE,
    "qwen3-235b-a22b": _APACHE,
    "qwen3-30b-a3b": _APACHE,
    "qwen3-32b": _APACHE,
    "qwen3-8b": _APACHE,
    "qwen3.5-397b-a17b": _APACHE,
    "smollm2-135m": _APACHE,
}

_CLASSES = (
    (NON_COMMERCIAL, ("-nc", "non-commercial", "noncommercial", "research")),
    (PERMISSIVE, ("apache", "bsd", "cc-by-4.0", "cc0", "isc", "unlicense")),
    (
        CONDITIONAL,
        ("llama", "gemma", "rail", "tongyi", "qianwen", "qwen", "modified-mit", "deepseek"),
    ),
)


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence by its short name, and what it lets one do: one of the four classes."""

    name: str
    use: str


def of_model(model_id: str, registered: Mapping[str, str | None]) -> Licence:
    """The licence of a model by its id; `registered` holds those of the registry's models."""
    name = registered.get(model_id) or SHIPPED.get(model_id)
    if not name:
        return Licence(UNKNOWN_LICENCE, UNKNOWN)
    return Licence(name, _use(name.lower()))


def _use(name: str) -> str:
    if name == _MIT:
        return PERMISSIVE
    for use, words in _CLASSES:
        if any(word in name for word in words):
            return use
    return UNKNOWN
