"""Reads a model's shape from its `config.json`.

Field names are those of Hugging Face transformers (src/transformers/models/*/configuration_*.py).
A type that is not listed here is refused, because
the same field names mean different matrices in different types.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.kernel.errors import InvalidInput
from core.simulation.transformer import Architecture

# State of linear attention is kept in float32, its short convolution in BF16.
_STATE_BYTES, _CONVOLUTION_BYTES = 4, 2
_PATTERN_LETTERS = frozenset("M*E-")


@dataclass(frozen=True)
class _Type:
    """What `config.json` does not say because transformers fixes it for the type."""

    gated: bool = True
    tied: bool = False  # when `tie_word_embeddings` is absent
    ratio: int = 0  # MLP width over hidden size, when no field gives it


_PLAIN, _TIED = _Type(), _Type(tied=True)
_UNGATED = _Type(gated=False)
_UNGATED_TIED = _Type(gated=False, tied=True, ratio=4)

_TYPES: Mapping[str, _Type] = {
    **dict.fromkeys((
        "llama", "llama4_text", "mistral", "ministral3", "mixtral", "qwen2",
        "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_5_text",
        "qwen3_5_moe_text", "qwen2_vl", "qwen2_5_vl", "qwen2_5_vl_text",
        "qwen2_vl_text", "qwen3_vl_text", "qwen3_vl_moe_text", "phi3", "phimoe",
        "deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "kimi_k2", "glm", "glm4",
        "glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "minimax_m2", "minimax_m3", "gpt_oss",
        "granite",
        "granitemoe", "granitemoeshared", "olmo", "olmo2", "olmo3", "olmoe", "stablelm",
        "internlm2", "internlm3", "baichuan", "aquila", "deci", "smollm3", "exaone",
        "exaone4", "mimo", "mimo_v2_flash", "yi", "xverse", "ernie4_5", "ernie4_5_moe",
        "hunyuan_v1_dense", "seed_oss", "arcee",
    ), _PLAIN),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "gemma4_text", "cohere", "cohere2"), _TIED),
    **dict.fromkeys(("phi", "nemotron", "nemotron_h"), _UNGATED),
    **dict.fromkeys(("gpt_neox", "gptj"), _Type(gated=False, ratio=4)),
    **dict.fromkeys(
        ("gpt2", "gpt_neo", "gpt_bigcode", "bloom", "opt", "falcon", "mpt", "starcoder2"),
        _UNGATED_TIED,
    ),
}  # fmt: skip
# Wrappers that hold the language model's fields at their own top level in some releases.
_SAME_AS = {
    "gemma3": "gemma3_text",
    "gemma4": "gemma4_text",
    "llama4": "llama4_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "kimi_k25": "kimi_k2",
    "minimax_m3_vl": "minimax_m3",
    "deepseek": "deepseek_v2",
}
# Encoders, encoder-decoders, vision, audio: they do not write one token after another.
_NOT_DECODERS = frozenset({
    "albert", "bart", "bert", "blip", "blip-2", "clap", "clip", "convnext", "deberta",
    "deberta-v2", "deit", "detr", "dinov2", "distilbert", "electra", "encodec", "eurobert",
    "gemma-embedding", "hubert", "jina-bert-v2", "jina-bert-v3", "led", "longformer", "longt5",
    "m2m_100", "marian", "mbart", "modern-bert", "modernbert", "mpnet", "mt5", "musicgen",
    "neo-bert", "nllb-moe", "nomic-bert", "nomic-bert-moe", "nomic_bert", "pegasus", "resnet",
    "roberta", "sam", "seamless_m4t", "segformer", "siglip", "speecht5", "swin", "t5",
    "t5encoder", "umt5", "vit", "vits", "wav2vec2", "wavlm", "whisper", "xlm-roberta", "yolos",
})  # fmt: skip
_SPARSE_ATTENTION = "deepseek_sparse_attention"
# Layers of DeepSeek-V4 that compress less than this choose among the entries with an indexer.
_INDEXED_BELOW = 128


class _Fields:
    """The fields of one configuration, under any of the names a type gives them."""

    def __init__(self, values: Mapping[str, Any], what: str) -> None:
        self.values = values
        self.what = what

    def get(self, *names: str) -> Any:
        """The first of `names` that is present and not null."""
        return next(
            (self.values[name] for name in names if self.values.get(name) is not None), None
        )

    def maybe(self, *names: str, default: int = 0) -> int:
        value = self.get(*names)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
            raise InvalidInput(f"{names[0]} of {self.what} is no whole number.", value=value)
        if not 0 <= value < 1 << 31:
            raise InvalidInput(f"{names[0]} of {self.what} is impossible.", value=value)
        return int(value)

    def need(self, *names: str) -> int:
        value = self.maybe(*names)
        if value < 1:
            raise InvalidInput(
                f"{self.what} does not say {' or '.join(names)}.",
                remedy="Give the config.json that is published with the model.",
            )
        return value

    def listed(self, *names: str) -> list[Any] | None:
        value = self.get(*names)
        return value if isinstance(value, list) else None


def from_config(config: Mapping[str, Any], id: str) -> Architecture:  # noqa: A002
    """The architecture that a Hugging Face `config.json` describes.

    Args:
        config: The parsed file; of a multimodal model the text part is taken.
        id: The name the architecture is to have.

    Raises:
        InvalidInput: The type is not known, or a field it needs is missing or impossible.
    """
    text = _text_part(config)
    name = str(text.get("model_type") or config.get("model_type") or "")
    name = _SAME_AS.get(name, name)
    _refuse_others(config, name, id)
    if name not in _TYPES:
        raise InvalidInput(
            f"Models of type {name[:60] or '(no model_type)'!r} cannot be simulated yet: which "
            "matrices its layers hold is not known.",
            remedy="Choose a model of a known type, such as llama, qwen3, mixtral or deepseek_v3.",
        )
    fields = _Fields(text, f"The configuration of {id}")
    kind = _TYPES[name]
    shape: dict[str, Any] = {
        "id": id,
        "family": name.removesuffix("_text"),
        "hidden": fields.need("hidden_size", "n_embd", "d_model"),
        "vocab": fields.need("vocab_size", "padded_vocab_size"),
        "tied_embeddings": _flag(config, text, "tie_word_embeddings", kind.tied),
        "gated_mlp": kind.gated,
        "max_context": fields.maybe("max_position_embeddings", "n_positions", "seq_length",
                                    "max_seq_len") or None,
        "source": "config.json",
    }  # fmt: skip
    shape |= _precision(config, text)
    if name == "nemotron_h":
        return Architecture(**shape | _nemotron_h(fields))
    if name == "deepseek_v4":
        return _checked(Architecture(**shape | _deepseek_v4(fields)))
    shape["layers"] = fields.need("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    shape |= _heads(fields, name, shape["hidden"])
    shape |= _mixing(fields, name, shape["layers"])
    shape |= _mlps(fields, name, shape["layers"], kind, shape["hidden"])
    return _checked(Architecture(**shape))


def _refuse_others(config: Mapping[str, Any], name: str, id: str) -> None:  # noqa: A002
    is_diffusion = "_diffusers_version" in config or "_class_name" in config
    if name in _NOT_DECODERS or is_diffusion or config.get("is_encoder_decoder"):
        kind = name or str(config.get("_class_name"))
        raise InvalidInput(
            f"{id} is not a decoder-only language model: its type is {kind[:60]!r}.",
            remedy="Choose a model that writes text token by token, such as llama or qwen3.",
        )


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    for key in ("text_config", "llm_config", "language_config"):
        if isinstance(config.get(key), Mapping):
            return dict(config[key])
    return config


def _flag(config: Mapping[str, Any], text: Mapping[str, Any], key: str, default: bool) -> bool:
    for holder in (text, config):
        if isinstance(holder.get(key), bool):
            return bool(holder[key])
    return default


def _checked(architecture: Architecture) -> Architecture:
    mixing = architecture.full_layers + architecture.window_layers + architecture.linear_layers
    if mixing > architecture.layers or architecture.dense_layers < 0:
        raise InvalidInput(
            f"The configuration of {architecture.id} names more layers than it has.",
            value=architecture.layers,
        )
    if architecture.dense_layers and not architecture.intermediate:
        raise InvalidInput(f"The configuration of {architecture.id} gives no intermediate_size.")
    return architecture


# --- precision -------------------------------------------------------------------------------


def _precision(config: Mapping[str, Any], text: Mapping[str, Any]) -> dict[str, Any]:
    quantization = text.get("quantization_config") or config.get("quantization_config") or {}
    method = str(quantization.get("quant_method") or "").lower()
    named = str(quantization.get("quant_algo") or method).lower()
    if not named:
        return {"native_precision": "bf16"}
    ignored = " ".join(
        str(entry)
        for key in ("ignore", "modules_to_not_convert", "exclude_modules")
        for entry in quantization.get(key) or []
    )
    return {
        "native_precision": _quantized(named, quantization),
        "only_experts_quantized": "attn" in ignored and "shared_experts.gate" not in ignored
        and ("shared_experts" in ignored or method == "mxfp4"),
    }  # fmt: skip


def _quantized(named: str, quantization: Mapping[str, Any]) -> str:
    layers = quantization.get("quantized_layers")
    if named == "mixed_precision" and isinstance(layers, Mapping) and layers:
        algorithms = Counter(str(layer.get("quant_algo")).lower() for layer in layers.values())
        named = algorithms.most_common(1)[0][0]
    for word in ("mxfp4", "nvfp4", "fp8", "int8"):
        if word in named:
            return word
    bits = _bits(quantization)
    if named in ("awq", "gptq", "auto-round", "bitsandbytes", "compressed-tensors", "modelopt",
                 "quark", "fbgemm_fp8") and bits in (4, 8):  # fmt: skip
        floating = "float" in str(quantization)
        return f"{'fp' if floating else 'int'}{bits}"
    raise InvalidInput(
        f"The quantisation {named[:60]!r} of the configuration is not known.",
        remedy="Use the configuration of the model before it was quantised.",
    )


def _bits(quantization: Mapping[str, Any]) -> int | None:
    for key in ("bits", "w_bit", "num_bits"):
        if isinstance(quantization.get(key), int):
            return int(quantization[key])
    if quantization.get("load_in_4bit"):
        return 4
    if quantization.get("load_in_8bit"):
        return 8
    groups = quantization.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") or {}
        if isinstance(weights.get("num_bits"), int):
            return int(weights["num_bits"])
    return None


# --- attention -------------------------------------------------------------------------------


def _heads(fields: _Fields, name: str, hidden: int) -> dict[str, Any]:
    heads = fields.need("num_attention_heads", "n_head", "n_heads", "num_heads")
    if fields.maybe("kv_lora_rank"):
        return _latent_heads(fields, heads)
    head_dim = fields.maybe("head_dim", "kv_channels", "attention_head_dim") or hidden // heads
    shape: dict[str, Any] = {
        "heads": heads,
        "head_dim": head_dim,
        "v_head_dim": fields.maybe("v_head_dim", default=head_dim),
        "attention_gate": bool(fields.get("attn_output_gate"))
        or name in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"),
    }
    return shape | _kv_heads(fields, name, heads)


def _kv_heads(fields: _Fields, name: str, heads: int) -> dict[str, Any]:
    each = fields.listed("num_key_value_heads_per_layer")
    if each:
        if not all(isinstance(entry, int) and entry > 0 for entry in each):
            raise InvalidInput(f"{fields.what} has layers without key-value heads.", value=each)
        return {"kv_heads": max(each), "mean_kv_heads": sum(each) / len(each)}
    if name == "falcon" and not fields.get("new_decoder_architecture"):
        return {"kv_heads": 1 if fields.get("multi_query") else heads}
    if name == "gpt_bigcode":
        return {"kv_heads": 1 if fields.get("multi_query") is not False else heads}
    return {
        "kv_heads": fields.maybe("num_key_value_heads", "num_kv_heads", "multi_query_group_num",
                                 default=heads) or heads,
        "window_kv_heads": fields.maybe("swa_num_key_value_heads"),
    }  # fmt: skip


def _latent_heads(fields: _Fields, heads: int) -> dict[str, Any]:
    nope, rope = fields.need("qk_nope_head_dim"), fields.need("qk_rope_head_dim")
    index_heads = fields.maybe("index_n_heads")
    layers = fields.need("num_hidden_layers")
    kinds = fields.listed("indexer_types")
    own = sum(kind == "full" for kind in kinds) if kinds else layers
    return {
        "heads": heads,
        "kv_heads": 1,
        "head_dim": nope + rope,
        "v_head_dim": fields.need("v_head_dim"),
        "kv_lora_rank": fields.need("kv_lora_rank"),
        "q_lora_rank": fields.maybe("q_lora_rank"),
        "qk_rope_head_dim": rope,
        "qk_nope_head_dim": nope,
        "index_heads": index_heads,
        "index_head_dim": fields.maybe("index_head_dim"),
        "index_topk": fields.maybe("index_topk"),
        "index_layers": own if index_heads else 0,
    }


def _deepseek_v4(fields: _Fields) -> dict[str, Any]:
    """Compressed attention: a layer of ratio r keeps one entry for r tokens, and a window.

    Its cache, and what a token attends to, are those of 1/r of a layer that keeps everything, so
    the layers are counted as that many full ones, and the rest as windows.
    """
    layers = fields.need("num_hidden_layers")
    ratios = (fields.listed("compress_ratios") or [])[:layers]
    if len(ratios) != layers or not all(isinstance(ratio, int) for ratio in ratios):
        raise InvalidInput(f"{fields.what} does not say how each layer compresses.", value=ratios)
    full = round(sum(1 / ratio for ratio in ratios if ratio))
    head_dim, rope = fields.need("head_dim"), fields.need("qk_rope_head_dim")
    indexed = sum(0 < ratio < _INDEXED_BELOW for ratio in ratios)
    return {
        "layers": layers,
        "heads": fields.need("num_attention_heads"),
        "kv_heads": 1,
        "head_dim": head_dim,
        "v_head_dim": head_dim,
        "kv_lora_rank": head_dim - rope,
        "q_lora_rank": fields.need("q_lora_rank"),
        "qk_rope_head_dim": rope,
        "qk_nope_head_dim": head_dim - rope,
        "output_groups": fields.need("o_groups"),
        "output_lora_rank": fields.need("o_lora_rank"),
        "index_heads": fields.need("index_n_heads"),
        "index_head_dim": fields.need("index_head_dim"),
        "index_topk": fields.need("index_topk"),
        "index_layers": indexed,
        "full_layers": full,
        "window_layers": layers - full,
        "window": fields.need("sliding_window"),
        "intermediate": 0,
        "native_precision": "mxfp4" if fields.get("expert_dtype") == "fp4" else "fp8",
        **_experts(fields, "deepseek_v4", layers),
    }


def _mixing(fields: _Fields, name: str, layers: int) -> dict[str, Any]:
    """How many layers attend to everything, to a window, or keep a linear state."""
    kinds = fields.listed("layer_types")
    if kinds is None:
        kinds = _layer_kinds(fields, name, layers)
    # Sparse attention chooses among all tokens, and so keeps all of them.
    kinds = ["full_attention" if kind == _SPARSE_ATTENTION else kind for kind in kinds[:layers]]
    windowed = sum(kind in ("sliding_attention", "chunked_attention") for kind in kinds)
    linear = sum(kind == "linear_attention" for kind in kinds)
    window = fields.maybe("sliding_window", "attention_chunk_size") if windowed else 0
    if windowed + linear + kinds.count("full_attention") != layers:
        unknown = sorted({str(kind) for kind in kinds} - {"full_attention", "linear_attention",
                         "sliding_attention", "chunked_attention"})  # fmt: skip
        raise InvalidInput(
            f"{fields.what} does not say what each of its {layers} layers is.", value=unknown
        )
    if windowed and not window:
        raise InvalidInput(f"{fields.what} has sliding windows but gives no sliding_window.")
    shape = {
        "full_layers": layers - windowed - linear,
        "window_layers": windowed,
        "window": window,
        "linear_layers": linear,
    }
    return shape | (_delta_net(fields) if linear else {})


def _layer_kinds(fields: _Fields, name: str, layers: int) -> list[str]:
    pattern = fields.listed("hybrid_layer_pattern")
    if pattern is not None:
        return ["sliding_attention" if entry else "full_attention" for entry in pattern]
    period, kind = _period(fields, name)
    if period == 0:
        return [kind] * layers
    return [kind if (layer + 1) % period else "full_attention" for layer in range(layers)]


def _period(fields: _Fields, name: str) -> tuple[int, str]:
    """Every how many layers one attends to everything (0: all are alike), and the others' kind."""
    if name in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"):
        return fields.maybe("full_attention_interval", default=4), "linear_attention"
    if name == "llama4_text":
        return fields.maybe("no_rope_layer_interval", default=4), "chunked_attention"
    alternating = {"gemma2": 2, "gpt_oss": 2, "gemma3_text": 6, "cohere2": 4, "olmo3": 4}
    if name in alternating:
        return (
            fields.maybe("sliding_window_pattern", default=alternating[name]),
            "sliding_attention",
        )
    if name == "gpt_neo":
        fields.values = {**fields.values, "sliding_window": fields.maybe("window_size") or 256}
        return 2, "sliding_attention"
    window = fields.maybe("sliding_window")
    used = fields.get("use_sliding_window")
    reach = fields.maybe("max_position_embeddings")
    # Qwen's configurations give a window that is switched off.
    always = name in ("mistral", "mixtral", "phi3", "phimoe", "starcoder2")
    if window and (used or (used is None and always)) and window < (reach or window + 1):
        return 0, "sliding_attention"
    return 0, "full_attention"


