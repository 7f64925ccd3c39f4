"""The analytic model of serving on a CPU, as llama.cpp does it.

A step reads the weights once, in the form in which they are stored, and unpacks and multiplies
them for every sequence of the batch: large models wait for memory, small ones for the arithmetic
of unpacking and for the threads to meet after each operation. A prompt is arithmetic only.

Arithmetic is counted in units of what AVX2 (or NEON) float32 matrix products reach on the same
cores. On this machine a probe measures the products of two formats themselves, and other formats
are taken to be to them as the shares below are to each other. Of other CPUs nothing but the float32
rate is known. The shares were read off public llama-bench figures and then held against random
models of two shapes in four formats on one Zen 5 core:

- one sequence: 42.6 GFLOP/s a core of Llama 7B Q4_0 on a 13900K (ggml-org/llama.cpp issue 34), 45
  and 24 of Llama 3.1 8B Q4_0 on a Ryzen 7950X and a Threadripper 5975WX (ikawrakow/ik_llama.cpp
  pull request 54), 35 of Llama 3B Q4_K on an i3-1315U (geerlingguy/sbc-reviews issue 107), 23 of
  Llama 7B Q4_0 on a Xeon w9-3475X held at 2.2 GHz (ggml-org/llama.cpp pull request 7487): 0.2 to
  0.33 of 32 FLOP a cycle, before the formats that are repacked for wide registers doubled it.
  SmolLM2-135M Q4_1 took 6.1 ms a token on a Zen 5 core and 11.4 on a Zen 4 core whose float32
  products are about as fast: 0.37 and 0.21 of those, and 0.2 on an Emerald Rapids core. What is
  taken lies between.
- prompts: 124 and 70 GFLOP/s a core of 8B Q4_0 on the same two Ryzens: 0.78 and 0.56; Q8_0 a
  seventh more; 33 FLOP a cycle with the matrix units (AMX) of the Xeon, so these count as AVX-512.
- bandwidth: 27 of the 46 GB/s that a probe copies on Zen 5, 139 of 204.8 GB/s of Mistral 7B Q4_0
  on a Threadripper 5995WX (ggml-org/llama.cpp pull request 8908), 70 of 102 on the 13900K.

Times are in seconds inside this file and in milliseconds in what it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields, replace
from functools import lru_cache

import numpy as np

from core.hardware.schemas import Accelerator, WeightProducts
from core.simulation import memory
from core.simulation.scenarios import (
    PRECISIONS,
    Floats,
    ModelTable,
    Scenarios,
    SystemTable,
    precision_of,
)

MEASURED_VENDOR = "this-machine"
# Of the peak, or of what a probe copies, that reading weights reaches.
_BANDWIDTH_SHARE = 0.7
# What one core draws at least where memory has it: by the figures above 9 GB/s and 16 of weights
# on the Threadripper 5975WX and the Ryzen 7950X, so 12 and 23 of what a probe would copy.
_CORE_BANDWIDTH_GB_PER_S = 15.0
# A vendor's 16-bit peak counts two (dot products) or, with matrix units, sixteen operations
# where float32 does one. Only matrix units bring so many operations a byte of bandwidth.
_DOT_PRODUCT, _MATRIX_UNIT, _MATRIX_UNIT_FLOP_PER_BYTE = 2.0, 16.0, 150.0
# One sequence attends row by row; a prompt attends in blocks.
_ATTENTION_SHARE, _PROMPT_ATTENTION_SHARE = 0.085, 0.4
# About twenty operations a layer, after each of which the threads wait for each other.
_LAYER_S = 8e-6
_STEP_S = 0.15e-3
# Sampling sorts the logits of the whole vocabulary, for each sequence by itself.
_SAMPLE_S, _SAMPLE_S_PER_WORD = 0.1e-3, 2e-9
_SOCKET_SYNC_S = 40e-6
# The same when the threads sleep while they wait, as those of Bud's servers do: on two quiet Zen 5
# cores a step of SmolLM2-135M took 6.2 ms with one thread and 18.1 ms with two.
_WAKING_LAYER_S = 0.45e-3
_OVERLAP_POWER = 4.0
_REQUEST_S = 5e-3


@dataclass(frozen=True)
class _Format:
    """How fast a storage format computes: shares of the float32 rate.

    `one` is for one sequence, `many` for at least `tile` of them. `probed` is the format whose
    measured rates stand for it, the place of its scales.
    """

    one: float
    many: float
    tile: float
    probed: int


_NOT_PROBED, _Q4_1, _Q8_0 = range(3)
_REPACKED = _Format(0.55, 0.8, 4, _Q4_1)
_EIGHT_BIT = _Format(0.42, 0.7, 32, _Q8_0)
_HALF = _Format(0.25, 0.5, 16, _NOT_PROBED)
_UNPACKED = _Format(0.31, 0.42, 16, _Q4_1)
_LOOKED_UP = _Format(0.2, 0.25, 16, _Q4_1)
_OF_PRECISION = {
    "bf16": _HALF,
    "fp8": _EIGHT_BIT,
    "int8": _EIGHT_BIT,
    "int4": _REPACKED,
    "fp4": _UNPACKED,
}


def _format(stored_as: str) -> _Format:
    """The format of a GGUF file type, such as `q4_k_m`."""
    if stored_as.startswith(("q4_0", "q4_k", "iq4_nl")):
        return _REPACKED
    if stored_as.startswith("q8"):
        return _EIGHT_BIT
    if stored_as in ("f16", "bf16", "f32"):
        return _HALF
    return _LOOKED_UP if stored_as.startswith("iq") else _UNPACKED


def with_threads(device: Accelerator, threads: int, cores: int) -> Accelerator:
    """A CPU of `cores` cores when `threads` of them serve: fewer draw less from the memory too."""
    share = min(1.0, threads / max(1, cores))
    whole = device.memory_bandwidth_gb_per_s
    drawn = min(whole, max(share * whole, threads * _CORE_BANDWIDTH_GB_PER_S))
    products = device.weight_products
    return replace(
        device,
        bf16_tflops=device.bf16_tflops * share,
        memory_bandwidth_gb_per_s=drawn,
        weight_products=products and WeightProducts(*(share * each for each in astuple(products))),
    )


def waking_ms(layers: float, threads: int) -> float:
    """What a step takes longer when its threads sleep while they wait for each other."""
    return 1e3 * layers * _WAKING_LAYER_S if threads > 1 else 0.0


def times(rows: Scenarios, models: ModelTable, systems: SystemTable) -> Mapping[str, Floats]:
    """The columns of `roofline.Times` for aggregated rows whose system is a CPU.

    TP counts sockets: they share the weights, and meet after each layer.
    """
    at = _Rows(rows, models, systems)
    side = memory.whole(rows)
    held = memory.of_side(rows, side, models, systems)
    most = np.maximum(1.0, held.most_sequences)
    batch = np.minimum(side.sequences, most)
    weights, compute, attention, overhead = at.step(batch)
    step = _overlapped(weights, compute) + attention + overhead
    prefill = at.prefill()
    # A prompt is read in a step of its own, for which all others wait.
    tpot = step + (batch - 1) * prefill / rows.osl
    service = prefill + tpot * rows.osl
    wait = np.maximum(0.0, side.sequences / most - 1) * service
    # An arrival finds a step half done, and some of the others' prompts before its own.
    queue = (batch - 1) * np.minimum(prefill / 2, prefill * prefill / service)
    ttft = _REQUEST_S + prefill + queue + wait + step / 2
    seconds = {
        "ttft_ms": ttft,
        "tpot_ms": tpot,
        "step_ms": step,
        "prefill_ms": prefill,
        "prefill_busy_ms": prefill,
        "wait_ms": wait,
        "weights_ms": weights,
        "kv_ms": attention,
        "compute_ms": compute,
        "communication_ms": at.sync,
        "overhead_ms": overhead,
    }
    return {name: 1e3 * column for name, column in seconds.items()} | {
        "most_sequences": held.most_sequences * rows.replicas,
        "pressure": side.sequences / most,
    }


class _Rows:
    """Look-ups that every time of a set of rows needs."""

    def __init__(self, rows: Scenarios, models: ModelTable, systems: SystemTable) -> None:
        self.rows = rows
        self.model = {name: column[rows.model] for name, column in models.columns.items()}
        rate, bandwidth = _rates(systems)
        self.rate = rate[rows.system] * rows.tp
        self.bandwidth = bandwidth[rows.system] * rows.tp
        precision = precision_of(rows, models)
        self.weight_bytes = rows.tp * memory.weight_bytes(
            rows, memory.whole(rows), models, precision
        )
        self.kv_bytes = memory.kv_element_bytes(rows, precision)
        is_stored = memory.is_stored(rows, models)
        own = _formats(models)[:, rows.model]
        given = _FORMATS_OF_PRECISION[:, precision]
        one, many, self.tile, probed = np.where(is_stored, own, given)
        one_scale, many_scale = _scales(systems)[:, probed.astype(int), rows.system]
        self.one, self.many = one * one_scale, many * many_scale
        self.sync = np.where(rows.tp > 1, self.model["layers"] * _SOCKET_SYNC_S, 0.0)

    def step(self, batch: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Seconds of a step: reading weights, computing with them, attention, overheads."""
        model, rows = self.model, self.rows
        share = self.one + (self.many - self.one) * np.minimum(1.0, (batch - 1) / (self.tile - 1))
        weights = self.weight_bytes * self._read_share(batch) / self.bandwidth
        compute = 2 * batch * model["active_params"] / (share * self.rate)
        context = rows.isl + rows.osl / 2
        seen = model["full_layers"] * context
        seen = seen + model["window_layers"] * np.minimum(context, model["window"])
        read = batch * seen * model["kv_elements"] * self.kv_bytes / self.bandwidth
        scores = 2 * batch * seen * model["heads"] * model["decode_head_dims"]
        state = 2 * batch * model["linear_layers"] * model["linear_state_bytes"] / self.bandwidth
        attention = _overlapped(read, scores / (_ATTENTION_SHARE * self.rate)) + state
        overhead = _STEP_S + model["layers"] * _LAYER_S + self.sync
        overhead = overhead + batch * (_SAMPLE_S + model["vocab"] * _SAMPLE_S_PER_WORD)
        return weights, compute, attention, overhead

    def _read_share(self, batch: Floats) -> Floats:
        """The share of all weights that a step reads: of experts, only those that are chosen."""
        model = self.model
        experts = model["moe_layers"] * model["experts"] * model["expert_params"]
        chosen = np.minimum(model["experts_per_token"] / model["experts"], 1.0)
        unread = experts * (1 - chosen) ** batch
        # An input embedding of its own is a look-up of one row.
        unread = unread + model["embedding_params"] - model["head_params"]
        return 1 - unread / model["total_params"]

    def prefill(self) -> Floats:
        """Seconds to read one prompt; only its last token needs the output head."""
        model, rows = self.model, self.rows
        tokens = np.maximum(1.0, rows.isl * (1 - rows.prefix_hit_share))
        share = self.one + (self.many - self.one) * np.minimum(1.0, (tokens - 1) / (self.tile - 1))
        layers = model["active_params"] - model["head_params"]
        compute = 2 * (layers * tokens + model["head_params"]) / (share * self.rate)
        seen = rows.isl - tokens / 2
        windowed = model["window_layers"] * np.minimum(seen, model["window"])
        heads = model["heads"] * model["prefill_head_dims"]
        scores = 2 * tokens * heads * (model["full_layers"] * seen + windowed)
        attention = scores / (_PROMPT_ATTENTION_SHARE * self.rate)
        weights = self.weight_bytes * self._read_share(tokens) / self.bandwidth
        overhead = _STEP_S + model["layers"] * _LAYER_S + self.sync
        return _overlapped(weights, compute) + attention + overhead


