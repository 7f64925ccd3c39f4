"""Public measurements of LLM serving, cleaned into one typed table.

Three sources, each with its own names, units and mistakes, become rows of one meaning (see
`docs/simulator-data.md` for what was decided, and why). `bud simulator clean FOLDER` writes the
table into the package; everything else reads only that.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.hardware import catalogue
from core.simulation import architectures

SILICON = "nvidia_silicon"
INFERENCEMAX = "inferencemax"
ALCF = "alcf"

_TEXT = (
    *("source", "source_id", "model", "system", "engine", "engine_version", "precision"),
    *("mode", "spec_decoding", "measured_on", "lengths", "note"),
)
_SIDE = ("workers", "tp", "pp", "ep", "dp")
_COUNTS = (
    *("isl", "osl", "concurrency", "tp", "pp", "ep", "dp", "replicas", "gpus"),
    *(f"{side}_{name}" for side in ("prefill", "decode") for name in _SIDE),
)
_TIMES = (
    *("ttft_ms", "tpot_ms", "e2e_ms", "ttft_p50_ms", "ttft_p99_ms", "tpot_p50_ms"),
    *("tpot_p99_ms", "output_tokens_per_s_per_gpu"),
)
COLUMNS = (*_TEXT, *_COUNTS, *_TIMES)

# Runs of InferenceX draw their lengths from 0.8 to 1 times the nominal ones and start in waves;
# the others send fixed lengths in lockstep.
RANDOM_LENGTHS = "random"
FIXED_LENGTHS = "fixed"
STATIC_BATCH = "static"

_ENGINES = {
    "vllm": "vllm",
    "sglang": "sglang",
    "sglang-disagg": "sglang",
    "dynamo-sglang": "sglang",
    "trt": "trtllm",
    "trtllm": "trtllm",
    "dynamo-trt": "trtllm",
    "TensorRT-LLM": "trtllm",
    "atom": "atom",
    "vLLM": "vllm",
    "llama.cpp": "llama.cpp",
    "Deepspeed": "deepspeed",
    "Deepspeed-MII": "deepspeed",
    "sambaflow": "sambaflow",
}
# The bytes of memory below which a device cannot hold its share of the weights are not needed
# here; from this many devices an aggregated run on a rack is a hidden disaggregated one.
_HIDDEN_DISAGGREGATION_FROM_TP = 12
# Disaggregated rows say all about their devices in the columns of their two sides.
_ONE_COPY = {"tp": 1, "pp": 1, "ep": 1, "dp": 1, "replicas": 1}


def clean(folder: Path) -> pd.DataFrame:
    """Read the three source files in `folder` and return the clean table, COLUMNS in order.

    Raises:
        FileNotFoundError: A source file is missing.
    """
    silicon = _silicon(pd.read_csv(folder / f"{SILICON}.csv", dtype=str, keep_default_na=False))
    inferencemax = _inferencemax(
        pd.read_csv(folder / f"{INFERENCEMAX}.csv", dtype=str, keep_default_na=False)
    )
    alcf = _alcf(pd.read_csv(folder / f"{ALCF}.csv", dtype=str, keep_default_na=False))
    serving = _without_copies(_typed([*inferencemax, *silicon]))
    return pd.concat([serving, _typed(alcf)], ignore_index=True)


def _typed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    for name in _TEXT:
        table[name] = table[name].fillna("").astype("string")
    for name in _COUNTS:
        table[name] = table[name].fillna(0).astype("int32")
    for name in _TIMES:
        table[name] = table[name].astype("float64")
    return table


def _silicon(table: pd.DataFrame) -> list[dict[str, Any]]:
    rows = (_silicon_row(row) for row in table.to_dict("records"))
    # A row that says nothing about its load cannot be compared with anything.
    return [row for row in rows if row["concurrency"] > 0]


def _silicon_row(row: dict[str, str]) -> dict[str, Any]:
    about = row["silicon_data_source"]
    measured = re.search(r"measured=(\d{4}-\d{2}-\d{2})", about)
    found = {
        "source": SILICON,
        "source_id": row["id"],
        "model": architectures.find(row["model_path"]).id,
        "system": catalogue.shipped_find(row["system"]).id,
        "engine": _ENGINES[row["backend"]],
        "engine_version": row["backend_version"],
        "precision": row["precision"],
        "mode": row["mode"],
        "spec_decoding": "",
        "measured_on": measured[1] if measured else "",
        "lengths": FIXED_LENGTHS if "harrli" in about else RANDOM_LENGTHS,
        "isl": int(row["isl"]),
        "osl": int(row["osl"]),
        "ttft_ms": float(row["silicon_ttft_ms"]),
        "tpot_ms": float(row["silicon_tpot_ms"]),
    }
    sides = _silicon_disaggregated(row) if row["mode"] == "disagg" else _silicon_aggregated(row)
    concurrency = re.search(r"silicon_concurrency=(\d+)", about)
    found |= sides
    found["concurrency"] = int(concurrency[1]) if concurrency else _rank_batches(row, found)
    if row["mode"] == "agg":
        _copies_of_the_deployment(row, found)
    return found


def _rank_batches(row: dict[str, str], found: dict[str, Any]) -> int:
    if row["mode"] == "agg":
        return int(row["batch_size"] or 0) * max(1, int(found["dp"]))
    ranks = found["decode_workers"] * found["decode_dp"]
    return int(row["decode_batch_size"] or 0) * max(1, int(ranks))


def _copies_of_the_deployment(row: dict[str, str], found: dict[str, Any]) -> None:
    """Set `replicas`: how often the per-rank batch goes into the concurrency beyond `dp`."""
    batch = int(row["batch_size"] or 0)
    if not batch or found["concurrency"] % batch:
        return
    ratio = found["concurrency"] // batch
    if found["lengths"] != FIXED_LENGTHS or ratio == 1:
        return
    is_moe = architectures.find(found["model"]).moe_layers > 0
    if is_moe and ratio == found["tp"]:
        found["dp"] = ratio
        return
    found["replicas"] = ratio
    found["gpus"] = found["tp"] * ratio


def _silicon_aggregated(row: dict[str, str]) -> dict[str, Any]:
    tp, dp, moe_tp, ep = (
        int(row[name] or 0)
        for name in ("tp_size", "attention_dp_size", "moe_tp_size", "moe_ep_size")
    )
    devices, note = devices_of(tp, dp, ep, moe_tp)
    if row["system"].startswith("gb") and devices >= _HIDDEN_DISAGGREGATION_FROM_TP:
        note = "hidden disaggregation"
    with_dp = dp > 1
    return {
        "tp": devices,
        "pp": 1,
        "ep": min(max(1, ep), devices),
        "dp": devices if with_dp else (1 if dp else 0),
        "replicas": 1,
        "gpus": devices,
        "note": note,
    }


def devices_of(tp: int, dp: int, ep: int, moe_tp: int = 0) -> tuple[int, str]:
    """The devices of one copy of the model, and a note where a source counts them twice.

    InferenceX names the tensor parallel size once; copies of its rows multiply it by the expert
    parallel size, and by the data parallel size as well (64 with ep 8, 1 with dp 64, 16 with
    ep 4, tp = dp). 0 means unset.
    """
    tp, dp, ep = max(1, tp), max(1, dp), max(1, ep)
    counted = tp if tp == dp else tp * dp
    if moe_tp > 1 and moe_tp == ep and counted == ep * ep:
        return ep, f"{counted} devices counted twice"
    if moe_tp == 0 and counted == ep * ep and ep >= 4:
        return ep, f"{counted} devices counted twice"
    return counted, "" if tp != dp or tp == 1 else "devices counted twice"


def _silicon_disaggregated(row: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = _ONE_COPY.copy()
    for side in ("prefill", "decode"):
        workers, tp, dp, ep, moe_tp = (
            int(row[f"{side}_{name}"] or 0)
            for name in (
                "num_workers",
                "tp_size",
                "attention_dp_size",
                "moe_ep_size",
                "moe_tp_size",
            )
        )
        # `8, moe 2 x 4` stands for eight devices (its twin in inferencemax says so); a data
        # parallel size means that many devices.
        devices = max(1, tp) * max(1, dp) if tp != dp else max(1, tp)
        found[f"{side}_workers"] = workers
        found[f"{side}_tp"] = devices
        found[f"{side}_pp"] = 1
        found[f"{side}_ep"] = devices if moe_tp > 1 and ep > 1 else min(max(1, ep), devices)
        found[f"{side}_dp"] = devices if dp > 1 else 1
    found["gpus"] = sum(found[f"{s}_workers"] * found[f"{s}_tp"] for s in ("prefill", "decode"))
    return found


def _inferencemax(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [_inferencemax_row(row, number) for number, row in enumerate(table.to_dict("records"))]


def _inferencemax_row(row: dict[str, str], number: int) -> dict[str, Any]:
    image = row["image"]
    version = re.search(r":v?([0-9][\w.]*)", image)
    found = {
        "source": INFERENCEMAX,
        "source_id": f"{row['_run']}:{number}",
        "model": architectures.find(row["model"]).id,
        "system": catalogue.shipped_find(row["hw"]).id,
        "engine": _ENGINES[row["framework"]],
        "engine_version": version[1] if version else "",
        "precision": row["precision"],
        "mode": "disagg" if row["disagg"] == "True" else "agg",
        "spec_decoding": row["spec_decoding"],
        "lengths": RANDOM_LENGTHS,
        "isl": int(row["isl"]),
        "osl": int(row["osl"]),
        "concurrency": int(row["conc"]),
        "ttft_ms": float(row["mean_ttft"]) * 1e3,
        "tpot_ms": float(row["mean_tpot"]) * 1e3,
        "e2e_ms": float(row["mean_e2el"]) * 1e3,
        "ttft_p50_ms": float(row["median_ttft"]) * 1e3,
        "ttft_p99_ms": float(row["p99_ttft"]) * 1e3,
        "tpot_p50_ms": float(row["median_tpot"]) * 1e3,
        "tpot_p99_ms": float(row["p99_tpot"]) * 1e3,
        "output_tokens_per_s_per_gpu": float(row["output_tput_per_gpu"]),
    }
    if found["mode"] == "agg":
        tp = int(float(row["tp"]))
        dp = tp if row["dp_attention"] == "true" else 1
        found |= {"tp": tp, "pp": 1, "ep": int(float(row["ep"])), "dp": dp}
        found |= {"replicas": 1, "gpus": tp}
        return found
    return found | _inferencemax_sides(row)


def _inferencemax_sides(row: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {**_ONE_COPY, "gpus": 0}
    for side in ("prefill", "decode"):
        gpus, workers = (
            int(float(row[name])) for name in (f"num_{side}_gpu", f"{side}_num_workers")
        )
        # Some rows name one device a worker where the counts of devices say more.
        devices = max(1, gpus // max(1, workers))
        tp, ep = int(float(row[f"{side}_tp"])), int(float(row[f"{side}_ep"]))
        with_dp = row[f"{side}_dp_attention"] == "true"
        found[f"{side}_workers"] = max(1, workers)
        found[f"{side}_tp"] = devices
        found[f"{side}_pp"] = 1
        found[f"{side}_ep"] = devices if with_dp and tp == 1 else min(ep, devices)
        found[f"{side}_dp"] = devices if with_dp else 1
        found["gpus"] += gpus
    return found


def _alcf(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [_alcf_row(row, number) for number, row in enumerate(table.to_dict("records"))]


def _alcf_row(row: dict[str, str], number: int) -> dict[str, Any]:
    length, batch = int(row["Input Output Length"]), int(row["Batch Size"])
    devices = int(row["Num of Hardware"])
    latency_s = float(row["Latency"])
    return {
        "source": ALCF,
        "source_id": f"row:{number + 2}",
        "model": architectures.find(row["Model"]).id,
        "system": catalogue.shipped_find(row["Hardware"]).id,
        "engine": _ENGINES[row["Framework"]],
        "precision": "",
        "mode": "agg",
        "spec_decoding": "none",
        "lengths": STATIC_BATCH,
        "isl": length,
        "osl": length,
        "concurrency": batch,
        "tp": devices,
        "pp": 1,
        "ep": 1,
        "dp": 1,
        "replicas": 1,
        "gpus": devices,
        "e2e_ms": latency_s * 1e3,
        # From the latency: the throughput column of llama.cpp counts one sequence only.
        "output_tokens_per_s_per_gpu": batch * length / latency_s / devices,
    }


def _without_copies(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the same run kept once: the first, which tells the most about itself."""
    # inferencemax comes first (it names its parallelism in full); then rows that name a version.
    ranked = rows.assign(
        _rank=(rows["source"] == SILICON).astype("int64") * 2
        + (rows["engine_version"] == "").astype("int64"),
        _ttft=np.round(rows["ttft_ms"], 2),
        _tpot=np.round(rows["tpot_ms"], 3),
    )
    kept = ranked.sort_values("_rank", kind="stable").drop_duplicates(
        ["model", "system", "mode", "isl", "osl", "concurrency", "_ttft", "_tpot"]
    )
    return kept.sort_index()[list(COLUMNS)].reset_index(drop=True)


def write(table: pd.DataFrame, path: Path) -> None:
    """Write the table as Parquet, whole or not at all."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    table.to_parquet(fresh, index=False, compression="zstd")
    fresh.replace(path)
