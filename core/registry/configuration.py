"""Reads what a `config.json` says of a model: shape, context, experts, precision, quantisation.

Field names are those of Hugging Face transformers and of the quantisers' own documentation. What
a type fixes without writing it down stays unknown: nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from core.kernel.errors import InvalidInput
from core.registry.description import Quantisation

_MAX_NUMBER = 1 << 31
_TEXT_PARTS = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")
_PRECISIONS = {
    "bfloat16": "BF16", "float16": "F16", "half": "F16", "float32": "F32", "float": "F32",
    "float8_e4m3fn": "FP8", "float8_e5m2": "FP8",
}  # fmt: skip
# Every field of a description, with the names that types give it; the first that is there counts.
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_attention_heads"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num"),
    "embedding_length": ("hidden_size", "n_embd", "d_model", "dim", "model_dim"),
    "intermediate_length": ("intermediate_size", "ffn_hidden_size", "n_inner", "d_ff", "ffn_dim",
                            "hidden_dim", "decoder_ffn_dim"),
    "vocabulary": ("vocab_size", "padded_vocab_size"),
    "experts": ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"),
    "experts_per_token": ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_top_k",
                          "moe_k", "top_k_experts"),
    "shared_experts": ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"),
}  # fmt: skip
_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length",
            "max_seq_len", "n_ctx", "max_target_positions")  # fmt: skip
# How longer contexts are made of `original_max_position_embeddings`, where it is written down.
_STRETCHED = frozenset({"yarn", "longrope", "su", "dynamic"})


def read(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Description` that a `config.json` gives.

    Raises:
        InvalidInput: A number is impossible.
    """
    text = _text_part(config)
    found: dict[str, Any] = {
        field: _number(text, config, names) for field, names in _FIELDS.items()
    }
    heads = found["heads"]
    if found["kv_heads"] is None:
        found["kv_heads"] = 1 if text.get("multi_query") is True else heads
    found |= _head_lengths(text, found)
    if found["experts"] in (0, 1):
        found["experts"] = found["experts_per_token"] = None
    quantisation = read_quantisation(config)
    classes = config.get("architectures")
    return found | {
        "architecture": _text(config.get("model_type") or text.get("model_type"), 60),
        "architecture_class": _text(classes[0], 120) if isinstance(classes, list) and classes
        else None,
        "context_tokens": _context(text, config),
        "precision": _precision(config, text),
        "quantisation": quantisation,
        "modalities_in": _modalities(config, text),
        "custom_code": isinstance(config.get("auto_map"), dict),
    }  # fmt: skip


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in _TEXT_PARTS:
        part = config.get(key)
        if isinstance(part, dict) and part:
            # Omni models nest twice: `thinker_config.text_config`.
            return _text_part(part)
    return config


def _number(
    text: Mapping[str, Any], config: Mapping[str, Any], names: tuple[str, ...]
) -> int | None:
    for holder in (text, config):
        for name in names:
            value = holder.get(name)
            if isinstance(value, list) and value and all(type(item) is int for item in value):
                value = max(value)
            if value is None or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if value != int(value) or not 0 <= value < _MAX_NUMBER:
                raise InvalidInput(
                    f"config.json gives an impossible {name}.",
                    value=value,
                    remedy="Download it again and compare it with the publisher's.",
                )
            return int(value)
    return None