def _overlapped(memory_s: Floats, compute_s: Floats) -> Floats:
    """A maximum without a corner: the processor fetches ahead while it computes."""
    power = _OVERLAP_POWER
    return np.asarray((memory_s**power + compute_s**power) ** (1 / power))


_FORMAT_PARTS = tuple(part.name for part in fields(_Format))
_FORMATS_OF_PRECISION = np.array(
    [[getattr(_OF_PRECISION[name], part) for name in PRECISIONS] for part in _FORMAT_PARTS]
)


@lru_cache(maxsize=64)
def _formats(models: ModelTable) -> Floats:
    """A row for each part of a format; a column for each model, by how its file is stored."""
    found = [_format(each.native_precision.lower()) for each in models.architectures]
    return np.array([[getattr(each, part) for each in found] for part in _FORMAT_PARTS])


@lru_cache(maxsize=64)
def _scales(systems: SystemTable) -> Floats:
    """What was measured over what is assumed, 1 where nothing was: one or many, probed, system."""
    found = np.ones((2, 3, len(systems.accelerators)))
    for at, device in enumerate(systems.accelerators):
        products, rate = device.weight_products, device.bf16_tflops
        if products is None:
            continue
        q4_1, q8_0 = rate * _UNPACKED.one, rate * _EIGHT_BIT.one
        found[0, 1:, at] = products.q4_1_one_tflops / q4_1, products.q8_0_one_tflops / q8_0
        q4_1, q8_0 = rate * _UNPACKED.many, rate * _EIGHT_BIT.many
        found[1, 1:, at] = products.q4_1_many_tflops / q4_1, products.q8_0_many_tflops / q8_0
    return found


@lru_cache(maxsize=64)
def _rates(systems: SystemTable) -> tuple[Floats, Floats]:
    """Operations a second in float32, and bytes a second, of each device."""
    devices = systems.accelerators
    drawn = [_BANDWIDTH_SHARE * each.memory_bandwidth_gb_per_s * 1e9 for each in devices]
    return np.array([_rate(each) for each in devices]), np.array(drawn)


def _rate(device: Accelerator) -> float:
    peak, bandwidth = device.bf16_tflops * 1e12, device.memory_bandwidth_gb_per_s * 1e9
    if device.vendor == MEASURED_VENDOR:
        return peak
    has_matrix_units = peak > _MATRIX_UNIT_FLOP_PER_BYTE * bandwidth
    return peak / (_MATRIX_UNIT if has_matrix_units else _DOT_PRODUCT)
