from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from test_gguf import TWO_BY_THREE_F32, _entry, _text, gguf_bytes
from test_registry_safetensors import write_safetensors

from core.kernel.errors import InvalidInput
from core.registry import chat_templates, configuration, extraction
from core.registry.family import Relative, tree

# From config.json of Qwen/Qwen3-30B-A3B, shortened.
_CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "max_position_embeddings": 40960,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "vocab_size": 512,
    "torch_dtype": "bfloat16",
}
_TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{% if tools %}{{ tools }}{% endif %}"


def _folder(tmp_path: Path, config: dict[str, Any] | None = None, **more: object) -> Path:
    """A model's folder: `config.json`, weights, and `more` files, `_` for the dot of a name."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(_CONFIG if config is None else config))
    for name, content in more.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def _weights(folder: Path) -> None:
    tensors = {f"l.experts.{n}.up.weight": ("BF16", [10, 10]) for n in range(8)}
    write_safetensors(folder / "model-00001-of-00002.safetensors", {"e": ("BF16", [512, 64])})
    write_safetensors(folder / "model-00002-of-00002.safetensors", tensors)
    weight_map = {"e": "model-00001-of-00002.safetensors"}
    weight_map |= dict.fromkeys(tensors, "model-00002-of-00002.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))


def test_a_whole_model_says_what_it_is(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path,
        tokenizer_config__json={"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>",
                                "pad_token": {"content": "<|pad|>"}, "chat_template": _TEMPLATE},
        tokenizer__json={"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []},
                         "added_tokens": [{"id": 9, "content": "<|im_end|>"}]},
        generation_config__json={"temperature": 0.6, "top_p": 0.95, "eos_token_id": [1, 2],
                                 "transformers_version": "4.51"},
        README__md="---\nlicense: apache-2.0\nlanguage: [en]\nbase_model: Qwen/Qwen3-30B-A3B-Base\n"
        "pipeline_tag: text-generation\n---\n# Qwen3\n",
        LICENSE="Apache License",
    )  # fmt: skip
    _weights(folder)
    # Mistral's own layout of the same weights is not counted twice.
    write_safetensors(folder / "consolidated.safetensors", {"e": ("BF16", [512, 64])})
    found = extraction.extract([folder])
    assert found.model_dump(exclude_defaults=True, exclude={"size_bytes"}) == {
        "format": "safetensors",
        "architecture": "qwen3_moe",
        "architecture_class": "Qwen3MoeForCausalLM",
        "parameters": 512 * 64 + 800,
        "active_parameters": 512 * 64 + 200,
        "precision": "BF16",
        "quantization": "BF16",
        "context_tokens": 40960,
        "layers": 2,
        "heads": 8,
        "kv_heads": 2,
        "key_length": 16,
        "value_length": 16,
        "embedding_length": 64,
        "intermediate_length": 96,
        "experts": 8,
        "experts_per_token": 2,
        "vocabulary": 512,
        "tokenizer": "Qwen2Tokenizer",
        "special_tokens": {"eos_token": "<|im_end|>", "pad_token": "<|pad|>"},
        "generation": {"temperature": 0.6, "top_p": 0.95, "eos_token_id": [1, 2]},
        "chat_template": True,
        "tools": True,
        "reasoning": False,
        "modalities_in": ("text",),
        "modalities_out": ("text",),
        "capabilities": ("chat", "completion"),
        "title": "Qwen3",
        "licence": "apache-2.0",
        "licence_file": "LICENSE",
        "languages": ("en",),
        "base_models": ("Qwen/Qwen3-30B-A3B-Base",),
        "pipeline_tag": "text-generation",
    }
    columns = extraction.describe([folder])
    assert columns["parameters"] == found.parameters
    assert columns["extracted"]["active_parameters"] == found.active_parameters
    assert json.loads(json.dumps(columns)) == columns


def test_what_is_silent_stays_unknown(tmp_path: Path) -> None:
    found = extraction.extract([_folder(tmp_path, {"model_type": "x"})])
    assert found.model_dump(exclude_defaults=True, exclude={"size_bytes"}) == {"architecture": "x"}


def test_broken_side_files_are_notes_and_the_rest_is_there(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path,
        README__md="---\nlicense: [apache\n---\n# Name\n",
        tokenizer_config__json="[" * 100_000,
        tokenizer__json='{"model": 3}',
        generation_config__json="no json",
    )
    _weights(folder)
    found = extraction.extract([folder])
    assert (found.parameters, found.layers, found.title) == (512 * 64 + 800, 2, "Name")
    assert [note.split()[0] for note in found.notes] == [
        "tokenizer_config.json", "tokenizer.json", "generation_config.json", "README.md:",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("deep", "config.json cannot be read: it is nested too deeply"),
        ("number", "config.json gives an impossible num_hidden_layers"),
        ("missing shard", "1 are missing: model-00002-of-00002.safetensors"),
        ("cut shard", "model-00002-of-00002.safetensors is not a readable"),
        ("link", "weights.bin is a link that leads out of the folder"),
        ("empty", "holds no model"),
    ],
)
def test_a_broken_model_is_a_clear_error(tmp_path: Path, broken: str, why: str) -> None:
    folder = _folder(tmp_path)
    _weights(folder)
    shard = folder / "model-00002-of-00002.safetensors"
    if broken == "deep":
        (folder / "config.json").write_text('{"a":' * 100_000)
    elif broken == "number":
        (folder / "config.json").write_text(json.dumps(_CONFIG | {"num_hidden_layers": 1 << 40}))
    elif broken == "missing shard":
        shard.unlink()
    elif broken == "cut shard":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif broken == "link":
        (tmp_path / "secret").touch()
        (folder / "weights.bin").symlink_to(tmp_path / "secret")
    else:
        for path in folder.iterdir():
            path.unlink()
        (folder / "notes.txt").touch()
    with pytest.raises(InvalidInput, match=why):
        extraction.extract([folder])


def test_an_adapter_says_what_it_adapts(tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    folder.mkdir()
    stated = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "task_type": "CAUSAL_LM",
              "target_modules": ["v_proj", "q_proj"],
              "base_model_name_or_path": "Qwen/Qwen3-8B"}  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(stated))
    weights = {"a.lora_A.weight": ("F32", [16, 64]), "a.lora_B.weight": ("F32", [64, 16])}
    write_safetensors(folder / "adapter_model.safetensors", weights)
    found = extraction.extract([folder])
    assert (found.kind, found.parameters) == ("adapter", 2048)
    assert found.adapter is not None
    assert (found.adapter.rank, found.adapter.target_modules) == (16, ("q_proj", "v_proj"))
    assert (found.base_models, found.base_model_relation) == (("Qwen/Qwen3-8B",), "adapter")


def test_a_pickled_model_is_not_opened(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'x'\ntR.")
    found = extraction.extract([folder])
    assert (found.format, found.parameters, found.layers) == ("pytorch", None, 2)
    assert "pickles, which are not opened" in found.notes[0]


def test_a_gguf_says_as_much_as_its_header(tmp_path: Path) -> None:
    listed = struct.pack("<IQ", 8, 2) + _text("en") + _text("de")
    extra = b"".join([
        _entry("general.languages", 9, listed),
        _entry("general.license", 8, _text("mit")),
        _entry("general.base_model.count", 4, struct.pack("<I", 1)),
        _entry("general.base_model.0.repo_url", 8, _text("https://huggingface.co/Org/Base")),
        _entry("llama.expert_count", 4, struct.pack("<I", 8)),
        _entry("llama.expert_used_count", 4, struct.pack("<I", 2)),
        _entry("tokenizer.chat_template", 8, _text("{{ messages }}<think>")),
    ])  # fmt: skip
    content = gguf_bytes(extra=extra, entries=7)
    name, experts = _text("token_embd.weight"), _text("k.0.ffn_up_exps.w")
    assert len(name) == len(experts)
    (tmp_path / "a.gguf").write_bytes(content.replace(name, experts))
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\npipeline_tag: x\n---\n")
    found = extraction.extract([tmp_path])
    # 6 weights in eight experts, of which a token uses two.
    assert (found.parameters, found.active_parameters, found.experts) == (6, 1, 8)
    assert (found.licence, found.pipeline_tag) == ("mit", "x")
    assert (found.languages, found.base_models) == (("en", "de"), ("Org/Base",))
    assert (found.reasoning, found.tools) == (True, False)


def test_tensors_of_a_gguf_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    content = bytearray(gguf_bytes(tensor=TWO_BY_THREE_F32 + _text("b") + TWO_BY_THREE_F32))
    content[8:16] = struct.pack("<Q", 2)
    (tmp_path / "a.gguf").write_bytes(bytes(content))
    with pytest.raises(InvalidInput, match="two of its tensors share their bytes"):
        extraction.extract([tmp_path / "a.gguf"])


# --- configurations --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "label", "method", "bits"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "GPTQ-Int4", "gptq", 4),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 128}, "AWQ-Int4", "awq", 4),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "FP8", "fp8", 8),
        ({"quant_method": "mxfp4"}, "MXFP4", "mxfp4", 4),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "BNB-NF4", "bitsandbytes-4bit", 4),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "BNB-Int8", "bitsandbytes-8bit",
         8),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "NVFP4", "nvfp4", 4),
        ({"quantization": {"quant_algo": "FP8"}}, "FP8", "fp8", 8),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups":
          {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 128}}}},
         "W4A16", "compressed-tensors", 4),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {
            "weights": {"num_bits": 8, "type": "int"}, "input_activations": {"num_bits": 8}}}},
         "W8A8", "compressed-tensors", 8),
        ({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "config_groups":
          {"group_0": {"weights": {"num_bits": 4, "type": "float", "group_size": 16}}}},
         "NVFP4", "nvfp4", 4),
        ({"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups":
          {"group_0": {"weights": {"num_bits": 8, "type": "float"}}}}, "FP8", "fp8", 8),
        ({"quant_method": "hqq"}, "HQQ", "hqq", None),
    ],
)  # fmt: skip
def test_the_quantisation_is_named(
    stated: dict[str, Any], label: str, method: str, bits: int | None
) -> None:
    found = configuration.read_quantisation({"quantization_config": stated})
    if "quantization" in stated:
        found = configuration.quantisation_from(stated)
    assert found is not None
    assert (found.label, found.method, found.bits) == (label, method, bits)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # gpt2, falcon, DeepSeek-V3 and gemma-3 name the same things in their own ways.
        ({"n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024},
         {"layers": 12, "kv_heads": 12, "key_length": 64, "context_tokens": 1024}),
        ({"num_attention_heads": 71, "multi_query": True}, {"heads": 71, "kv_heads": 1}),
        ({"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
          "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1},
         {"key_length": 192, "value_length": 128, "experts": 256, "shared_experts": 1}),
        ({"text_config": {"num_hidden_layers": 34, "vocab_size": 9}, "vision_config": {"a": 1}},
         {"layers": 34, "modalities_in": ("text", "image")}),
        ({"thinker_config": {"text_config": {"vocab_size": 9}, "audio_config": {"a": 1}}},
         {"modalities_in": ("text", "audio")}),
        ({"max_position_embeddings": 32768, "rope_scaling": {
            "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}},
         {"context_tokens": 131072}),
        ({"max_position_embeddings": 131072, "rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}},
         {"context_tokens": 131072}),
        ({"num_hidden_layers": True, "vocab_size": "many"}, {"layers": None, "vocabulary": None}),
    ],
)  # fmt: skip
def test_fields_go_by_many_names(config: dict[str, Any], expected: dict[str, Any]) -> None:
    found = configuration.read(config)
    assert {name: found[name] for name in expected} == expected


# --- chat templates --------------------------------------------------------------------------

# The deciding lines of published templates: model, template, tools, reasoning, its switch.
_TEMPLATES = [
    (
        "Qwen3",
        "{%- if tools %}{{- '<tools>' }}{%- endif %}{%- if add_generation_prompt %}"
        "{%- if enable_thinking is defined and enable_thinking is false %}"
        "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}",
        True, True, "enable_thinking",
    ),
    (
        "Llama 3.1",
        "{%- if custom_tools is defined %}{%- set tools = custom_tools %}{%- endif %}"
        "{%- if not tools is defined %}{%- set tools = none %}{%- endif %}"
        "{%- if tools is not none %}{%- for t in tools %}{{ t | tojson }}{%- endfor %}{%- endif %}",
        True, False, None,
    ),
    (
        "DeepSeek-V3.1",
        "{%- if not thinking is defined -%}{%- set thinking = false -%}{%- endif -%}"
        "{%- for tool in message['tool_calls'] -%}{{ tool }}{%- endfor -%}"
        "{%- if not thinking -%}{{'</think>'}}{%- else -%}{{'<think>'}}{%- endif -%}",
        None, True, "thinking",
    ),
    (
        "DeepSeek-R1-Distill",
        "{%- if message['role'] == 'assistant' and message['tool_calls'] -%}x{%- endif -%}"
        "{%- if add_generation_prompt -%}{{'<｜Assistant｜><think>\\n'}}{%- endif %}",
        None, True, None,
    ),
    (
        # It sets the switch itself, from words in the system message: no parameter.
        "Nemotron Super 1.5",
        "{%- set enable_thinking = true -%}{%- if '/no_think' in messages[0].content -%}"
        "{%- set enable_thinking = false -%}{%- endif -%}{%- if tools -%}{{ tools }}{%- endif -%}"
        "{%- if not enable_thinking -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}",
        True, True, None,
    ),
    (
        "Seed-OSS",
        "{%- set think_begin_token = '<seed:think>' -%}{%- if not thinking_budget is defined %}"
        "{%- set thinking_budget = -1 -%}{%- endif -%}{%- if not tools is defined %}"
        "{%- set tools = [] %}{%- endif %}{{ thinking_budget }}{{ tools | tojson }}",
        True, True, "thinking_budget",
    ),
    (
        # Only cuts out what another model may have thought.
        "a template with the closing mark alone",
        "{%- if '</think>' in content %}{%- set content = content.split('</think>')[-1] %}"
        "{%- endif %}{{ content }}",
        False, False, None,
    ),
    (
        "gpt-oss",
        "{%- if reasoning_effort is not defined %}{%- set reasoning_effort = 'medium' %}"
        "{%- endif %}{{ reasoning_effort }}{%- if tools -%}{{ render(tools) }}{%- endif -%}",
        True, True, "reasoning_effort",
    ),
    (
        "Mistral Small 3.1",
        "{%- if not tools is defined %}{%- set tools = none %}{%- elif tools is not none %}x"
        "{%- endif %}{%- if message.get('tool_calls') %}y{%- endif %}",
        True, False, None,
    ),
    ("Phi-4-mini", "{% if tools is defined -%}{% for tool in tools %}a{% endfor %}{% endif %}",
     True, False, None),
    ("Gemma 3", "{{ bos_token }}{%- for m in messages -%}{{ m['content'] | trim }}{%- endfor -%}",
     False, False, None),
    ("SmolLM with training marks", "{% generation %}{{ m.content }}{% endgeneration %}",
     False, False, None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("template", "tools", "reasoning", "switch"),
    [pytest.param(*case[1:], id=case[0]) for case in _TEMPLATES],
)
def test_what_a_chat_template_says(
    template: str, tools: bool | None, reasoning: bool | None, switch: str | None
) -> None:
    found = chat_templates.read(template)
    assert (found.tools, found.reasoning, found.reasoning_switch) == (tools, reasoning, switch)
    assert bool(found.note) == (tools is None)


def test_a_template_that_cannot_be_parsed_tells_nothing() -> None:
    for broken in ("{% if %}", "{{ " + "(" * 5000, "x" * 1_000_001):
        found = chat_templates.read(broken)
        assert (found.tools, found.reasoning) == (None, None)
        assert found.note


def test_of_named_templates_the_one_for_tools_counts(tmp_path: Path) -> None:
    named = [
        {"name": "default", "template": "{{ messages }}"},
        {"name": "tool_use", "template": "{{ messages }}{{ tools }}"},
        {"name": "rag", "template": "{{ documents }}<think>"},
    ]
    found = extraction.extract([_folder(tmp_path, tokenizer_config__json={"chat_template": named})])
    assert (found.tools, found.reasoning) == (True, False)


# --- families --------------------------------------------------------------------------------


def _tree(node: Any) -> Any:
    return {node.id: [_tree(child) for child in node.children]} if node.children else node.id


def test_a_family_hangs_from_its_oldest_ancestor() -> None:
    models = [
        Relative("Org/Base"),
        Relative("Org/Chat", ("org/base",), "finetune"),
        Relative("x/Chat-GGUF", ("Org/Chat",), "quantized"),
        Relative("y/Chat-LoRA", ("Org/Chat",), "adapter"),
        Relative("z/Merge", ("Org/Chat", "Other/Model"), "merge"),
        Relative("w/Other-tune", ("Other/Model",), "finetune"),
    ]
    found = tree(models, "x/chat-gguf")
    assert _tree(found.root) == {
        "Org/Base": [{"Org/Chat": ["z/Merge", "y/Chat-LoRA", "x/Chat-GGUF"]}]
    }
    assert found.ancestors == ("Org/Chat", "Org/Base")
    # A base that nobody registered has its place too, and a merge stands under both.
    other = tree(models, "w/Other-tune")
    assert _tree(other.root) == {"Other/Model": ["w/Other-tune", "z/Merge"]}
    assert not other.root.is_known
    assert tree(models, "z/Merge").other_bases == ("Other/Model",)
    assert _tree(tree(models, "nobody/Knows").root) == "nobody/Knows"


def test_cycles_are_cut_and_named() -> None:
    models = [Relative("a", ("b",)), Relative("b", ("c",)), Relative("c", ("b",))]
    found = tree(models, "a")
    assert (found.ancestors, found.cycle) == (("b", "c"), ("b", "c"))
    assert _tree(found.root) == {"c": [{"b": ["a"]}]}
    alone = tree([Relative("a", ("a",))], "a")
    assert (alone.ancestors, alone.cycle, _tree(alone.root)) == ((), ("a",), "a")


def test_a_chain_of_any_length_is_a_tree() -> None:
    models = [Relative(f"m{n}", (f"m{n - 1}",) if n else ()) for n in range(5000)]
    found = tree(models, "m4999")
    assert (found.root.id, len(found.ancestors)) == ("m0", 4999)
