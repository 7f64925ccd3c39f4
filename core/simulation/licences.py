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

# Where weights of one shape came under several licences, the newest release counts: DeepSeek V3
# and Llama 2 are two such. What is not sure is left out.
_SHIPPED = {
    "apache-2.0": """
        decilm-7b falcon-7b gemma-4-26b-a4b gemma-4-31b gpt-j-6b gpt-neox-20b gpt-oss-120b
        gpt-oss-20b granite-3.1-3b-a800m granite-3.3-2b granite-3.3-8b ministral-3-14b
        ministral-3-3b ministral-3-8b mistral-7b-v0.1 mistral-7b-v0.2 mistral-7b-v0.3
        mistral-nemo-12b mistral-small-24b mixtral-8x22b mixtral-8x7b olmo-2-13b olmo-2-1b
        olmo-2-32b olmo-2-7b olmoe-1b-7b qwen2-57b-a14b qwen2-7b qwen2.5-0.5b qwen2.5-1.5b
        qwen2.5-14b qwen2.5-32b qwen2.5-7b qwen3-0.6b qwen3-1.7b qwen3-14b qwen3-235b-a22b
        qwen3-30b-a3b qwen3-32b qwen3-4b qwen3-8b qwen3-coder-480b-a35b qwen3-next-80b-a3b
        qwen3.5-122b-a10b qwen3.5-27b qwen3.5-35b-a3b qwen3.5-397b-a17b seed-oss-36b smollm2-1.7b
        smollm2-135m smollm2-360m smollm3-3b tinyllama-1.1b""",
    "mit": """
        deepseek-r1-distill-qwen-1.5b deepseek-v3 deepseek-v3.2 deepseek-v4-flash deepseek-v4-pro
        glm-4-32b glm-4.5 glm-4.5-air glm-4.7-flash glm-5 glm-5.2 mimo-v2-flash
        moonlight-16b-a3b phi-3-medium phi-3-mini phi-3.5-moe phi-4 phi-4-mini""",
    "modified-mit": "kimi-k2 kimi-k2.5 minimax-m2",
    "minimax-community": "minimax-m3",
    "llama2": "codellama-34b llama-2-13b llama-2-70b llama-2-7b",
    "llama3": "llama-3-70b llama-3-8b",
    "llama3.1": "llama-3.1-405b llama-3.1-70b llama-3.1-8b",
    "llama3.2": "llama-3.2-1b llama-3.2-3b",
    "llama4": "llama-4-maverick llama-4-scout",
    "gemma": """
        gemma-2-27b gemma-2-2b gemma-2-9b gemma-2b gemma-3-12b gemma-3-1b gemma-3-27b gemma-3-4b
        gemma-7b""",
    "deepseek": "deepseek-moe-16b deepseek-v2 deepseek-v2-lite",
    "tongyi-qianwen": "qwen1.5-7b qwen2-72b qwen2.5-72b",
    "qwen-research": "qwen2.5-3b",
    "mistral-research": "ministral-8b mistral-large-123b mistral-small-22b",
    "nvidia-open-model": """
        nemotron-3-nano-30b-a3b nemotron-3-super-120b-a12b nemotron-3-ultra-550b-a55b
        nemotron-4-340b""",
    "bigscience-bloom-rail-1.0": "bloom-176b bloom-7b1",
    "bigcode-openrail-m": "starcoder2-3b starcoder2-7b",
    "falcon-llm": "falcon3-10b falcon3-1b falcon3-3b falcon3-7b",
    "falcon-180b": "falcon-180b",
    "cc-by-nc-4.0": "command-a-111b command-r-32b command-r-35b command-r-plus-104b",
}
SHIPPED: Mapping[str, str] = {
    model: licence for licence, models in _SHIPPED.items() for model in models.split()
}

_CLASSES = (
    (NON_COMMERCIAL, ("-nc", "non-commercial", "noncommercial", "research")),
    (PERMISSIVE, ("apache", "bsd", "cc-by-4.0", "cc0", "isc", "unlicense")),
    (
        CONDITIONAL,
        (
            *("llama", "gemma", "rail", "tongyi", "qianwen", "qwen", "modified-mit", "deepseek"),
            *("falcon", "nvidia-open-model", "minimax"),
        ),
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
    if name == "mit":
        return PERMISSIVE
    for use, words in _CLASSES:
        if any(word in name for word in words):
            return use
    return UNKNOWN
