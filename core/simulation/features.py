"""What the learners see of a scenario: a float32 matrix, assembled without pandas.

No column names a model or a device: they stand there with their parameters, their bandwidth and
the like, so that one that was never measured lies among those it resembles.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.simulation.roofline import Times
from core.simulation.scenarios import (
    MLP_WEIGHT_BYTES,
    Floats,
    ModelTable,
    Scenarios,
    SystemTable,
    precision_of,
)

Matrix = npt.NDArray[np.float32]

# The load and the shape of the parallelism, known to all learners.
_LOAD = ("log_isl", "log_osl", "log_batch", "log_tp", "is_split", "is_fixed", "weight_bits")
# What the analytic model makes of a scenario; these carry over to what was never measured.
_ANALYTIC = (
    *("log_ttft", "log_tpot", "load_share", "weights_share", "kv_share", "compute_share"),
    *("communication_share", "overhead_share", "wait_share", "log_pressure", "sparsity"),
)
# What tells configurations apart where they were measured.
_DETAILS = (
    *("log_rank_batch", "log_pp", "log_ep", "log_dp", "log_prefill_devices"),
    *("log_decode_devices", "log_prefill_workers", "log_per_worker", "log_active", "log_total"),
    *("log_bandwidth", "log_peak", "log_memory", "log_link", "engine", "precision"),
    *("precision_known", "dp_known", "workers_known", "version"),
)
NAMES = (*_LOAD, "is_speculative", *_ANALYTIC, *_DETAILS)
LEAN = (*_LOAD, "is_speculative", *_ANALYTIC)
DETAILED = (*_LOAD, "is_speculative", *_DETAILS)


def matrix(rows: Scenarios, times: Times, models: ModelTable, systems: SystemTable) -> Matrix:
    """Features of each row, shape (rows, len(NAMES))."""
    found = np.empty((len(rows), len(NAMES)), dtype=np.float32)
    columns = (_load(rows, models), _analytic(rows, times, models), _details(rows, models, systems))
    for index, column in enumerate(each for part in columns for each in part):
        found[:, index] = column
    return found


def places(names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Where columns stand in `matrix`."""
    return np.array([NAMES.index(name) for name in names])


def _split(rows: Scenarios, name: str) -> Floats:
    """A size of the devices that decode."""
    aggregated = getattr(rows, name)
    decode = getattr(rows, f"decode_{name}")
    return np.asarray(np.maximum(1.0, np.where(rows.mode == 1, decode, aggregated)))


def _batch(rows: Scenarios) -> Floats:
    copies = np.where(rows.mode == 1, rows.decode_workers, rows.replicas)
    return np.maximum(1.0, rows.concurrency / np.maximum(1.0, copies))


def _load(rows: Scenarios, models: ModelTable) -> list[Floats]:
    return [
        np.log(rows.isl),
        np.log(rows.osl),
        np.log(_batch(rows)),
        np.log(_split(rows, "tp")),
        (rows.mode == 1).astype(np.float64),
        (rows.lengths == 1).astype(np.float64),
        MLP_WEIGHT_BYTES[precision_of(rows, models)] * 8,
        (rows.speculation == 2).astype(np.float64),
    ]


def _analytic(rows: Scenarios, times: Times, models: ModelTable) -> list[Floats]:
    step = np.maximum(1e-6, times.step_ms)
    load = _batch(rows) * times.prefill_busy_ms
    chosen = models.columns["experts_per_token"] / models.columns["experts"]
    return [
        np.log(times.ttft_ms),
        np.log(times.tpot_ms),
        load / (load + step * rows.osl),
        times.weights_ms / step,
        times.kv_ms / step,
        times.compute_ms / step,
        times.communication_ms / step,
        times.overhead_ms / step,
        times.wait_ms / times.ttft_ms,
        np.log(np.maximum(1e-3, times.pressure)),
        chosen[rows.model],
    ]


def _details(rows: Scenarios, models: ModelTable, systems: SystemTable) -> list[Floats]:
    precision = precision_of(rows, models)
    system = {name: column[rows.system] for name, column in systems.columns.items()}
    peaks = np.stack([system[name] for name in ("bf16", "fp8", "fp4", "int4", "int8")])
    decode_devices = rows.decode_tp * np.maximum(1.0, rows.decode_workers)
    return [
        np.log(np.maximum(1.0, _batch(rows) / _split(rows, "dp"))),
        np.log(_split(rows, "pp")),
        np.log(_split(rows, "ep")),
        np.log(_split(rows, "dp")),
        np.log(np.maximum(1.0, rows.prefill_tp)),
        np.log(np.maximum(1.0, decode_devices)),
        np.log(np.maximum(1.0, rows.prefill_workers)),
        np.log(rows.concurrency / np.maximum(1.0, rows.prefill_workers)),
        models.logarithms["active_params"][rows.model],
        models.logarithms["total_params"][rows.model],
        systems.logarithms["bandwidth"][rows.system],
        np.log(peaks[precision, np.arange(len(rows))]),
        systems.logarithms["memory_bytes"][rows.system],
        systems.logarithms["link"][rows.system],
        rows.engine.astype(np.float64),
        precision.astype(np.float64),
        (rows.precision >= 0).astype(np.float64),
        (rows.dp > 0).astype(np.float64),
        (rows.decode_workers > 0).astype(np.float64),
        rows.engine_version,
    ]
