"""The records of models: their published sizes, their caches, and the names they go by.

Published counts of active parameters differ in what they count of the two embedding matrices:
`both`, only the output `head` (as `active_params` does), or `none`; the table says which. A count
that is printed with few digits, such as 3 billion, also agrees when it rounds to that.
"""

from __future__ import annotations

import pytest

from core.kernel.errors import InvalidInput, NotFound
from core.simulation import architectures
from core.simulation.transformer import Architecture

CARD = "model card"
INDEX = "safetensors index on Hugging Face"
GEMMA_3 = "Gemma 3 report (arXiv 2503.19786), table 1, without the vision encoder"
QWEN_2_5 = "Qwen2.5 technical report (arXiv 2412.15115)"
# Id; total and active parameters in 1e9, as printed; what the active count counts; source.
PUBLISHED = (
    ("aquila-7b", "7", "", "", CARD),
    ("bloom-7b1", "7.07", "", "", CARD),
    ("decilm-7b", "7.04", "", "", CARD),
    ("deepseek-v3", "671", "37", "head", "DeepSeek-V3 report (arXiv 2412.19437)"),
    ("glm-5", "744", "40", "none", CARD),
    ("gpt-j-6b", "6.05", "", "", CARD),
    ("gpt-oss-120b", "116.8", "5.1", "head", "gpt-oss model card (arXiv 2508.10925), table 1"),
    ("gpt-oss-20b", "20.9", "3.6", "head", "gpt-oss model card (arXiv 2508.10925), table 1"),
    ("kimi-k2.5", "1026", "32", "head", "model card (1T, 32B) and safetensors index"),
    ("llama-2-13b", "13.0", "", "", INDEX),
    ("llama-2-70b", "69.0", "", "", INDEX),
    ("llama-2-7b", "6.74", "", "", INDEX),
    ("llama-3-70b", "70.6", "", "", INDEX),
    ("llama-3-8b", "8.03", "", "", INDEX),
    ("llama-3.1-405b", "405", "", "", "Llama 3 report (arXiv 2407.21783)"),
    ("llama-3.1-70b", "70.6", "", "", INDEX),
    ("llama-3.1-8b", "8.03", "", "", INDEX),
    ("llama-7b", "6.7", "", "", "LLaMA paper (arXiv 2302.13971), table 2"),
    ("minimax-m2", "230", "10", "none", CARD),
    ("mistral-7b-v0.1", "7.24", "", "", INDEX),
    ("mixtral-8x22b", "141", "39", "head", CARD),
    ("mixtral-8x7b", "46.7", "12.9", "both", "Mixtral paper (arXiv 2401.04088)"),
    ("opt-6.7b", "6.7", "", "", "OPT paper (arXiv 2205.01068)"),
    ("qwen1.5-7b", "7.72", "", "", INDEX),
    ("qwen2-72b", "72.7", "", "", "Qwen2 technical report (arXiv 2407.10671)"),
    ("qwen2-7b", "7.6", "", "", "Qwen2 technical report (arXiv 2407.10671)"),
    ("qwen3-0.6b", "0.6", "", "", CARD),
    ("qwen3-1.7b", "1.7", "", "", CARD),
    ("qwen3-235b-a22b", "235", "22", "head", "Qwen3 report (arXiv 2505.09388)"),
    ("qwen3-30b-a3b", "30.5", "3.3", "both", CARD),
    ("qwen3-32b", "32.8", "", "", CARD),
    ("qwen3-8b", "8.2", "", "", CARD),
    ("qwen3.5-397b-a17b", "397", "17", "both", CARD),
    ("smollm2-135m", "0.135", "", "", INDEX),
    ("llama-3.2-1b", "1.23", "", "", CARD),
    ("llama-3.2-3b", "3.21", "", "", CARD),
    ("llama-4-scout", "109", "17", "both", CARD),
    ("llama-4-maverick", "400", "17", "both", CARD),
    ("tinyllama-1.1b", "1.1", "", "", CARD),
    ("codellama-34b", "34", "", "", "Code Llama paper (arXiv 2308.12950)"),
    ("qwen2.5-0.5b", "0.49", "", "", QWEN_2_5),
    ("qwen2.5-1.5b", "1.54", "", "", QWEN_2_5),
    ("qwen2.5-3b", "3.09", "", "", QWEN_2_5),
    ("qwen2.5-7b", "7.61", "", "", QWEN_2_5),
    ("qwen2.5-14b", "14.7", "", "", QWEN_2_5),
    ("qwen2.5-32b", "32.5", "", "", QWEN_2_5),
    ("qwen2.5-72b", "72.7", "", "", QWEN_2_5),
    ("deepseek-r1-distill-qwen-1.5b", "1.78", "", "", INDEX),
    ("qwen2-57b-a14b", "57.4", "14.2", "both", "Qwen2 technical report (arXiv 2407.10671)"),
    ("qwen3-4b", "4.0", "", "", CARD),
    ("qwen3-14b", "14.8", "", "", CARD),
    ("qwen3-coder-480b-a35b", "480", "35", "head", CARD),
    ("qwen3-next-80b-a3b", "80", "3", "none", CARD),
    ("qwen3.5-27b", "27", "", "", CARD),
    ("qwen3.5-35b-a3b", "35", "3", "head", CARD),
    ("qwen3.5-122b-a10b", "122", "10", "both", CARD),
    ("gemma-2b", "2.51", "", "", "Gemma report (arXiv 2403.08295), table 2"),
    ("gemma-7b", "8.54", "", "", "Gemma report (arXiv 2403.08295), table 2"),
    ("gemma-2-2b", "2.61", "", "", "Gemma 2 report (arXiv 2408.00118), table 2"),
    ("gemma-2-9b", "9.24", "", "", "Gemma 2 report (arXiv 2408.00118), table 2"),
    ("gemma-2-27b", "27.2", "", "", "Gemma 2 report (arXiv 2408.00118), table 2"),
    ("gemma-3-1b", "1.00", "", "", GEMMA_3),
    ("gemma-3-4b", "3.88", "", "", GEMMA_3),
    ("gemma-3-12b", "11.77", "", "", GEMMA_3),
    ("gemma-3-27b", "27.02", "", "", GEMMA_3),
    ("gemma-4-26b-a4b", "25.2", "3.8", "head", CARD),
    ("gemma-4-31b", "30.7", "", "", CARD),
    ("mistral-7b-v0.2", "7.24", "", "", CARD),
    ("mistral-7b-v0.3", "7.25", "", "", CARD),
    ("mistral-nemo-12b", "12.2", "", "", CARD),
    ("ministral-8b", "8.02", "", "", CARD),
    ("mistral-small-22b", "22.2", "", "", CARD),
    ("mistral-small-24b", "23.6", "", "", CARD),
    ("mistral-large-123b", "123", "", "", CARD),
    ("ministral-3-3b", "3.4", "", "", "model card (language model without the vision encoder)"),
    ("ministral-3-8b", "8.4", "", "", "model card (language model without the vision encoder)"),
    ("ministral-3-14b", "13.5", "", "", "model card (language model without the vision encoder)"),
    ("phi-3-mini", "3.8", "", "", CARD),
    ("phi-3-medium", "14", "", "", CARD),
    ("phi-3.5-moe", "41.9", "6.6", "head", CARD),
    ("phi-4", "14.7", "", "", INDEX),
    ("phi-4-mini", "3.8", "", "", CARD),
    ("deepseek-v2-lite", "15.7", "", "", "DeepSeek-V2 paper (arXiv 2405.04434), appendix B"),
    ("deepseek-v2", "236", "21", "head", "DeepSeek-V2 paper (arXiv 2405.04434)"),
    ("deepseek-v3.2", "671", "37", "head", CARD),
    ("deepseek-moe-16b", "16.4", "2.8", "both", "DeepSeekMoE paper (arXiv 2401.06066)"),
    ("glm-4-9b", "9.4", "", "", INDEX),
    ("glm-4-32b", "32", "", "", CARD),
    ("glm-4.5", "355", "32", "none", "GLM-4.5 report (arXiv 2508.06471)"),
    ("glm-4.5-air", "106", "12", "none", "GLM-4.5 report (arXiv 2508.06471)"),
    ("glm-4.7-flash", "30", "3", "none", CARD),
    ("glm-5.2", "744", "40", "none", CARD),
    ("kimi-k2", "1026", "32", "head", CARD),
    ("moonlight-16b-a3b", "16", "2.24", "none", "Moonlight paper (arXiv 2502.16982)"),
    ("deepseek-v4-flash", "284", "13", "head", CARD),
    ("deepseek-v4-pro", "1600", "49", "both", CARD),
    ("minimax-m3", "428", "23", "none", CARD),
    ("mimo-v2-flash", "309", "15", "head", "MiMo-V2-Flash report and model card"),
    ("nemotron-3-nano-30b-a3b", "31.6", "3.2", "head", CARD),
    ("nemotron-3-super-120b-a12b", "120", "12", "head", CARD),
    ("nemotron-3-ultra-550b-a55b", "550", "55", "head", CARD),
    ("nemotron-h-56b", "56", "", "", CARD),
    ("nemotron-4-340b", "340", "", "", "Nemotron-4 340B report (arXiv 2406.11704)"),
    ("granite-3.3-8b", "8.1", "", "", CARD),
    ("granite-3.3-2b", "2.5", "", "", CARD),
    ("granite-3.1-3b-a800m", "3.3", "0.8", "none", CARD),
    ("smollm2-360m", "0.362", "", "", INDEX),
    ("smollm2-1.7b", "1.71", "", "", INDEX),
    ("smollm3-3b", "3.08", "", "", INDEX),
    ("olmo-2-1b", "1.48", "", "", "OLMo 2 paper (arXiv 2501.00656) and safetensors index"),
    ("olmo-2-7b", "7.3", "", "", "OLMo 2 paper (arXiv 2501.00656) and safetensors index"),
    ("olmo-2-13b", "13.7", "", "", "OLMo 2 paper (arXiv 2501.00656) and safetensors index"),
    ("olmo-2-32b", "32.2", "", "", "OLMo 2 paper (arXiv 2501.00656) and safetensors index"),
    ("olmoe-1b-7b", "6.9", "1.3", "both", "OLMoE paper (arXiv 2409.02060)"),
    ("falcon-7b", "7", "", "", CARD),
    ("falcon-180b", "180", "", "", CARD),
    ("falcon3-1b", "1.67", "", "", INDEX),
    ("falcon3-3b", "3.23", "", "", INDEX),
    ("falcon3-7b", "7.46", "", "", INDEX),
    ("falcon3-10b", "10.3", "", "", INDEX),
    ("yi-6b", "6.06", "", "", INDEX),
    ("yi-34b", "34.4", "", "", INDEX),
    ("command-r-35b", "35", "", "", CARD),
    ("command-r-32b", "32", "", "", CARD),
    ("command-r-plus-104b", "104", "", "", CARD),
    ("command-a-111b", "111", "", "", CARD),
    ("internlm2.5-7b", "7.74", "", "", INDEX),
    ("internlm2.5-20b", "19.9", "", "", INDEX),
    ("seed-oss-36b", "36", "", "", CARD),
    ("solar-10.7b", "10.7", "", "", CARD),
    ("starcoder2-3b", "3.03", "", "", INDEX),
    ("starcoder2-7b", "7.17", "", "", INDEX),
    ("stablelm-3b", "2.8", "", "", CARD),
    ("gpt-neox-20b", "20.6", "", "", "GPT-NeoX-20B paper (arXiv 2204.06745)"),
    ("bloom-176b", "176", "", "", CARD),
)

