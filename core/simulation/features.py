"""What the learners see of a scenario: a float32 matrix, assembled without pandas.

PHYSICAL columns say how a scenario behaves and carry over to models and devices never measured;
IDENTITY columns name them, and help only where they were.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.simulation import memory
from core.simulation.roofline import Times
from core.simulation.scenarios import Floats, ModelTable, Scenarios, SystemTable

Matrix = npt.NDArray[np.float32]

PHYSICAL = (
    *("log_ttft", "log_tpot", "log_step", "log_prefill", "log_busy", "load_share"),
    *("weights_share", "kv_share", "compute_share", "communication_share", "overhead_share"),
    *("wait_share", "log_pressure", "log_isl", "log_osl", "log_batch", "log_rank_batch"),
    *("log_tp", "log_pp", "log_ep", "log_dp", "log_active", "log_total", "sparsity", "is_mla"),
    *("linear_share", "window_share", "log_hidden", "log_layers", "log_bandwidth", "log_peak"),
    *("log_link", "log_memory", "weight_bits", "is_split", "is_fixed", "is_speculative"),
    *("log_prefill_devices", "log_decode_devices", "log_prefill_workers", "log_per_worker"),
)
IDENTITY = (
    *("model", "system", "engine", "precision", "precision_known", "dp_known", "version"),
    *("isl", "osl", "speculation", "workers_known"),
)
NAMES = (*PHYSICAL, *IDENTITY)


def matrix(rows: Scenarios, times: Times, models: ModelTable, systems: SystemTable) -> Matrix:
    """Features of each row, shape (rows, len(NAMES))."""
    model = {name: column[rows.model] for name, column in models.columns.items()}
    system = {name: column[rows.system] for name, column in systems.columns.items()}
    precision = memory.precision_of(rows, models)
    is_split = rows.mode == 1
    decode_workers = np.maximum(1.0, rows.decode_workers)
    copies = np.where(is_split, decode_workers, np.maximum(1.0, rows.replicas))
    batch = np.maximum(1.0, rows.concurrency / copies)
    tp = np.where(is_split, np.maximum(1.0, rows.decode_tp), rows.tp)
    dp = np.maximum(1.0, np.where(is_split, rows.decode_dp, rows.dp))
    ep = np.maximum(1.0, np.where(is_split, rows.decode_ep, rows.ep))
    step = np.maximum(1e-6, times.step_ms)
    peaks = np.stack([system[name] for name in ("bf16", "fp8", "fp4", "int4", "int8")])
    load = batch * times.prefill_busy_ms
    columns: list[Floats] = [
        np.log(times.ttft_ms),
        np.log(times.tpot_ms),
        np.log(step),
        np.log(times.prefill_ms),
        np.log(times.prefill_busy_ms),
        load / (load + step * rows.osl),
        times.weights_ms / step,
        times.kv_ms / step,
        times.compute_ms / step,
        times.communication_ms / step,
        times.overhead_ms / step,
        times.wait_ms / times.ttft_ms,
        np.log(np.maximum(1e-3, times.pressure)),
        np.log(rows.isl),
        np.log(rows.osl),
        np.log(batch),
        np.log(np.maximum(1.0, batch / dp)),
        np.log(tp),
        np.log(np.maximum(1.0, np.where(is_split, rows.decode_pp, rows.pp))),
        np.log(ep),
        np.log(dp),
        np.log(model["active_params"]),
        np.log(model["total_params"]),
        model["experts_per_token"] / model["experts"],
        model["is_mla"],
        model["linear_layers"] / model["layers"],
        model["window_layers"] / model["layers"],
        np.log(model["hidden"]),
        np.log(model["layers"]),
        np.log(system["bandwidth"]),
        np.log(peaks[precision, np.arange(len(rows))]),
        np.log(system["link"]),
        np.log(system["memory_bytes"]),
        memory.MLP_WEIGHT_BYTES[precision] * 8,
        is_split.astype(np.float64),
        (rows.lengths == 1).astype(np.float64),
        (rows.speculation == 2).astype(np.float64),
        np.log(np.maximum(1.0, rows.prefill_tp)),
        np.log(np.maximum(1.0, rows.decode_tp * decode_workers)),
        np.log(np.maximum(1.0, rows.prefill_workers)),
        np.log(rows.concurrency / np.maximum(1.0, rows.prefill_workers)),
        rows.model.astype(np.float64),
        rows.system.astype(np.float64),
        rows.engine.astype(np.float64),
        precision.astype(np.float64),
        (rows.precision >= 0).astype(np.float64),
        (rows.dp > 0).astype(np.float64),
        rows.engine_version,
        rows.isl,
        rows.osl,
        rows.speculation.astype(np.float64),
        (rows.decode_workers > 0).astype(np.float64),
    ]
    found = np.empty((len(rows), len(NAMES)), dtype=np.float32)
    for index, column in enumerate(columns):
        found[:, index] = column
    return found
