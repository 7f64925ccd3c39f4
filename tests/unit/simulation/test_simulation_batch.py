"""A CSV file of configurations in, one answer a row out."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.kernel.errors import InvalidInput
from core.simulation import batch, batch_rows, subjects
from core.simulation.scenarios import ENGINES, PRECISIONS, SPECULATION, Scenarios

GOOD = {
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "system": "h100_sxm",
    "engine": "vllm",
    "precision": "fp8",
    "mode": "agg",
    "isl": "1024",
    "osl": "512",
    "concurrency": "16",
    "tp": "1",
    "pp": "1",
    "ep": "1",
    "dp": "1",
}
DISAGGREGATED = GOOD | {
    "model": "DeepSeek-R1-0528",
    "mode": "disagg",
    "tp": "",
    "pp": "",
    "ep": "",
    "dp": "",
    "prefill_workers": "2",
    "prefill_tp": "4",
    "prefill_ep": "4",
    "prefill_dp": "4",
    "decode_workers": "1",
    "decode_tp": "8",
    "decode_ep": "8",
    "decode_dp": "",
}


def _answers(*rows: dict[str, str]) -> list[dict[str, str]]:
    table = pd.DataFrame(rows).fillna("")
    return batch.answer(table, subjects.shipped()).to_dict("records")


def _scenario(**changes: str) -> Scenarios:
    asked = batch_rows.ask(pd.DataFrame([GOOD | changes]).fillna(""), subjects.shipped())
    assert list(asked.errors) == [""]
    return asked.scenarios


def _error(**changes: str) -> str:
    (answer,) = _answers(GOOD | changes)
    assert (answer["ttft_ms"], answer["fits"]) == ("", "")
    return answer["error"]


def _write(path: Path, *rows: dict[str, str]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(rows)


def test_a_row_is_answered_with_bands_memory_and_support() -> None:
    (answer,) = _answers(GOOD)
    for name in ("ttft_ms", "tpot_ms", "e2e_ms", "tokens_per_s_per_gpu"):
        assert 0 < answer[f"{name}_low"] < answer[name] < answer[f"{name}_high"]
    assert answer["e2e_ms"] == pytest.approx(answer["ttft_ms"] + 511 * answer["tpot_ms"], rel=1e-3)
    assert 8 < answer["memory_gb_per_gpu"] < 80
    assert answer["fits"] == "true"
    assert answer["error"] == ""
    assert answer["support"] == "extrapolated" or "nearby" in answer["support"]


def test_one_row_out_for_each_row_in_bad_ones_with_their_error() -> None:
    rows = [
        GOOD | {"id": "1"},
        GOOD | {"id": "2", "model": "no-such-model"},
        GOOD | {"id": "3", "isl": "0"},
        DISAGGREGATED | {"id": "4"},
    ]
    answers = _answers(*rows)
    assert [answer["id"] for answer in answers] == ["1", "2", "3", "4"]
    assert [bool(answer["error"]) for answer in answers] == [False, True, True, False]
    alone = _answers(GOOD)[0]
    assert answers[0]["tpot_ms"] == alone["tpot_ms"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "no-such-model"}, "No model of the name 'no-such-model'"),
        ({"model": ""}, "model is blank"),
        ({"system": "h101"}, "There is no hardware 'h101'"),
        ({"system": "rtx_4070"}, "only its memory is known"),
        ({"engine": "tgi"}, "There is no engine 'tgi'"),
        ({"precision": "fp7"}, "There is no precision 'fp7'"),
        ({"mode": "both"}, "There is no mode 'both'"),
        ({"spec_decoding": "magic"}, "There is no spec_decoding 'magic'"),
        ({"isl": "0"}, "isl must be 1 to 10,000,000 (got: 0)"),
        ({"osl": "1000000000"}, "osl must be 1 to 10,000,000 (got: 1000000000)"),
        ({"isl": "10^9"}, "isl is no number (got: 10^9)"),
        ({"osl": "nan"}, "osl is no number (got: nan)"),
        ({"isl": ""}, "isl is blank"),
        ({"concurrency": "-4"}, "concurrency must be 1 to 1,000,000 (got: -4)"),
        ({"concurrency": "1.5"}, "concurrency must be a whole number"),
        ({"tp": "0"}, "tp must be 1 to 1,024 (got: 0)"),
        ({"tp": "two"}, "tp is no number (got: two)"),
        ({"replicas": "0"}, "replicas must be 1 to 10,000 (got: 0)"),
        ({"mode": "disagg", "decode_tp": "0"}, "decode_tp must be 1 to 1,024 (got: 0)"),
    ],
)
def test_what_is_wrong_with_a_row_is_named(changes: dict[str, str], message: str) -> None:
    assert message in _error(**changes)


def test_every_fault_of_a_row_is_named() -> None:
    error = _error(isl="-1", engine="tgi")
    assert "There is no engine 'tgi'" in error
    assert "isl must be" in error


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("vLLM", "vllm"),
        ("dynamo-trt", "trtllm"),
        ("TensorRT-LLM", "trtllm"),
        ("sglang-disagg", "sglang"),
        ("dynamo-sglang", "sglang"),
        ("dynamo-vllm", "vllm"),
        ("mori-sglang", "sglang"),
        ("atom", "atom"),
        ("llama-cpp", "llama.cpp"),
        ("Deepspeed-MII", "deepspeed"),
    ],
)
def test_engines_go_by_the_names_of_the_data_files(name: str, engine: str) -> None:
    assert _scenario(engine=name).engine[0] == ENGINES.index(engine)


@pytest.mark.parametrize(
    ("text", "model", "precision"),
    [
        ("NVFP4", "openai/gpt-oss-120b", "fp4"),
        ("fp8_block", "Qwen/Qwen3-32B", "fp8"),
        ("float16", "Qwen/Qwen3-32B", "bf16"),
        ("awq", "Qwen/Qwen3-32B", "int4"),
        ("", "amd/DeepSeek-R1-0528-MXFP4-Preview", "fp4"),
    ],
)
def test_precisions_go_by_many_names(text: str, model: str, precision: str) -> None:
    assert _scenario(precision=text, model=model).precision[0] == PRECISIONS.index(precision)


def test_blanks_are_unknown() -> None:
    rows = _scenario(precision="", dp="", tp="", pp="", ep="", mode="", spec_decoding="")
    assert (rows.precision[0], rows.dp[0], rows.tp[0], rows.ep[0]) == (-1, 0, 1, 1)
    assert rows.mode[0] == 0
    assert rows.speculation[0] == SPECULATION.index("unknown")
    assert np.isnan(rows.engine_version[0])


@pytest.mark.parametrize(
    ("text", "number"), [("0.19.0", 19.0), ("vllm/vllm-openai:v0.19.0-cu130", 19.0)]
)
def test_a_version_or_an_image_gives_the_engines_version(text: str, number: float) -> None:
    assert _scenario(engine_version=text).engine_version[0] == number


@pytest.mark.parametrize(
    ("tp", "dp", "ep", "devices", "ranks"),
    [
        ("64", "1", "8", 8, 1),  # tp x ep of the files
        ("1", "64", "8", 8, 8),
        ("16", "1", "4", 4, 1),
        ("4", "4", "16", 4, 4),  # tp = dp is data-parallel attention
        ("1", "8", "8", 8, 8),
        ("8", "1", "8", 8, 1),
        ("2", "", "1", 2, 0),
    ],
)
def test_devices_that_a_file_counts_twice_count_once(
    tp: str, dp: str, ep: str, devices: int, ranks: int
) -> None:
    rows = _scenario(model="deepseek-ai/DeepSeek-R1", tp=tp, dp=dp, ep=ep)
    assert (rows.tp[0], rows.dp[0]) == (devices, ranks)
    assert rows.ep[0] <= devices


def test_counting_twice_is_noted_and_only_done_for_files() -> None:
    row = GOOD | {"model": "deepseek-ai/DeepSeek-R1", "system": "gb200", "tp": "16", "ep": "4"}
    (answer,) = _answers(row)
    assert "16 devices count some twice: taken as 4" in answer["note"]
    table = pd.DataFrame([row])
    asked = batch_rows.ask(table, subjects.shipped(), counted_as_measured=False)
    assert asked.scenarios.tp[0] == 16
    assert asked.notes[0] == ""


def test_sides_of_a_disaggregated_row() -> None:
    (answer,) = _answers(DISAGGREGATED)
    assert answer["error"] == ""
    rows = _scenario(**DISAGGREGATED)
    assert (rows.prefill_workers[0], rows.prefill_tp[0], rows.prefill_dp[0]) == (2, 4, 4)
    assert (rows.decode_workers[0], rows.decode_tp[0], rows.decode_dp[0]) == (1, 8, 1)
    # Experts over more devices than attention names: that many ranks.
    wide = _scenario(**DISAGGREGATED | {"decode_tp": "1", "decode_ep": "16", "decode_dp": "1"})
    assert (wide.decode_tp[0], wide.decode_dp[0]) == (16, 16)


def test_what_does_not_fit_or_start_is_answered_and_says_so() -> None:
    too_big, odd, long = _answers(
        GOOD | {"model": "llama-3.1-405b", "precision": "bf16"},
        GOOD | {"tp": "3"},
        GOOD | {"isl": "200000"},
    )
    assert (too_big["fits"], odd["fits"]) == ("false", "false")
    assert "does not fit" in too_big["note"]
    assert "tp 3 cannot share 32 attention heads" in odd["note"]
    assert min(too_big["tpot_ms"], odd["tpot_ms"]) > 0
    assert "200,512 tokens are over the model's 131,072" in long["note"]


def test_a_worker_too_small_for_the_weights_is_predicted_as_wide_as_it_must_be() -> None:
    one = {"prefill_tp": "1", "prefill_ep": "1", "prefill_dp": "1", "prefill_workers": "1"}
    one |= {"decode_tp": "1", "decode_ep": "1", "decode_dp": "1"}
    row = DISAGGREGATED | {"system": "gb200", "engine": "sglang", "precision": "fp4"} | one
    wide = row | {f"{side}_{name}": "4" for side in ("prefill", "decode") for name in ("tp", "ep")}
    wide |= {"prefill_dp": "4", "decode_dp": "4"}
    small, large = _answers(row, wide)
    assert (small["fits"], large["fits"]) == ("false", "true")
    assert "predicted as 8 devices would run it" in small["note"]
    assert small["tpot_ms"] == large["tpot_ms"]
    assert small["memory_gb_per_gpu"] > 186 > large["memory_gb_per_gpu"]


def test_a_file_is_answered_in_order_and_keeps_its_columns(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    rows = [GOOD | {"ttft_ms": "99", "who": "Ann"}, GOOD | {"model": "?", "who": "Bo, Cy"}]
    _write(source, *rows)
    summary = batch.run(source, target, subjects.shipped())
    assert (summary.rows, summary.answered, summary.failed) == (2, 1, 1)
    with target.open(newline="") as file:
        answers = list(csv.DictReader(file))
    assert [answer["who"] for answer in answers] == ["Ann", "Bo, Cy"]
    assert answers[0]["in_ttft_ms"] == "99"
    assert float(answers[0]["ttft_ms"]) > 0
    assert answers[1]["ttft_ms"] == ""
    assert list(answers[0])[-len(batch.ADDED) :] == list(batch.ADDED)
    assert not list(tmp_path.glob(".*"))


def test_ragged_lines_are_bad_rows_not_bad_files(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    good = ",".join(GOOD.values())
    source.write_text("\ufeff" + ",".join(GOOD) + f"\n{good},1,2\n\n{good}\nllama-3.1-8b\n")
    batch.run(source, target, subjects.shipped())
    errors = pd.read_csv(target, keep_default_na=False)["error"].tolist()
    assert errors[:2] == ["14 cells where the header names 12", ""]
    assert "system is blank" in errors[2]
    assert len(errors) == 3


def test_a_table_without_rows_or_good_rows_is_answered(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(",".join(GOOD) + "\n")
    assert batch.run(source, target, subjects.shipped()).rows == 0
    assert target.read_text().startswith("model,system,")
    assert _answers(GOOD | {"model": "?"})[0]["note"] == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column model, system"),
        ("model,system\na,b\n", "no column engine, precision, mode"),
        (",".join([*GOOD, "TP "]) + "\n", "several columns tp"),
        ("\x00\xff", "cannot be read as CSV"),
    ],
)
def test_a_file_of_the_wrong_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    source = tmp_path / "in.csv"
    source.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInput, match=message):
        batch.run(source, tmp_path / "out.csv", subjects.shipped())


def test_files_that_cannot_be_read_or_written_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    with pytest.raises(InvalidInput, match="cannot be read"):
        batch.run(source, tmp_path / "out.csv", subjects.shipped())
    _write(source, GOOD)
    with pytest.raises(InvalidInput, match="would overwrite"):
        batch.run(source, source, subjects.shipped())
    with pytest.raises(InvalidInput, match="cannot be written"):
        batch.run(source, tmp_path / "no" / "out.csv", subjects.shipped())