# Every model of the serving data files, as written there.
MEASURED = {
    "MiniMaxAI/MiniMax-M2.5": "minimax-m2",
    "Qwen/Qwen3.5-397B-A17B": "qwen3.5-397b-a17b",
    "moonshotai/Kimi-K2.5": "kimi-k2.5",
    "deepseek-ai/DeepSeek-V3": "deepseek-v3",
    "nvidia/DeepSeek-R1-NVFP4": "deepseek-v3",
    "nvidia/DeepSeek-V3.1-NVFP4": "deepseek-v3",
    "nvidia/Qwen3-32B-NVFP4": "qwen3-32b",
    "deepseek-ai/DeepSeek-R1": "deepseek-v3",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "openai/gpt-oss-120b": "gpt-oss-120b",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "zhipuai/GLM-5": "glm-5",
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "amd/DeepSeek-R1-0528-MXFP4-Preview": "deepseek-v3",
    "deepseek-ai/DeepSeek-R1-0528": "deepseek-v3",
    "/mnt/lustre01/models/deepseek-r1-0528-fp4-v2": "deepseek-v3",
    "/models/DeepSeek-R1": "deepseek-v3",
    "/mnt/lustre01/models/gpt-oss-120b": "gpt-oss-120b",
    "nvidia/DeepSeek-R1-0528-FP4-V2": "deepseek-v3",
    "mistralai/Mistral-7B-v0.1": "mistral-7b-v0.1",
    "meta-llama/Meta-Llama-3-8B": "llama-3-8b",
    "meta-llama/Llama-2-7b-hf": "llama-2-7b",
    "meta-llama/Llama-2-70b-hf": "llama-2-70b",
    "mistralai/Mixtral-8x7B-v0.1": "mixtral-8x7b",
    "Qwen/Qwen2-7B": "qwen2-7b",
    "meta-llama/Meta-Llama-3-70B": "llama-3-70b",
    "Qwen/Qwen2-72B": "qwen2-72b",
    "BAAI/Aquila-7B": "aquila-7b",
    "bigscience/bloom-7b1": "bloom-7b1",
    "Deci/DeciLM-7B": "decilm-7b",
    "EleutherAI/gpt-j-6b": "gpt-j-6b",
    "huggyllama/llama-7b": "llama-7b",
    "facebook/opt-6.7b": "opt-6.7b",
    "Qwen/Qwen1.5-7B": "qwen1.5-7b",
}