def _delta_net(fields: _Fields) -> dict[str, Any]:
    """Gated DeltaNet of Qwen3-Next (transformers, models/qwen3_next/modeling_qwen3_next.py)."""
    hidden = fields.need("hidden_size")
    value_heads = fields.need("linear_num_value_heads")
    value_dim = fields.need("linear_value_head_dim")
    key_width = fields.need("linear_num_key_heads") * fields.need("linear_key_head_dim")
    value_width = value_heads * value_dim
    kernel = fields.maybe("linear_conv_kernel_dim", default=4)
    mixed = 2 * key_width + value_width  # what the convolution runs over
    state = value_heads * fields.need("linear_key_head_dim") * value_dim
    return {
        "linear_params_per_layer": hidden * (mixed + 2 * value_width + 2 * value_heads)
        + mixed * kernel,
        "linear_state_bytes": state * _STATE_BYTES + mixed * (kernel - 1) * _CONVOLUTION_BYTES,
    }


def _mamba2(fields: _Fields) -> dict[str, Any]:
    """Mamba-2 of Nemotron-H (transformers, models/nemotron_h)."""
    hidden = fields.need("hidden_size")
    heads = fields.need("mamba_num_heads")
    inner = heads * fields.need("mamba_head_dim")
    groups = fields.need("n_groups") * fields.need("ssm_state_size")
    kernel = fields.maybe("conv_kernel", default=4)
    mixed = inner + 2 * groups
    state = inner * fields.need("ssm_state_size")
    return {
        "linear_params_per_layer": hidden * (inner + mixed + heads) + inner * hidden
        + mixed * kernel,
        "linear_state_bytes": state * _STATE_BYTES + mixed * (kernel - 1) * _CONVOLUTION_BYTES,
    }  # fmt: skip