def _head_lengths(text: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, int | None]:
    names: dict[str, tuple[str, ...]] = {
        "key_length": ("head_dim", "kv_channels"),
        "value_length": ("v_head_dim", "head_dim", "kv_channels"),
    }
    lengths = {field: _number(text, text, options) for field, options in names.items()}
    rope, plain = (
        _number(text, text, ("qk_rope_head_dim",)),
        _number(text, text, ("qk_nope_head_dim",)),
    )
    if rope is not None and plain is not None:
        lengths["key_length"] = rope + plain
    width, heads = found["embedding_length"], found["heads"]
    if width and heads and width % heads == 0:
        lengths = {field: length or width // heads for field, length in lengths.items()}
    return lengths


def _context(text: Mapping[str, Any], config: Mapping[str, Any]) -> int | None:
    stated = _number(text, config, _CONTEXT)
    rope = text.get("rope_scaling") or text.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(rope, dict) or stated is None:
        return stated
    kind = rope.get("rope_type") or rope.get("type")
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
    if kind not in _STRETCHED or not _is_number(factor) or not _is_number(original):
        return stated
    # Where the stated length is that before stretching; most state it stretched.
    is_stretched = original < stated or not 1 <= factor <= 1024
    return stated if is_stretched else min(int(original * factor), _MAX_NUMBER - 1)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _precision(config: Mapping[str, Any], text: Mapping[str, Any]) -> str | None:
    for holder in (config, text):
        stated = holder.get("dtype") or holder.get("torch_dtype")
        if isinstance(stated, str):
            return _PRECISIONS.get(stated.removeprefix("torch."))
    return None


def _modalities(config: Mapping[str, Any], text: Mapping[str, Any]) -> tuple[str, ...]:
    thinker = config.get("thinker_config")
    holders = [config, thinker] if isinstance(thinker, dict) else [config]
    keys = {key for holder in holders for key, value in holder.items() if value is not None}
    found = ["text"] if text.get("vocab_size") else []
    if keys & {"vision_config", "vision_tower", "mm_vision_tower", "img_processor", "vit_config",
               "visual", "image_token_id", "image_token_index"}:  # fmt: skip
        found.append("image")
    if keys & {"video_token_id", "video_token_index"}:
        found.append("video")
    if keys & {"audio_config", "audio_processor", "audio_token_id", "num_mel_bins", "sound_config"}:
        found.append("audio")
    return tuple(found)


def _text(value: Any, longest: int) -> str | None:
    return value[:longest] if isinstance(value, str) and value else None


# --- quantisation ----------------------------------------------------------------------------


def read_quantisation(config: Mapping[str, Any]) -> Quantisation | None:
    """How the weights are quantised, from `quantization_config` or its older names."""
    text = _text_part(config)
    stated = next(
        (
            holder[key]
            for holder in (config, text)
            for key in ("quantization_config", "compression_config")
            if isinstance(holder.get(key), dict)
        ),
        None,
    )
    return quantisation_from(stated) if stated else None


def quantisation_from(stated: Mapping[str, Any]) -> Quantisation | None:
    """What a `quantization_config`, or the file of NVIDIA's ModelOpt, says."""
    if isinstance(stated.get("quantization"), dict):
        # hf_quant_config.json of ModelOpt keeps it one level down.
        stated = {"quant_method": "modelopt", **stated["quantization"]}
    method = _text(stated.get("quant_method"), 40)
    method = method.lower() if method else None
    if method is None and (stated.get("load_in_4bit") or stated.get("load_in_8bit")):
        method = "bitsandbytes"
    if method is None:
        return None
    if method in ("compressed-tensors", "compressed_tensors"):
        return _compressed_tensors(stated)
    if method == "bitsandbytes":
        return _bitsandbytes(stated)
    algorithm = str(stated.get("quant_algo") or "").lower()
    if method.startswith("modelopt") or algorithm:
        return _modelopt(stated, algorithm)
    bits = _small(stated.get("bits") or stated.get("w_bit") or stated.get("nbits"))
    group = _small(stated.get("group_size") or stated.get("q_group_size"))
    if method in ("fp8", "fbgemm_fp8"):
        block = stated.get("weight_block_size")
        group = block[0] if isinstance(block, list) and block and type(block[0]) is int else group
        return Quantisation(method=method, label="FP8", bits=8, group_size=group)
    if method == "mxfp4":
        return Quantisation(method=method, label="MXFP4", bits=4, group_size=32)
    label = method.upper() + (f"-Int{bits}" if bits else "")
    return Quantisation(method=method, label=label[:20], bits=bits, group_size=group)


def _bitsandbytes(stated: Mapping[str, Any]) -> Quantisation:
    if stated.get("load_in_4bit") or stated.get("_load_in_4bit"):
        kind = str(stated.get("bnb_4bit_quant_type") or "fp4").lower()
        label = f"BNB-{kind.upper()}"[:20]
        return Quantisation(method="bitsandbytes-4bit", label=label, bits=4, format=kind[:20])
    return Quantisation(method="bitsandbytes-8bit", label="BNB-Int8", bits=8)


def _modelopt(stated: Mapping[str, Any], algorithm: str) -> Quantisation:
    group = _small(stated.get("group_size"))
    if "nvfp4" in algorithm or "fp4" in algorithm:
        return Quantisation(method="nvfp4", label="NVFP4", bits=4, group_size=group or 16)
    if "fp8" in algorithm:
        return Quantisation(method="fp8", label="FP8", bits=8, group_size=group)
    found = re.search(r"(?:w|int)(\d)", algorithm)
    bits = int(found[1]) if found else None
    label = f"ModelOpt-{algorithm.upper() or '?'}"[:20]
    return Quantisation(method="modelopt", label=label, bits=bits, group_size=group)


def _compressed_tensors(stated: Mapping[str, Any]) -> Quantisation:
    groups = stated.get("config_groups")
    first = _object(next(iter(_object(groups).values()), None))
    weights, inputs = _object(first.get("weights")), _object(first.get("input_activations"))
    bits, group = _small(weights.get("num_bits")), _small(weights.get("group_size"))
    form = _text(first.get("format") or stated.get("format"), 40) or ""
    is_float = weights.get("type") == "float"
    if form.startswith("nvfp4") or (is_float and bits == 4 and group == 16):
        label = "NVFP4"
    elif form.startswith("mxfp4") or (is_float and bits == 4):
        label = "MXFP4"
    elif is_float and bits == 8:
        label = "FP8"
    else:
        label = f"W{bits or '?'}A{_small(inputs.get('num_bits')) or 16}"
    method = "compressed-tensors" if label.startswith("W") or bits is None else label.lower()
    return Quantisation(
        method=method, label=label, bits=bits, group_size=group, format=form or None
    )


def _small(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 1 << 20 else None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