def _agrees(count: float, printed: str) -> bool:
    decimals = len(printed.partition(".")[2])
    is_near = abs(count / (float(printed) * 1e9) - 1) <= 0.02
    return is_near or f"{count / 1e9:.{decimals}f}" == printed


def _active(model: Architecture, counts: str) -> float:
    inputs = model.embedding_params - model.output_head_params
    correction = {"head": 0.0, "both": inputs, "none": -model.output_head_params}
    return model.active_params + correction[counts]


@pytest.mark.parametrize(
    ("id_", "total", "active", "counts", "source"), PUBLISHED, ids=[row[0] for row in PUBLISHED]
)
def test_parameters_agree_with_the_published_count(
    id_: str, total: str, active: str, counts: str, source: str
) -> None:
    model = architectures.records()[id_]
    assert _agrees(model.total_params, total), f"{model.total_params / 1e9:.3f}, {source}"
    if active:
        found = _active(model, counts)
        assert _agrees(found, active), f"{found / 1e9:.3f} active, {source}"
    else:
        assert not model.is_moe or model.id == "deepseek-v2-lite"


def test_every_record_has_a_published_count() -> None:
    assert [row[0] for row in PUBLISHED] == list(architectures.records())


def test_measured_models_come_first_and_keep_their_places() -> None:
    # A trained model refers to them by their place in the file.
    places = list(architectures.records())
    assert places[:5] == ["aquila-7b", "bloom-7b1", "decilm-7b", "deepseek-v3", "glm-5"]
    assert places[33] == "smollm2-135m"
    assert {places.index(id_) for id_ in MEASURED.values()} <= set(range(34))


