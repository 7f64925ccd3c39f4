"""Reads a model's shape from the header of its GGUF file, as a `config.json` would give it.

Keys are those of llama.cpp (gguf-py/gguf/constants.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from core.kernel.errors import InvalidInput
from core.registry.gguf import FILE_TYPES
from core.simulation.model_configs import from_config
from core.simulation.transformer import Architecture

# llama.cpp's name of an architecture, where it is not the model type of transformers.
_MODEL_TYPES: Mapping[str, str] = {
    "llama4": "llama4_text",
    "mistral3": "mistral",
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "qwen2vl": "qwen2_vl_text",
    "qwen3vl": "qwen3_vl_text",
    "qwen3vlmoe": "qwen3_vl_moe_text",
    "qwen3next": "qwen3_next",
    "qwen35": "qwen3_5_text",
    "qwen35moe": "qwen3_5_moe_text",
    "gemma3": "gemma3_text",
    "phi2": "phi",
    "deepseek": "deepseek_v2",
    "deepseek2": "deepseek_v3",
    "glm-dsa": "glm_moe_dsa",
    "glm4moe": "glm4_moe",
    "gpt-oss": "gpt_oss",
    "minimax-m2": "minimax_m2",
    "command-r": "cohere",
    "starcoder": "gpt_bigcode",
    "gptneox": "gpt_neox",
    "nemotron_h_moe": "nemotron_h",
    "ernie4_5-moe": "ernie4_5_moe",
    "hunyuan-dense": "hunyuan_v1_dense",
}
_KEYS: Mapping[str, str] = {
    "embedding_length": "hidden_size",
    "context_length": "max_position_embeddings",
    "vocab_size": "vocab_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "v_head_dim",
    "attention.sliding_window": "sliding_window",
    "attention.chunk_size": "attention_chunk_size",
    "feed_forward_length": "intermediate_size",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "leading_dense_block_count": "first_k_dense_replace",
    "interleave_moe_layer_step": "interleave_moe_layer_step",
    "moe_latent_size": "moe_latent_size",
    "attention.kv_lora_rank": "kv_lora_rank",
    "attention.q_lora_rank": "q_lora_rank",
    "attention.indexer.head_count": "index_n_heads",
    "attention.indexer.key_length": "index_head_dim",
    "attention.indexer.top_k": "index_topk",
    "full_attention_interval": "full_attention_interval",
    "ssm.conv_kernel": "linear_conv_kernel_dim",
}


def from_gguf(
    metadata: Mapping[str, Any],
    id: str,  # noqa: A002
    *,
    vocabulary: int | None = None,
    parameters: int | None = None,
) -> Architecture:
    """The architecture that the header of a GGUF file describes.

    Args:
        metadata: The header's entries, as `core.registry.gguf.read_header` gives them.
        id: The name the architecture is to have.
        vocabulary: Length of `tokenizer.ggml.tokens`, where `metadata` leaves the list out.
        parameters: Sum over the tensors; it shows whether the output head is tied, which no
            entry says. Without it the model type's usual answer is taken.

    Raises:
        InvalidInput: The architecture is not known, or the header lacks what it needs.
    """
    name = metadata.get("general.architecture")
    if not isinstance(name, str):
        raise InvalidInput(f"The GGUF header of {id} does not say general.architecture.")
    config = _config(metadata, name, vocabulary)
    if name.startswith("nemotron_h"):
        config |= _nemotron_h(metadata, name)
    read = dataclasses.replace(
        from_config(config, id), native_precision=_precision(metadata), source="GGUF header"
    )
    if parameters is None:
        return read
    other = dataclasses.replace(read, tied_embeddings=not read.tied_embeddings)
    return min(read, other, key=lambda shape: abs(shape.total_params - parameters))


def _config(metadata: Mapping[str, Any], name: str, vocabulary: int | None) -> dict[str, Any]:
    values = {
        field: metadata[f"{name}.{key}"]
        for key, field in _KEYS.items()
        if f"{name}.{key}" in metadata
    }
    tokens = metadata.get("tokenizer.ggml.tokens")
    values.setdefault("vocab_size", vocabulary or (len(tokens) if tokens else None))
    values["model_type"] = _MODEL_TYPES.get(name, name)
    values["new_decoder_architecture"] = True  # of Falcon: the number of key-value heads is given
    layers = metadata.get(f"{name}.block_count")
    if isinstance(layers, int):
        # The layers for multi-token prediction stand at the end and are not run.
        values["num_hidden_layers"] = layers - int(metadata.get(f"{name}.nextn_predict_layers", 0))
    values |= _lists(values)
    values |= _windows(metadata, name)
    values |= _latent(metadata, name)
    values |= _delta_net(metadata, name)
    return values


def _lists(values: Mapping[str, Any]) -> dict[str, Any]:
    """One number where the header gives one a layer."""
    changed: dict[str, Any] = {}
    for field in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        each = values.get(field)
        if isinstance(each, list) and each:
            changed[field] = max(each)
    each = values.get("num_key_value_heads")
    if isinstance(each, list) and each and min(each) > 0:
        changed["num_key_value_heads_per_layer"] = each
    return changed


def _windows(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    pattern = metadata.get(f"{name}.attention.sliding_window_pattern")
    if isinstance(pattern, list) and pattern:
        kinds = ["sliding_attention" if windowed else "full_attention" for windowed in pattern]
        return {"layer_types": kinds}
    return {"sliding_window_pattern": pattern} if isinstance(pattern, int) else {}


def _latent(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Multi-head latent attention; newer files give its head sizes under names of their own."""
    if f"{name}.attention.kv_lora_rank" not in metadata:
        return {}
    key = metadata.get(f"{name}.attention.key_length_mla") or metadata.get(
        f"{name}.attention.key_length"
    )
    value = metadata.get(f"{name}.attention.value_length_mla") or metadata.get(
        f"{name}.attention.value_length"
    )
    rope = metadata.get(f"{name}.rope.dimension_count")
    nope = key - rope if isinstance(key, int) and isinstance(rope, int) else None
    return {"qk_nope_head_dim": nope, "qk_rope_head_dim": rope, "v_head_dim": value}