def _nemotron_h(fields: _Fields) -> dict[str, Any]:
    """Each layer is one thing: M Mamba-2, * attention, E experts, - a dense MLP."""
    pattern = _letters(fields)
    layers = fields.maybe("num_hidden_layers", default=len(pattern))
    if not pattern or len(pattern) != layers or not set(pattern) <= _PATTERN_LETTERS:
        raise InvalidInput(f"{fields.what} gives no usable hybrid_override_pattern.", value=pattern)
    shape = _heads(fields, "nemotron_h", fields.need("hidden_size"))
    if "M" in pattern:
        shape |= _mamba2(fields)
    if "E" in pattern:
        shape |= _experts(fields, "nemotron_h", pattern.count("E"))
    return shape | {
        "layers": layers,
        "full_layers": pattern.count("*"),
        "linear_layers": pattern.count("M"),
        "bare_layers": pattern.count("*") + pattern.count("M"),
        "intermediate": fields.maybe("intermediate_size"),
    }


def _letters(fields: _Fields) -> str:
    named = {"mamba": "M", "attention": "*", "moe": "E", "mlp": "-"}
    kinds = fields.listed("layers_block_type")
    if kinds is not None:
        return "".join(named.get(str(kind), "?") for kind in kinds)
    return str(fields.get("hybrid_override_pattern") or "")