@pytest.mark.parametrize(("name", "id_"), MEASURED.items())
def test_every_model_of_the_serving_data_is_found(name: str, id_: str) -> None:
    assert architectures.find(name).id == id_


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("meta-llama/Llama-3.3-70B-Instruct", "llama-3.1-70b"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", "qwen2.5-14b"),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", "llama-3.1-8b"),
        ("bartowski/Qwen2.5-7B-Instruct-GGUF", "qwen2.5-7b"),
        ("Qwen2.5-7B-Instruct-Q4_K_M.gguf", "qwen2.5-7b"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "qwen3-235b-a22b"),
        ("unsloth/gemma-3-27b-it-bnb-4bit", "gemma-3-27b"),
        ("GLM-4.6-FP8", "glm-4.5"),
        ("amd/Llama-3.3-70B-Instruct-FP8-KV", "llama-3.1-70b"),
        ("/data/hub/models--Qwen--Qwen3-32B/snapshots/9216db57", "qwen3-32b"),
        ("llama3.1:8b", "llama-3.1-8b"),
        ("gptoss120b", "gpt-oss-120b"),
        ("minimaxm2.5", "minimax-m2"),
        ("  Mixtral-8x7B-Instruct-v0.1 ", "mixtral-8x7b"),
        ("C:\\models\\phi-4", "phi-4"),
    ],
)
def test_copies_are_found_by_the_shape_they_share(name: str, id_: str) -> None:
    assert architectures.find(name).id == id_


