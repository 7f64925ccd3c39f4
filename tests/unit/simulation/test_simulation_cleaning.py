"""Cleaning the three sources into one table, and the table that ships."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.simulation import cleaning, dataset

# Columns and the form of values as in the published files; the numbers are made up.
_SILICON = {
    "id": "row",
    "silicon_data_source": "db-dump/2026-04-27; silicon_concurrency=64; measured=2026-04-21T00:00",
    "backend": "vllm",
    "backend_version": "0.19.0",
    "model_path": "MiniMaxAI/MiniMax-M2.5",
    "system": "b300_sxm",
    "precision": "fp8",
    "mode": "agg",
    "isl": "1024",
    "osl": "1024",
    "batch_size": "64",
    "tp_size": "4",
    "attention_dp_size": "1",
    "moe_tp_size": "4",
    "moe_ep_size": "1",
    "silicon_ttft_ms": "205.55",
    "silicon_tpot_ms": "17.78",
}
_SIDE = ("batch_size", "num_workers", "tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
_SIDES = [f"{side}_{name}" for side in ("prefill", "decode") for name in _SIDE]
_INFERENCEMAX = {
    "hw": "mi355x-amd_0",
    "conc": "32",
    "image": "lmsysorg/sglang:v0.5.6.post1-rocm700-mi35x",
    "model": "amd/DeepSeek-R1-0528-MXFP4-Preview",
    "framework": "sglang",
    "precision": "fp4",
    "spec_decoding": "none",
    "disagg": "False",
    "isl": "1024",
    "osl": "1024",
    "tp": "4.0",
    "ep": "1.0",
    "dp_attention": "true",
    "output_tput_per_gpu": "396.3",
    **{f"{kind}_{name}": "0.5" for kind in ("mean", "median", "p99") for name in ("ttft", "tpot")},
    "mean_e2el": "18.4",
    "_run": "run_1",
}
_ALCF = {
    "Hardware": "Nvidia GH200 GPU",
    "Num of Hardware": "1",
    "Framework": "TensorRT-LLM",
    "Model": "mistralai/Mistral-7B-v0.1",
    "Input Output Length": "128",
    "Batch Size": "16",
    "Latency": "0.85",
    "Throughput": "4820.8",
}


def _cleaned(folder: Path, silicon=(), inferencemax=(), alcf=()) -> pd.DataFrame:
    base = _SILICON | dict.fromkeys(_SIDES, "")
    tables = {
        cleaning.SILICON: ([base | row for row in silicon], [*base]),
        cleaning.INFERENCEMAX: ([_INFERENCEMAX | row for row in inferencemax], [*_INFERENCEMAX]),
        cleaning.ALCF: ([_ALCF | row for row in alcf], [*_ALCF]),
    }
    for name, (rows, columns) in tables.items():
        extra = [key for row in rows for key in row if key not in columns]
        pd.DataFrame(rows, columns=[*columns, *extra]).to_csv(folder / f"{name}.csv", index=False)
    return cleaning.clean(folder)


def test_a_silicon_row_keeps_milliseconds_and_takes_its_concurrency_from_its_source(tmp_path):
    row = _cleaned(tmp_path, silicon=[{}]).iloc[0]
    assert (row["model"], row["system"], row["engine"]) == ("minimax-m2", "b300_sxm", "vllm")
    assert (row["concurrency"], row["tp"], row["dp"], row["ep"]) == (64, 4, 1, 1)
    assert row["ttft_ms"] == pytest.approx(205.55)
    assert row["measured_on"] == "2026-04-21"


def test_an_inferencemax_row_is_in_seconds_and_data_parallel_attention_is_over_all_devices(
    tmp_path,
):
    row = _cleaned(tmp_path, inferencemax=[{}]).iloc[0]
    assert (row["model"], row["system"]) == ("deepseek-v3", "mi355x")
    assert row["ttft_ms"] == pytest.approx(500)
    assert (row["tp"], row["dp"], row["engine_version"]) == (4, 4, "0.5.6.post1")


def test_static_batches_have_an_end_to_end_time_and_throughput_from_it(tmp_path):
    row = _cleaned(tmp_path, alcf=[{}]).iloc[0]
    assert row["e2e_ms"] == pytest.approx(850)
    assert np.isnan(row["ttft_ms"])
    assert row["output_tokens_per_s_per_gpu"] == pytest.approx(16 * 128 / 0.85)


def test_a_row_without_any_load_is_left_out(tmp_path):
    silent = {"silicon_data_source": "source_file=a.csv", "batch_size": ""}
    assert len(_cleaned(tmp_path, silicon=[silent, {}])) == 1


def test_copies_of_a_run_are_kept_once_and_the_fuller_description_wins(tmp_path):
    copy = {
        "model_path": "deepseek-ai/DeepSeek-V3",
        "system": "mi355x",
        "backend": "sglang",
        "precision": "fp4",
        "silicon_data_source": "silicon_concurrency=32",
        "silicon_ttft_ms": "500.001",
        "silicon_tpot_ms": "500.0001",
    }
    table = _cleaned(tmp_path, silicon=[copy], inferencemax=[{}])
    assert table["source"].tolist() == [cleaning.INFERENCEMAX]


@pytest.mark.parametrize(
    ("tp", "dp", "ep", "moe_tp", "devices"),
    [
        (64, 1, 8, 0, 8),
        (16, 1, 4, 0, 4),
        (4, 1, 2, 2, 2),
        (8, 8, 1, 0, 8),
        (8, 1, 8, 0, 8),
        (4, 1, 1, 4, 4),
    ],
)
def test_devices_that_a_source_counts_twice_are_counted_once(tp, dp, ep, moe_tp, devices):
    assert cleaning.devices_of(tp, dp, ep, moe_tp)[0] == devices


def test_a_disaggregated_row_says_all_in_the_columns_of_its_sides(tmp_path):
    row = {
        "mode": "disagg",
        "batch_size": "",
        "tp_size": "",
        "attention_dp_size": "",
        **{f"prefill_{k}": v for k, v in (("num_workers", "2"), ("tp_size", "4"))},
        **{f"decode_{k}": v for k, v in (("num_workers", "1"), ("tp_size", "8"))},
        "decode_moe_tp_size": "8",
        "decode_moe_ep_size": "1",
    }
    found = _cleaned(tmp_path, silicon=[row]).iloc[0]
    assert (found["tp"], found["dp"], found["gpus"]) == (1, 1, 2 * 4 + 8)
    assert (found["decode_tp"], found["decode_ep"]) == (8, 1)


def test_the_shipped_table_names_a_source_on_every_row_and_has_no_copies():
    table = pd.read_parquet(dataset.PATH)
    assert set(table["source"]) == {cleaning.SILICON, cleaning.INFERENCEMAX, cleaning.ALCF}
    assert (table["source_id"] != "").all()
    serving = table[table["source"] != cleaning.ALCF]
    keys = ["model", "system", "mode", "isl", "osl", "concurrency"]
    rounded = serving.assign(a=serving["ttft_ms"].round(2), b=serving["tpot_ms"].round(3))
    assert not rounded.duplicated([*keys, "a", "b"]).any()


def test_every_shipped_row_is_usable():
    measured = dataset.load()
    assert len(measured) == len(pd.read_parquet(dataset.PATH))
    rows = measured.rows
    for name in ("isl", "osl", "concurrency", "tp"):
        assert (getattr(rows, name) >= 1).all(), name
    for name in ("model", "system", "engine"):
        assert (getattr(rows, name) >= 0).all(), name
    serving = rows.lengths != 2
    assert (measured.ttft_ms[serving] > 0).all()
    assert (measured.e2e_ms[~serving] > 0).all()
