"""What is simulated, as columns of numbers: one row a model, its devices, engine and load.

Names become integers that index tables of constants, so that a batch of a hundred thousand rows
is a few array look-ups.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from core.hardware.schemas import Accelerator
from core.simulation.architectures import Architecture

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ENGINES = ("vllm", "sglang", "trtllm", "atom", "llama.cpp", "deepspeed", "sambaflow")
PRECISIONS = ("bf16", "fp8", "fp4", "int4", "int8")
UNKNOWN = -1
MODES = ("agg", "disagg")
SPECULATION = ("unknown", "none", "mtp")
LENGTHS = ("random", "fixed", "static")
FAMILIES = (
    *("hopper", "blackwell", "ampere", "ada", "cdna2", "cdna3", "cdna4"),
    *("gaudi", "pvc", "cpu", "other"),
)

# Bytes of one weight in the linear layers of attention, and in the MLP or the experts; mixed
# checkpoints keep attention wider (NVFP4, MXFP4 and INT4 releases do).
_ATTENTION_WEIGHT_BYTES = {"bf16": 2.0, "fp8": 1.0, "fp4": 1.3, "int4": 2.0, "int8": 1.06}
_MLP_WEIGHT_BYTES = {"bf16": 2.0, "fp8": 1.0, "fp4": 0.5625, "int4": 0.5625, "int8": 1.06}


@dataclass(frozen=True)
class Scenarios:
    """Columns of equal length; counts are of one copy of the model unless said otherwise.

    `precision`, `dp` and `engine_version` may be unknown: -1, 0 and NaN. In disaggregated rows
    `tp` … `dp` stay 1, and the two sides have columns of their own; 0 workers are unknown.
    `concurrency` counts requests in flight over all `replicas`.
    """

    model: Ints
    system: Ints
    engine: Ints
    precision: Ints
    mode: Ints
    speculation: Ints
    lengths: Ints
    isl: Floats
    osl: Floats
    concurrency: Floats
    tp: Floats
    pp: Floats
    ep: Floats
    dp: Floats
    replicas: Floats
    prefill_workers: Floats
    prefill_tp: Floats
    prefill_pp: Floats
    prefill_ep: Floats
    prefill_dp: Floats
    decode_workers: Floats
    decode_tp: Floats
    decode_pp: Floats
    decode_ep: Floats
    decode_dp: Floats
    engine_version: Floats
    prefix_hit_share: Floats
    kv_bytes: Floats
    chunk_tokens: Floats
    max_sequences: Floats
    block_tokens: Floats

    def __len__(self) -> int:
        return len(self.model)

    def take(self, rows: npt.NDArray[Any] | slice) -> Scenarios:
        """The rows at `rows` (indexes, a mask or a slice)."""
        return Scenarios(**{each.name: getattr(self, each.name)[rows] for each in fields(self)})

    def with_columns(self, **columns: npt.NDArray[Any]) -> Scenarios:
        """The same rows with some columns replaced."""
        return replace(self, **columns)

    @staticmethod
    def concatenate(parts: Iterable[Scenarios]) -> Scenarios:
        """All rows of `parts`, in order."""
        parts = list(parts)
        return Scenarios(
            **{
                each.name: np.concatenate([getattr(part, each.name) for part in parts])
                for each in fields(Scenarios)
            }
        )


INTEGER_COLUMNS = ("model", "system", "engine", "precision", "mode", "speculation", "lengths")
# What a column holds when nobody says anything else.
DEFAULTS: dict[str, float] = {
    "engine": 0,
    "precision": UNKNOWN,
    "mode": 0,
    "speculation": 0,
    "lengths": 0,
    "tp": 1,
    "pp": 1,
    "ep": 1,
    "dp": 0,
    "replicas": 1,
    **dict.fromkeys(
        (
            f"{side}_{name}"
            for side in ("prefill", "decode")
            for name in ("workers", "tp", "pp", "ep", "dp")
        ),
        0.0,
    ),
    "engine_version": np.nan,
    "prefix_hit_share": 0.0,
    # 0 stands for what the engine does by itself.
    "kv_bytes": 0.0,
    "chunk_tokens": 0.0,
    "max_sequences": 0.0,
    "block_tokens": 16.0,
}


def from_columns(columns: Mapping[str, Any]) -> Scenarios:
    """Scenarios from columns or single values; what is missing gets its default.

    Raises:
        KeyError: A column without a default (model, system, isl, osl, concurrency) is missing.
    """
    rows = max((len(np.atleast_1d(value)) for value in columns.values()), default=0)
    arrays: dict[str, Any] = {}
    for each in fields(Scenarios):
        value = columns[each.name] if each.name in columns else DEFAULTS[each.name]
        kind = np.int64 if each.name in INTEGER_COLUMNS else np.float64
        array = np.atleast_1d(np.asarray(value)).astype(kind)
        arrays[each.name] = np.broadcast_to(array, (rows,)) if len(array) == 1 else array
    return Scenarios(**arrays)


_ONE_NUMBER = re.compile(r"\d+")


def version_number(engine: str, text: str) -> float:
    """An engine's version as one number that grows with it; NaN for a name without one.

    0.19.0 is 19; 1.2.0rc6 of TensorRT-LLM is 12.06: minor versions count, patches hardly.
    """
    numbers = [int(part) for part in _ONE_NUMBER.findall(text.split("+")[0])[:3]]
    if len(numbers) < 2 or not text[:1].isdigit():
        return float("nan")
    major, minor, patch = (*numbers, 0)[:3]
    scale = 10.0 if engine == "trtllm" else 100.0
    return major * scale + minor + min(patch, 99) / 100


class ModelTable:
    """Constants of architectures, one row each; `columns[name][scenarios.model]` looks them up.

    Parameters are counts, `*_bytes` bytes, `kv_elements` numbers a token in one layer.
    """

    def __init__(self, architectures: Iterable[Architecture]) -> None:
        self.architectures = tuple(architectures)
        self.ids = {each.id: index for index, each in enumerate(self.architectures)}

    @cached_property
    def columns(self) -> dict[str, Floats]:
        """The table."""
        rows = [_model_constants(each) for each in self.architectures]
        return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}

    @cached_property
    def logarithms(self) -> dict[str, Floats]:
        """Natural logarithms of the columns that are always positive."""
        return {name: np.log(self.columns[name]) for name in ("active_params", "total_params")}


def _model_constants(model: Architecture) -> dict[str, float]:
    is_mla = model.kv_lora_rank > 0
    latent = model.kv_lora_rank + model.qk_rope_head_dim
    return {
        "layers": model.layers,
        "hidden": model.hidden,
        "vocab": model.vocab,
        "attention_layers": model.full_layers + model.window_layers,
        "attention_params": model.attention_params,
        "linear_layers": model.linear_layers,
        "linear_params": model.linear_params_per_layer,
        "linear_state_bytes": model.linear_state_bytes,
        "dense_layers": model.layers - model.moe_layers,
        "dense_params": model.dense_mlp_params,
        "moe_layers": model.moe_layers,
        "experts": max(1, model.experts),
        "experts_per_token": model.experts_per_token,
        "expert_params": model.expert_params,
        "shared_params": model.shared_params + model.router_params if model.moe_layers else 0,
        "embedding_params": model.embedding_params,
        "head_params": model.vocab * model.hidden,
        "total_params": model.total_params,
        "stored_bytes": model.stored_bytes,
        "active_params": model.active_params,
        "heads": model.heads,
        "kv_heads": model.kv_heads,
        "is_mla": float(is_mla),
        # Prefill attends with full heads; decode of MLA works in the latent space.
        "prefill_head_dims": model.head_dim + model.v_head_dim,
        "decode_head_dims": latent + model.kv_lora_rank
        if is_mla
        else model.head_dim + model.v_head_dim,
        "kv_elements": model.kv_elements_per_layer,
        "window_kv_elements": model.window_bytes_per_token(1.0) / max(1, model.window_layers),
        "full_layers": model.full_layers,
        "window_layers": model.window_layers,
        "window": max(1, model.window),
        "native_precision": PRECISIONS.index(native_precision(model)),
        "max_context": model.max_context or 0,
    }


def native_precision(model: Architecture) -> str:
    """What a checkpoint is stored in, as one of PRECISIONS."""
    name = model.native_precision.lower()
    if name.startswith(("mxfp4", "nvfp4", "fp4")):
        return "fp4"
    if name.startswith("fp8"):
        return "fp8"
    if name.startswith(("int4", "w4", "awq", "gptq", "q4", "iq4")):
        return "int4"
    if name.startswith(("int8", "w8", "q8", "q5", "q6")):
        return "int8"
    return "bf16"


class SystemTable:
    """Constants of accelerators, one row each. Rates are per second: bytes, and operations."""

    def __init__(self, accelerators: Iterable[Accelerator]) -> None:
        self.accelerators = tuple(accelerators)
        self.ids = {each.id: index for index, each in enumerate(self.accelerators)}

    @cached_property
    def columns(self) -> dict[str, Floats]:
        """The table."""
        rows = [_system_constants(each) for each in self.accelerators]
        return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in rows[0]}

    @cached_property
    def logarithms(self) -> dict[str, Floats]:
        """Natural logarithms of the columns that are always positive."""
        names = ("bandwidth", "memory_bytes", "link")
        return {name: np.log(self.columns[name]) for name in names}


def _system_constants(system: Accelerator) -> dict[str, float]:
    bf16 = system.bf16_tflops
    fp8 = system.fp8_tflops or bf16
    family = family_of(system)
    return {
        "memory_bytes": system.memory_gb * 1e9,
        "bandwidth": system.memory_bandwidth_gb_per_s * 1e9,
        "bf16": bf16 * 1e12,
        "fp8": fp8 * 1e12,
        "fp4": (system.fp4_tflops or fp8) * 1e12,
        # Weight-only formats compute in BF16.
        "int4": bf16 * 1e12,
        "int8": (system.int8_tops or bf16) * 1e12,
        "has_fp8": float(bool(system.fp8_tflops)),
        "has_fp4": float(bool(system.fp4_tflops)),
        "link": max(1.0, system.link_gb_per_s) * 1e9,
        "network": max(1.0, system.network_gb_per_s) * 1e9,
        "node": system.devices_per_node,
        "family": FAMILIES.index(family),
        "is_cpu": float(system.kind == "cpu"),
    }


def family_of(system: Accelerator) -> str:
    """The family of FAMILIES that an accelerator's kernels behave like."""
    name = "cpu" if system.kind == "cpu" else system.family.lower()
    for family in FAMILIES:
        if name.startswith(family):
            return family
    return "other"


ATTENTION_WEIGHT_BYTES = np.array([_ATTENTION_WEIGHT_BYTES[name] for name in PRECISIONS])
MLP_WEIGHT_BYTES = np.array([_MLP_WEIGHT_BYTES[name] for name in PRECISIONS])


def precision_of(rows: Scenarios, models: ModelTable) -> Ints:
    """The precision of the weights, the checkpoint's own where none is named."""
    native = models.columns["native_precision"][rows.model].astype(np.int64)
    return np.where(rows.precision < 0, native, rows.precision)