@pytest.mark.parametrize(
    "name", ["Qwen/Qwen3-33B", "deepseek-v5", "gpt-4o", "llama", "", "moonshotai/Kimi-K3"]
)
def test_an_unknown_model_is_refused_with_the_nearest(name: str) -> None:
    with pytest.raises(NotFound, match="known to the simulator") as error:
        architectures.find(name)
    nearest = error.value.remedy.removeprefix("The nearest are ").split(";")[0].split(", ")
    assert len(nearest) == 3
    assert set(nearest) <= set(architectures.records())


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("amd/DeepSeek-R1-0528-MXFP4-Preview", "fp4"),
        ("nvidia/DeepSeek-R1-0528-FP4-V2", "fp4"),
        ("nvidia/Qwen3-32B-NVFP4", "fp4"),
        ("Qwen/Qwen3-235B-A22B-FP8", "fp8"),
        ("Qwen2.5-7B-Instruct-AWQ", "int4"),
        ("Llama-3.1-8B-Instruct-quantized.w8a8", "int8"),
        ("smollm2.Q4_1.gguf", "int4"),
        ("deepseek-ai/DeepSeek-R1", None),
    ],
)
def test_a_name_may_say_the_precision(name: str, precision: str | None) -> None:
    assert architectures.precision_hint(name) == precision


def test_cache_of_grouped_query_attention() -> None:
    # 80 layers x 8 heads x (128 keys + 128 values) x 2 bytes.
    assert architectures.find("llama-3.1-70b").kv_bytes_per_token(2) == 327_680
    # 67 key-value heads over the 32 layers of DeciLM, each 128 keys and 128 values.
    assert architectures.find("decilm-7b").kv_bytes_per_token(2) == 67 * 256 * 2


def test_cache_of_latent_attention() -> None:
    # 61 layers x (512 latent + 64 rotary) x 2 bytes, whatever the 128 heads.
    assert architectures.find("deepseek-v3").kv_bytes_per_token(2) == 61 * 576 * 2
    # The indexer of V3.2 keeps 128 FP8 numbers and a float32 scale a token and layer.
    assert architectures.find("deepseek-v3.2").kv_bytes_per_token(2) == 61 * (576 * 2 + 132)


def test_cache_of_compressed_attention() -> None:
    # DeepSeek-V4-Flash: 21 layers keep 1 entry of 512 numbers for 4 tokens, 20 one for 128: as
    # much as 5.4 layers that keep all, counted as 5. The others keep a window of 128 tokens.
    model = architectures.find("deepseek-v4-flash")
    assert (model.full_layers, model.window_layers, model.window) == (5, 38, 128)
    growth = model.sequence_bytes(100_000, 1) - model.sequence_bytes(99_000, 1)
    # Each of the 21 indexers keeps 132 bytes a token beside.
    assert growth == 1000 * (5 * 512 + 21 * 132)
    assert model.sequence_bytes(1000, 1) == 1000 * (5 * 512 + 21 * 132) + 128 * 38 * 512


def test_cache_of_sliding_windows_stops_growing() -> None:
    # 36 layers of 8 heads x (64 + 64); every other one keeps 128 tokens.
    model = architectures.find("gpt-oss-120b")
    layer = 8 * 128 * 2
    assert model.sequence_bytes(100, 2) == 100 * 36 * layer
    assert model.sequence_bytes(10_000, 2) == 10_000 * 18 * layer + 128 * 18 * layer
    # Gemma 3: five of six layers keep 1,024 tokens; ten of the 62 keep all.
    gemma = architectures.find("gemma-3-27b")
    assert (gemma.full_layers, gemma.window_layers, gemma.window) == (10, 52, 1024)


def test_state_of_linear_attention_does_not_grow() -> None:
    # 15 full layers x 2 heads x (256 + 256) x 2 bytes a token; the other 45 keep a state of
    # 64 heads x 128 x 128 float32, and 3 x (2 x 2048 + 8192) BF16 inputs of the convolution.
    model = architectures.find("qwen3.5-397b-a17b")
    state = 64 * 128 * 128 * 4 + 3 * 12_288 * 2
    assert model.linear_state_bytes == state
    assert model.sequence_bytes(1000, 2) == 1000 * 15 * 1024 * 2 + 45 * state


def test_a_file_that_describes_no_model_is_refused(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("model")
    with pytest.raises(InvalidInput, match="no config.json and no GGUF"):
        architectures.read_file(folder)
    (folder / "config.json").write_text("{not json")
    with pytest.raises(InvalidInput, match="cannot be read as JSON"):
        architectures.read_file(folder)
    (folder / "config.json").write_text("[1, 2]")
    with pytest.raises(InvalidInput, match="no configuration"):
        architectures.read_file(folder / "config.json")
