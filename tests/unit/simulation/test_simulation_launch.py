"""Launch arguments: the flags that each engine documents, for what was simulated."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.kernel.errors import InvalidInput
from core.simulation import dataset, launch
from core.simulation.launch import Launch, Server
from core.simulation.scenarios import ENGINES, PRECISIONS, from_columns

MODELS, SYSTEMS = dataset.tables()
WIDE = Server(
    engine="vllm",
    model="deepseek-ai/DeepSeek-R1",
    tp=8,
    ep=8,
    dp=8,
    precision="fp8",
    native="fp8",
    kv_precision="fp8",
    max_sequences=256,
    chunk_tokens=8192,
    block_tokens=32,
    chunked_prefill=True,
    prefix_caching=False,
    max_tokens=9216,
    speculation="mtp",
)
PLAIN = Server(engine="vllm", model="Qwen/Qwen3-8B")


def _flags(made: Launch) -> dict[str, str]:
    """Flag to value; "" for a flag without one."""
    words = list(made.command)
    return {
        word: "" if following.startswith("--") else following
        for word, following in zip(words, [*words[1:], "--"], strict=True)
        if word.startswith("--")
    }


def _options(made: Launch) -> Any:
    return yaml.safe_load(made.files["extra_llm_api_options.yaml"])


def test_vllm() -> None:
    made = launch.command(replace(WIDE, tp=8, dp=4))
    assert made.command[:3] == ("vllm", "serve", "deepseek-ai/DeepSeek-R1")
    flags = _flags(made)
    assert json.loads(flags.pop("--speculative-config")) == {
        "method": "mtp",
        "num_speculative_tokens": 1,
    }
    # Ranks of data parallelism times tensor parallel devices; limits are a rank's own.
    assert flags == {
        "--tensor-parallel-size": "2",
        "--data-parallel-size": "4",
        "--enable-expert-parallel": "",
        "--kv-cache-dtype": "fp8",
        "--max-model-len": "9216",
        "--max-num-seqs": "64",
        "--max-num-batched-tokens": "8192",
        "--block-size": "32",
        "--enable-chunked-prefill": "",
        "--no-enable-prefix-caching": "",
    }


def test_sglang() -> None:
    made = launch.command(replace(WIDE, engine="sglang"))
    assert made.command[:3] == ("python", "-m", "sglang.launch_server")
    assert _flags(made) == {
        "--model-path": "deepseek-ai/DeepSeek-R1",
        "--tp-size": "8",
        "--dp-size": "8",
        "--enable-dp-attention": "",
        "--ep-size": "8",
        "--kv-cache-dtype": "fp8_e4m3",
        "--context-length": "9216",
        "--max-running-requests": "256",
        "--chunked-prefill-size": "8192",
        "--page-size": "32",
        "--disable-radix-cache": "",
        "--speculative-algorithm": "EAGLE",
        "--speculative-num-steps": "1",
        "--speculative-eagle-topk": "1",
        "--speculative-num-draft-tokens": "2",
    }
    whole = launch.command(replace(WIDE, engine="sglang", chunked_prefill=False))
    assert _flags(whole)["--chunked-prefill-size"] == "-1"


def test_tensorrt_llm() -> None:
    made = launch.command(replace(WIDE, engine="trtllm"))
    assert made.command[:2] == ("trtllm-serve", "deepseek-ai/DeepSeek-R1")
    assert _flags(made) == {
        "--tp_size": "8",
        "--ep_size": "8",
        "--max_batch_size": "32",
        "--max_num_tokens": "8192",
        "--max_seq_len": "9216",
        "--enable_chunked_prefill": "",
        "--extra_llm_api_options": "extra_llm_api_options.yaml",
    }
    assert _options(made) == {
        "enable_attention_dp": True,
        "kv_cache_config": {"dtype": "fp8", "tokens_per_block": 32, "enable_block_reuse": False},
        "speculative_config": {"decoding_type": "MTP", "num_nextn_predict_layers": 1},
    }


def test_llama_cpp() -> None:
    made = launch.command(
        Server(
            engine="llama.cpp",
            model="models/qwen3-8b.gguf",
            kv_precision="fp8",
            max_sequences=8,
            max_tokens=2048,
            chunk_tokens=512,
            prefix_caching=False,
        )
    )
    assert made.notes == ()
    assert _flags(made) == {
        "--model": "models/qwen3-8b.gguf",
        "--n-gpu-layers": "all",
        "--parallel": "8",
        "--ctx-size": "16384",
        "--batch-size": "512",
        "--ubatch-size": "512",
        "--no-cache-prompt": "",
        "--flash-attn": "on",
        "--cache-type-k": "q8_0",
        "--cache-type-v": "q8_0",
    }
    # Split tensors allow neither automatic sizes nor a quantised cache.
    split = _flags(launch.command(replace(PLAIN, engine="llama.cpp", tp=2, kv_precision="fp8")))
    assert (split["--split-mode"], split["--fit"]) == ("tensor", "off")
    assert "--cache-type-k" not in split


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_what_nobody_chose_is_left_to_the_engine(engine: str) -> None:
    made = launch.command(replace(PLAIN, engine=engine))
    assert set(_flags(made)) <= {"--model-path"}
    assert made.files == {}


def test_pipeline_stages_and_one_sequence_at_a_time() -> None:
    flags = _flags(launch.command(replace(PLAIN, pp=2, max_sequences=1)))
    assert flags == {"--pipeline-parallel-size": "2", "--max-num-seqs": "1"}
    assert _flags(launch.command(replace(PLAIN, engine="sglang", pp=2)))["--pp-size"] == "2"
    assert _flags(launch.command(replace(PLAIN, engine="trtllm", pp=2)))["--pp_size"] == "2"


def test_weights_are_quantised_where_the_engine_can() -> None:
    fp8 = launch.command(replace(PLAIN, precision="fp8"))
    assert _flags(fp8) == {"--quantization": "fp8"}
    int4 = launch.command(replace(PLAIN, precision="int4"))
    assert _flags(int4) == {}
    assert int4.notes == ("Take a checkpoint of this model that is stored in INT4.",)
    gguf = launch.command(replace(PLAIN, engine="llama.cpp", precision="int4"))
    assert "Q4_K_M" in gguf.notes[0]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_sides_of_a_disaggregated_deployment(engine: str) -> None:
    rows = from_columns({
        "model": MODELS.ids["deepseek-v3"], "system": SYSTEMS.ids["h200_sxm"],
        "engine": ENGINES.index(engine), "mode": 1, "isl": 8192.0, "osl": 1024.0,
        "concurrency": 512.0, "prefill_workers": 3.0, "prefill_tp": 8.0,
        "decode_workers": 2.0, "decode_tp": 8.0, "decode_ep": 8.0, "decode_dp": 8.0,
    })  # fmt: skip
    prefill, decode = launch.of_scenario(rows, 0, MODELS)
    assert (prefill.copies, decode.copies) == (3, 2)
    assert "deepseek-ai/DeepSeek-R1" in prefill.command
    if engine == "vllm":
        assert json.loads(_flags(prefill)["--kv-transfer-config"])["kv_role"] == "kv_both"
        assert _flags(decode)["--data-parallel-size"] == "8"
    elif engine == "sglang":
        assert _flags(prefill)["--disaggregation-mode"] == "prefill"
        assert _flags(decode)["--disaggregation-mode"] == "decode"
    else:
        assert _options(prefill)["cache_transceiver_config"] == {"backend": "DEFAULT"}
        assert _options(decode)["enable_attention_dp"] is True
    assert "prefill" in prefill.text


def test_of_a_scenario() -> None:
    rows = from_columns({
        "model": MODELS.ids["llama-3.1-8b"], "system": SYSTEMS.ids["h100_sxm"],
        "engine": ENGINES.index("vllm"), "precision": PRECISIONS.index("fp8"), "isl": 1000.0,
        "osl": 500.0, "concurrency": 64.0, "replicas": 2.0, "prefix_hit_share": 0.5,
        "chunk_tokens": 4096.0, "max_sequences": 128.0,
    })  # fmt: skip
    (made,) = launch.of_scenario(rows, 0, MODELS)
    assert made.copies == 2
    assert made.command[2] == "meta-llama/Meta-Llama-3.1-8B"
    # FP8 weights are simulated with an FP8 cache; requests may be twice as long as the mean.
    assert _flags(made) == {
        "--quantization": "fp8",
        "--kv-cache-dtype": "fp8",
        "--max-model-len": "3000",
        "--max-num-seqs": "128",
        "--max-num-batched-tokens": "4096",
        "--enable-prefix-caching": "",
    }
    (own,) = launch.of_scenario(rows, 0, MODELS, model="/models/mine")
    assert own.command[2] == "/models/mine"
    local = rows.with_columns(engine=rows.engine * 0 + ENGINES.index("llama.cpp"))
    assert _flags(launch.of_scenario(local, 0, MODELS)[0])["--parallel"] == "128"
    unknown = rows.with_columns(engine=rows.engine * 0 + ENGINES.index("deepspeed"))
    assert launch.of_scenario(unknown, 0, MODELS) == ()


def test_an_engine_that_cannot_be_started_is_refused() -> None:
    with pytest.raises(InvalidInput, match="does not know how sambaflow is started"):
        launch.command(replace(PLAIN, engine="sambaflow"))


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "llama.cpp"])
def test_the_text_is_what_a_shell_runs(engine: str, tmp_path: Path) -> None:
    made = launch.command(replace(WIDE, engine=engine, model="a model's name"))
    # A program of that name that prints the arguments it gets.
    program = tmp_path / made.command[0]
    program.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    program.chmod(0o755)
    path = f"{tmp_path}:{Path(shutil.which('cat') or '/bin/cat').parent}:/bin:/usr/bin"
    ran = subprocess.run(
        ["sh", "-c", made.text],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PATH": path},
    )
    assert tuple(ran.stdout.splitlines()) == made.command[1:]
    for name, content in made.files.items():
        assert (tmp_path / name).read_text() == content
    assert shlex.quote("a model's name") in made.text