# --- MLPs and experts ------------------------------------------------------------------------


def _mlps(fields: _Fields, name: str, layers: int, kind: _Type, hidden: int) -> dict[str, Any]:
    # Where the plain name means the experts' width, the dense layers' has a name of its own.
    width = fields.maybe("intermediate_size_mlp", "dense_intermediate_size")
    width = width or fields.maybe("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim",
                                  "inner_dim")  # fmt: skip
    shape = {"intermediate": width or kind.ratio * hidden}
    experts = fields.maybe("n_routed_experts", "num_experts", "num_local_experts",
                           "moe_num_experts")  # fmt: skip
    if experts < 2:
        return shape
    moe_layers = _moe_layers(fields, name, layers)
    return shape | _experts(fields, name, moe_layers)


def _experts(fields: _Fields, name: str, moe_layers: int) -> dict[str, Any]:
    # Where there is no field for the expert's width, the type has no dense layers.
    width = fields.maybe("moe_intermediate_size") or fields.need("intermediate_size")
    return {
        "moe_layers": moe_layers,
        "experts": fields.need("n_routed_experts", "num_experts", "num_local_experts",
                               "moe_num_experts"),
        "experts_per_token": fields.need("num_experts_per_tok", "experts_per_token", "moe_k",
                                         "top_k_experts"),
        "expert_intermediate": width,
        "shared_expert_intermediate": _shared_width(fields, name, width),
        "expert_hidden": fields.maybe("moe_latent_size"),
    }  # fmt: skip