def _delta_net(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    heads = metadata.get(f"{name}.ssm.time_step_rank")
    inner = metadata.get(f"{name}.ssm.inner_size")
    if not isinstance(heads, int) or not isinstance(inner, int) or heads < 1:
        return {}
    return {
        "linear_num_value_heads": heads,
        "linear_value_head_dim": inner // heads,
        "linear_num_key_heads": metadata.get(f"{name}.ssm.group_count"),
        "linear_key_head_dim": metadata.get(f"{name}.ssm.state_size"),
    }


def _nemotron_h(metadata: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The pattern of Nemotron-H, from the layers' own key-value heads and MLP widths."""
    heads = metadata.get(f"{name}.ssm.time_step_rank")
    inner = metadata.get(f"{name}.ssm.inner_size")
    kv_heads = metadata.get(f"{name}.attention.head_count_kv")
    widths = metadata.get(f"{name}.feed_forward_length")
    if not (isinstance(kv_heads, list) and isinstance(widths, list) and heads and inner):
        raise InvalidInput(f"The GGUF header of a {name} model does not say what each layer is.")
    mlp = "E" if metadata.get(f"{name}.expert_count") else "-"
    letters = (
        "*" if kv else mlp if width else "M" for kv, width in zip(kv_heads, widths, strict=True)
    )
    return {
        "hybrid_override_pattern": "".join(letters),
        "mamba_num_heads": heads,
        "mamba_head_dim": inner // heads,
        "n_groups": metadata.get(f"{name}.ssm.group_count"),
        "ssm_state_size": metadata.get(f"{name}.ssm.state_size"),
        "conv_kernel": metadata.get(f"{name}.ssm.conv_kernel"),
    }


def _precision(metadata: Mapping[str, Any]) -> str:
    """Such as `q4_1`; a file that does not say is refused, for its size would be a guess."""
    kind = metadata.get("general.file_type")
    # llama.cpp sets bit 1024 when it had to work the type out.
    name = FILE_TYPES.get(kind & ~1024) if isinstance(kind, int) else None
    if name is None:
        raise InvalidInput("The GGUF header does not say general.file_type.", value=kind)
    return name.lower()