def _shared_width(fields: _Fields, name: str, width: int) -> int:
    given = fields.maybe("shared_expert_intermediate_size", "moe_shared_expert_intermediate_size",
                         "shared_intermediate_size")  # fmt: skip
    if given:
        return given
    if name == "llama4_text":
        return width
    if name == "gemma4_text":  # a dense MLP beside the experts of each layer
        return fields.need("intermediate_size")
    return width * fields.maybe("n_shared_experts", "num_shared_experts", "moe_num_shared_experts")


def _moe_layers(fields: _Fields, name: str, layers: int) -> int:
    kinds = fields.listed("mlp_layer_types")
    if kinds is not None:
        return sum(kind == "sparse" for kind in kinds[:layers])
    each = fields.listed("moe_layer_freq")
    if each is not None:
        return sum(bool(entry) for entry in each[:layers])
    if name == "llama4_text":
        step = fields.maybe("interleave_moe_layer_step", default=1)
        return _every(range(layers), step, offset=1)
    if name == "ernie4_5_moe":
        start = fields.maybe("moe_layer_start_index")
        return _every(range(start, layers), fields.maybe("moe_layer_interval", default=1), offset=1)
    dense = set(fields.listed("mlp_only_layers") or [])
    first = fields.maybe("first_k_dense_replace")
    step = fields.maybe("decoder_sparse_step", default=1)
    freq = fields.maybe("moe_layer_freq", default=1)
    candidates = (layer for layer in range(first, layers) if layer not in dense)
    if step > 1:
        return _every(candidates, step, offset=1)
    return _every(candidates, freq, offset=0)


def _every(layers: Iterable[int], step: int, *, offset: int) -> int:
    return sum((layer + offset) % max(step, 1) == 0 for layer in layers)
