"""The analytic model: times from bytes, operations and messages, with fitted efficiencies.

A decode step reads the weights and the KV cache once for all sequences of a batch; a prefill
computes. Each part is a roofline (the smooth maximum of its memory and its compute time) plus
what kernels, collectives and schedulers cost. About sixty coefficients say how far from its peak
a part runs and what each overhead is; `calibration.py` fits all of them together on measured
rows, each held near its prior.

Times are in seconds inside this file and in milliseconds in what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.simulation import memory, processor
from core.simulation.memory import Side
from core.simulation.scenarios import (
    ATTENTION_WEIGHT_BYTES,
    ENGINES,
    FAMILIES,
    MLP_WEIGHT_BYTES,
    PRECISIONS,
    Floats,
    Ints,
    ModelTable,
    Scenarios,
    SystemTable,
    precision_of,
)

Booleans = npt.NDArray[np.bool_]

_FAMILY_PRIOR = {"cpu": 0.6, "gaudi": 0.6, "pvc": 0.4, "cdna2": 0.5, "cdna3": 0.6, "cdna4": 0.65}
_ENGINE_STEP_S = {"vllm": 2e-3, "sglang": 1.5e-3, "trtllm": 1e-3, "llama.cpp": 1e-3}


@dataclass(frozen=True)
class Coefficient:
    """One number to fit: its prior's median, and the standard deviation of its logarithm."""

    name: str
    median: float
    sigma: float = 0.3


def _coefficients() -> tuple[Coefficient, ...]:
    found = [
        Coefficient("smoothness", 2.5, 0.2),
        Coefficient("moe_prefill_efficiency", 0.45),
        Coefficient("moe_decode_efficiency", 0.7),
        Coefficient("attention_efficiency", 0.4),
        Coefficient("kv_efficiency", 0.7),
        Coefficient("mla_efficiency", 0.4),
        Coefficient("linear_attention_layer_us", 25.0, 0.5),
        Coefficient("expert_imbalance", 0.15, 0.5),
        Coefficient("link_efficiency", 0.6),
        Coefficient("dispatch_us", 20.0, 0.5),
        Coefficient("host_us_per_prompt_token", 2.0, 0.7),
        Coefficient("wait_share", 0.3),
        Coefficient("hand_over_ms", 40.0, 0.6),
        Coefficient("hand_over_efficiency", 0.15, 0.6),
        Coefficient("prefill_queue_share", 0.35, 0.5),
        Coefficient("unknown_prefill_share", 0.5, 0.5),
        Coefficient("unknown_decode_share", 0.5, 0.3),
        Coefficient("speculation_gain", 1.7, 0.2),
        Coefficient("burst_random", 0.25, 0.5),
        Coefficient("burst_fixed", 0.8, 0.5),
        Coefficient("pipeline_bubble", 0.3, 0.5),
    ]
    found += [
        Coefficient(f"gemm_efficiency:{name}", 0.35 if name == "fp4" else 0.55)
        for name in PRECISIONS
    ]
    for name in FAMILIES:
        found.append(Coefficient(f"memory_efficiency:{name}", _FAMILY_PRIOR.get(name, 0.75), 0.2))
        found.append(Coefficient(f"compute_scale:{name}", 1.0, 0.2))
        found.append(Coefficient(f"overhead_scale:{name}", 1.0, 0.2))
    for name in ENGINES:
        step_s = _ENGINE_STEP_S.get(name, 2e-3)
        found += [
            Coefficient(f"step_ms:{name}", step_s * 1e3, 0.4),
            Coefficient(f"layer_us:{name}", 12.0, 0.4),
            Coefficient(f"moe_layer_us:{name}", 25.0, 0.4),
            Coefficient(f"sequence_us:{name}", 8.0, 0.5),
            Coefficient(f"collective_us:{name}", 8.0, 0.4),
            Coefficient(f"mix:{name}", 1.2, 0.3),
            Coefficient(f"fixed_ttft_ms:{name}", 25.0, 0.5),
            Coefficient(f"prefill_scale:{name}", 1.0, 0.3),
            Coefficient(f"burst:{name}", 1.0, 0.4),
        ]
    return tuple(found)


COEFFICIENTS = _coefficients()
_INDEX = {each.name: index for index, each in enumerate(COEFFICIENTS)}
PRIOR = np.log([each.median for each in COEFFICIENTS])
SIGMA = np.array([each.sigma for each in COEFFICIENTS])


class Fitted:
    """A vector of logarithms of COEFFICIENTS, read by name or by an array of engines."""

    def __init__(self, logarithms: Floats) -> None:
        self._values = np.exp(logarithms)

    def __getitem__(self, name: str) -> float:
        return float(self._values[_INDEX[name]])

    def by(self, name: str, kinds: tuple[str, ...], which: Ints) -> Floats:
        """The coefficient `name:kind` of each row."""
        return np.array([self._values[_INDEX[f"{name}:{kind}"]] for kind in kinds])[which]


@dataclass(frozen=True)
class Times:
    """What the analytic model says, each an array of the scenarios' length.

    Milliseconds, but for `most_sequences` (of the deployment) and the shares of the parts.
    """

    ttft_ms: Floats
    tpot_ms: Floats
    step_ms: Floats
    prefill_ms: Floats
    prefill_busy_ms: Floats
    wait_ms: Floats
    weights_ms: Floats
    kv_ms: Floats
    compute_ms: Floats
    communication_ms: Floats
    overhead_ms: Floats
    most_sequences: Floats
    pressure: Floats


class Roofline:
    """Answers for scenarios over the given tables, with given coefficients."""

    def __init__(self, models: ModelTable, systems: SystemTable, logarithms: Floats) -> None:
        self.models, self.systems, self.fitted = models, systems, Fitted(logarithms)

    def times(self, rows: Scenarios) -> Times:
        """Times of every row; kinds of rows may be mixed."""
        is_split = rows.mode == 1
        is_cpu = (self.systems.columns["is_cpu"][rows.system] > 0) & ~is_split
        kinds: tuple[tuple[Booleans, Callable[[Scenarios], Times]], ...] = (
            (~is_split & ~is_cpu, lambda part: _Aggregated(self, part).times()),
            (is_split, lambda part: _Disaggregated(self, part).times()),
            (is_cpu, lambda part: Times(**processor.times(part, self.models, self.systems))),
        )
        present = [(where, answer) for where, answer in kinds if where.any()]
        if len(present) == 1:
            return present[0][1](rows)
        parts = [(where, answer(rows.take(where))) for where, answer in present]
        merged: dict[str, Floats] = {}
        for name in Times.__dataclass_fields__:
            column = np.empty(len(rows))
            for where, part in parts:
                column[where] = getattr(part, name)
            merged[name] = column
        return Times(**merged)


class _Rows:
    """Look-ups that every time of a set of rows needs."""

    def __init__(self, roofline: Roofline, rows: Scenarios) -> None:
        fitted = roofline.fitted
        self.roofline, self.rows, self.fitted = roofline, rows, fitted
        self.models, self.systems = roofline.models, roofline.systems
        self.model = {name: column[rows.model] for name, column in self.models.columns.items()}
        self.system = {name: column[rows.system] for name, column in self.systems.columns.items()}
        self.precision = precision_of(rows, self.models)
        family = self.system["family"].astype(np.int64)
        self.bandwidth = self.system["bandwidth"] * fitted.by("memory_efficiency", FAMILIES, family)
        peak = self._peak()
        self.gemm_rate = peak * fitted.by("compute_scale", FAMILIES, family)
        self.gemm_rate = self.gemm_rate * fitted.by("gemm_efficiency", PRECISIONS, self.precision)
        self.bf16_rate = self.system["bf16"] * fitted.by("compute_scale", FAMILIES, family)
        self.overhead_scale = fitted.by("overhead_scale", FAMILIES, family)
        self.kv_bytes = memory.kv_element_bytes(rows, self.precision)
        self.layer_s = self.engine("layer_us") * 1e-6 * self.overhead_scale
        self.moe_layer_s = self.engine("moe_layer_us") * 1e-6 * self.overhead_scale

    def _peak(self) -> Floats:
        names = ("bf16", "fp8", "fp4", "int4", "int8")
        return np.stack([self.system[name] for name in names])[
            self.precision, np.arange(len(self.precision))
        ]

    def engine(self, name: str) -> Floats:
        """The engine's coefficient."""
        return self.fitted.by(name, ENGINES, self.rows.engine)

    def smooth_max(self, first: Floats, second: Floats) -> Floats:
        """A maximum without a corner: parts overlap less than fully."""
        power = self.fitted["smoothness"]
        return (first**power + second**power) ** (1 / power)

    def collective_s(self, side: Side, bytes_each: Floats, operations: Floats) -> Floats:
        """All-reduces over the tensor-parallel devices: latency and ring traffic."""
        several = side.tp > 1
        in_node = side.tp <= self.system["node"]
        rate = np.where(in_node, self.system["link"], self.system["network"])
        rate = rate * self.fitted["link_efficiency"]
        latency = self.engine("collective_us") * 1e-6 * np.log2(np.maximum(2.0, side.tp))
        latency = latency * self.overhead_scale * np.where(in_node, 1.0, 3.0)
        traffic = 2.0 * bytes_each * (side.tp - 1) / side.tp / rate
        return np.where(several, operations * (latency + traffic), 0.0)

    def dispatch_s(self, side: Side, tokens: Floats) -> Floats:
        """Two all-to-alls a MoE layer when experts are spread over data-parallel ranks."""
        spread = (side.dp > 1) & (side.tp > 1) & (self.model["moe_layers"] > 0)
        in_node = side.tp <= self.system["node"]
        rate = np.where(in_node, self.system["link"], self.system["network"])
        rate = rate * self.fitted["link_efficiency"]
        copies = np.minimum(self.model["experts_per_token"], side.tp)
        # FP8 out, BF16 back.
        traffic = 3.0 * self.model["hidden"] * tokens / side.dp * copies / rate
        latency = 2 * self.fitted["dispatch_us"] * 1e-6 * np.where(in_node, 1.0, 3.0)
        return np.where(spread, self.model["moe_layers"] * (latency + traffic), 0.0)


@dataclass(frozen=True)
class _Step:
    total: Floats
    weights: Floats
    kv: Floats
    compute: Floats
    communication: Floats
    overhead: Floats


def _decode_step(at: _Rows, side: Side, batch: Floats) -> _Step:
    """One step that gives every one of `batch` sequences (of one copy) its next token."""
    model = at.model
    attention_shards = np.maximum(1.0, side.tp / side.dp)
    # The micro-batch of a pipeline stage; a rank of data-parallel attention has its own share.
    batch = batch / side.pp
    rank_batch = np.maximum(1.0, batch / side.dp)
    attention = (
        model["attention_layers"] * model["attention_params"]
        + model["linear_layers"] * model["linear_params"]
    )
    attention_bytes = ATTENTION_WEIGHT_BYTES[at.precision] * attention / attention_shards
    attention_flops = 2 * attention * rank_batch / attention_shards
    dense = model["dense_layers"] * model["dense_params"]
    shared = model["moe_layers"] * model["shared_params"]
    dense_bytes = MLP_WEIGHT_BYTES[at.precision] * (dense + shared) / side.tp
    dense_flops = 2 * (dense + shared) * batch / side.tp
    head = model["head_params"] / side.tp
    moe = _experts(at, side, batch, at.fitted["moe_decode_efficiency"])
    gemm_memory = (attention_bytes + dense_bytes + 2 * head) / at.bandwidth
    gemm_compute = (attention_flops + dense_flops) / at.gemm_rate + 2 * head * batch / (
        at.bf16_rate * at.fitted["gemm_efficiency:bf16"]
    )
    kv, scores = _decode_attention(at, side, rank_batch)
    linear = at.smooth_max(gemm_memory, gemm_compute) + at.smooth_max(moe.memory, moe.compute)
    attention_s = at.smooth_max(kv, scores)
    reductions = np.where(side.dp > 1, 0.0, 2.0 * model["layers"])
    communication = at.collective_s(side, 2 * model["hidden"] * batch, reductions)
    communication = communication + at.dispatch_s(side, batch)
    communication = communication + _stage_hops(at, side, batch)
    overhead = (
        (model["layers"] - model["moe_layers"]) * at.layer_s
        + model["moe_layers"] * at.moe_layer_s
        + model["linear_layers"] * at.fitted["linear_attention_layer_us"] * 1e-6 * at.overhead_scale
        + at.engine("step_ms") * 1e-3
        + at.engine("sequence_us") * 1e-6 * batch
    )
    total = linear + attention_s + communication + overhead
    bubble = 1 + at.fitted["pipeline_bubble"] * (side.pp - 1) / side.pp
    return _Step(
        total=total * np.where(side.pp > 1, bubble, 1.0),
        weights=gemm_memory + moe.memory,
        kv=kv,
        compute=gemm_compute + moe.compute + scores,
        communication=communication,
        overhead=overhead,
    )


@dataclass(frozen=True)
class _Part:
    memory: Floats
    compute: Floats


def _experts(at: _Rows, side: Side, tokens: Floats, efficiency: float) -> _Part:
    """The experts of all MoE layers: only those that some token of the batch chose are read."""
    model = at.model
    layers, width = model["moe_layers"], model["expert_params"]
    chosen = model["experts_per_token"] / model["experts"]
    covered = 1 - (1 - np.minimum(chosen, 1 - 1e-9)) ** np.maximum(1.0, tokens)
    # The most loaded device of an expert-parallel group sets the pace.
    uneven = 1 + at.fitted["expert_imbalance"] * np.log2(np.maximum(1.0, side.ep))
    read = MLP_WEIGHT_BYTES[at.precision] * layers * model["experts"] * covered * width / side.tp
    flops = 2 * layers * model["experts_per_token"] * width * tokens / side.tp
    return _Part(read * uneven / at.bandwidth, flops * uneven / (at.gemm_rate * efficiency))


def _decode_attention(at: _Rows, side: Side, rank_batch: Floats) -> tuple[Floats, Floats]:
    """Seconds to read the KV cache of a rank's sequences, and to compute their scores."""
    model, rows = at.model, at.rows
    context = rows.isl + rows.osl / 2
    seen = model["full_layers"] * context
    seen = seen + model["window_layers"] * np.minimum(context, model["window"])
    shards = memory.kv_shards(rows, side, at.models)
    windowed = np.minimum(context, model["window"])
    read = model["full_layers"] * model["kv_elements"] * context
    read = read + model["window_layers"] * model["window_kv_elements"] * windowed
    read = rank_batch * at.kv_bytes * read / shards
    state = 2 * rank_batch * model["linear_layers"] * model["linear_state_bytes"] / shards
    kv = (read + state) / (at.bandwidth * at.fitted["kv_efficiency"])
    heads = model["heads"] / np.maximum(1.0, side.tp / side.dp)
    flops = 2 * rank_batch * heads * model["decode_head_dims"] * seen
    return kv, flops / (at.bf16_rate * at.fitted["mla_efficiency"])


def _stage_hops(at: _Rows, side: Side, tokens: Floats) -> Floats:
    """Activations handed from one pipeline stage to the next."""
    rate = at.system["network"] * at.fitted["link_efficiency"]
    hop = at.engine("collective_us") * 1e-6 + 2 * at.model["hidden"] * tokens / rate
    return (side.pp - 1) * hop


@dataclass(frozen=True)
class _Prefill:
    """Seconds until one prompt is read, and how long it keeps the whole copy busy."""

    latency: Floats
    busy: Floats


def _prefill(at: _Rows, side: Side) -> _Prefill:
    model, rows = at.model, at.rows
    tokens = np.maximum(1.0, rows.isl * (1 - rows.prefix_hit_share))
    attention_shards = np.maximum(1.0, side.tp / side.dp)
    attention = (
        model["attention_layers"] * model["attention_params"]
        + model["linear_layers"] * model["linear_params"]
    )
    dense = model["dense_layers"] * model["dense_params"]
    shared = model["moe_layers"] * model["shared_params"]
    scores = _prefill_scores(at, tokens)
    rank_compute = (2 * attention * tokens) / at.gemm_rate
    rank_compute = rank_compute + scores / (at.bf16_rate * at.fitted["attention_efficiency"])
    compute = 2 * (dense + shared) * tokens / side.tp / at.gemm_rate
    compute = compute + rank_compute / attention_shards
    moe = _experts(at, side, tokens, at.fitted["moe_prefill_efficiency"])
    weights = memory.weight_bytes(rows, side, at.models, at.precision) * side.pp
    expert_bytes = moe.memory * at.bandwidth
    all_experts = (
        MLP_WEIGHT_BYTES[at.precision]
        * model["moe_layers"]
        * model["experts"]
        * model["expert_params"]
        / side.tp
    )
    floor = np.maximum(0.0, weights - all_experts + expert_bytes) / at.bandwidth
    reductions = np.where(side.dp > 1, 0.0, 2.0 * model["layers"])
    reduced = at.collective_s(side, 2 * model["hidden"] * tokens, reductions)
    # One prompt is sent by one rank alone; the ranks together send one prompt each.
    communication = reduced + at.dispatch_s(side, tokens * side.dp)
    shared_communication = reduced + at.dispatch_s(side, tokens * side.dp) / side.dp
    overhead = (
        (model["layers"] - model["moe_layers"]) * at.layer_s
        + model["moe_layers"] * at.moe_layer_s
        + at.engine("step_ms") * 1e-3
    )
    work = compute + moe.compute
    scale = at.engine("prefill_scale")
    latency = scale * (at.smooth_max(work, floor) + communication) + overhead
    # While ranks of data-parallel attention read different prompts, each is busy a share of it;
    # a step holds several short prompts, which then share its overhead.
    shared_by = np.maximum(1.0, 8192.0 / tokens)
    busy = scale * (
        (compute - rank_compute / attention_shards) + moe.compute + shared_communication
    )
    busy = busy + scale * rank_compute / side.tp + (overhead + floor * scale) / shared_by / side.dp
    return _Prefill(latency, np.minimum(busy, latency) / side.pp)


def _prefill_scores(at: _Rows, tokens: Floats) -> Floats:
    """Operations of causal attention over one prompt, all heads and layers."""
    model, rows = at.model, at.rows
    before = rows.isl - tokens
    seen_full = tokens / 2 + before
    seen_window = np.minimum(seen_full, model["window"])
    seen = model["full_layers"] * seen_full + model["window_layers"] * seen_window
    return 2 * model["heads"] * model["prefill_head_dims"] * tokens * seen


class _Aggregated:
    """Every device reads prompts and generates."""

    def __init__(self, roofline: Roofline, rows: Scenarios) -> None:
        self.at, self.rows = _Rows(roofline, rows), rows
        at = self.at
        self.side = memory.enlarged(rows, memory.whole(rows), at.models, at.systems)

    def times(self) -> Times:
        at, rows, side = self.at, self.rows, self.side
        held = memory.of_side(rows, side, at.models, at.systems)
        most = np.maximum(1.0, held.most_sequences)
        batch = np.minimum(side.sequences, most)
        step = _decode_step(at, side, batch)
        prefill = _prefill(at, side)
        gain = np.where(rows.speculation == 2, at.fitted["speculation_gain"], 1.0)
        generate = step.total / gain
        is_static = rows.lengths == 2
        mix = np.where(is_static, 0.0, at.engine("mix"))
        tpot = generate + mix * batch * prefill.busy / rows.osl
        service = prefill.latency + tpot * rows.osl
        wait = at.fitted["wait_share"] * np.maximum(0.0, side.sequences / most - 1) * service
        burst = np.where(
            rows.lengths == 0, at.fitted["burst_random"], at.fitted["burst_fixed"]
        ) * at.engine("burst")
        queue = burst * (batch - 1) * prefill.busy / 2
        queue = np.where(is_static, (batch - 1) * prefill.busy, queue)
        fixed = at.engine("fixed_ttft_ms") * 1e-3
        fixed = fixed + at.fitted["host_us_per_prompt_token"] * 1e-6 * rows.isl
        ttft = fixed + prefill.latency + queue + wait + generate / 2
        return Times(
            ttft_ms=1e3 * ttft,
            tpot_ms=1e3 * tpot,
            step_ms=1e3 * generate,
            prefill_ms=1e3 * prefill.latency,
            prefill_busy_ms=1e3 * prefill.busy,
            wait_ms=1e3 * wait,
            weights_ms=1e3 * step.weights,
            kv_ms=1e3 * step.kv,
            compute_ms=1e3 * step.compute,
            communication_ms=1e3 * step.communication,
            overhead_ms=1e3 * step.overhead,
            most_sequences=held.most_sequences * rows.replicas,
            pressure=side.sequences / most,
        )


class _Disaggregated:
    """Some devices read prompts and hand their KV cache to others, which generate."""

    def __init__(self, roofline: Roofline, rows: Scenarios) -> None:
        self.at, self.rows = _Rows(roofline, rows), rows
        at = self.at
        sides = (memory.decode_side(rows), memory.prefill_side(rows))
        self.decode, self.prefill = (
            memory.enlarged(rows, side, at.models, at.systems) for side in sides
        )

    def times(self) -> Times:
        at, rows = self.at, self.rows
        held = memory.of_side(rows, self.decode, at.models, at.systems)
        most = np.maximum(1.0, held.most_sequences)
        # Where the workers are not told there were enough of them to hold the sequences.
        is_known = rows.decode_workers > 0
        sequences = np.where(
            is_known,
            self.decode.sequences,
            np.minimum(self.decode.sequences, at.fitted["unknown_decode_share"] * most),
        )
        sequences = np.maximum(1.0, sequences)
        batch = np.minimum(sequences, most)
        step = _decode_step(at, self.decode, batch)
        gain = np.where(rows.speculation == 2, at.fitted["speculation_gain"], 1.0)
        tpot = step.total / gain
        prefill = _prefill(at, self.prefill)
        busy = self._prefill_busy(prefill, tpot)
        queue = at.fitted["prefill_queue_share"] * self._queue(prefill, busy, tpot)
        elements = at.model["full_layers"] * at.model["kv_elements"]
        elements = elements + at.model["window_layers"] * at.model["window_kv_elements"]
        cache = elements * at.kv_bytes * rows.isl
        rate = at.system["network"] * at.fitted["hand_over_efficiency"]
        hand_over = at.fitted["hand_over_ms"] * 1e-3 + cache / rate
        fixed = at.engine("fixed_ttft_ms") * 1e-3
        fixed = fixed + at.fitted["host_us_per_prompt_token"] * 1e-6 * rows.isl
        service = prefill.latency + tpot * rows.osl
        wait = at.fitted["wait_share"] * np.maximum(0.0, sequences / most - 1) * service
        ttft = fixed + prefill.latency + queue + hand_over + wait + tpot
        zero = np.zeros(len(rows))
        return Times(
            ttft_ms=1e3 * ttft,
            tpot_ms=1e3 * tpot,
            step_ms=1e3 * tpot,
            prefill_ms=1e3 * prefill.latency,
            prefill_busy_ms=1e3 * busy,
            wait_ms=1e3 * wait,
            weights_ms=1e3 * step.weights,
            kv_ms=1e3 * step.kv,
            compute_ms=1e3 * step.compute,
            communication_ms=1e3 * step.communication,
            overhead_ms=1e3 * step.overhead + zero,
            most_sequences=held.most_sequences
            * np.maximum(1.0, rows.decode_workers)
            * np.maximum(1.0, rows.replicas),
            pressure=sequences / most,
        )

    def _prefill_busy(self, prefill: _Prefill, tpot: Floats) -> Floats:
        """Seconds of all prefill workers for one prompt. Unknown workers are sized for the load."""
        known = self.rows.prefill_workers > 0
        workers = np.maximum(1.0, self.rows.prefill_workers)
        load = self.rows.concurrency * prefill.busy
        enough = np.maximum(1.0, load / np.maximum(1e-9, tpot * self.rows.osl))
        sized = np.maximum(1.0, enough / self.at.fitted["unknown_prefill_share"])
        return prefill.busy / np.where(known, workers, sized)

    def _queue(self, prefill: _Prefill, busy: Floats, tpot: Floats) -> Floats:
        """Seconds before a prompt is begun.

        In a closed loop the prompts that do not generate wait for prefill; what is left over of
        a start in one burst comes on top.
        """
        concurrency = self.rows.concurrency
        backlog = np.maximum(0.0, concurrency * busy - tpot * self.rows.osl)
        return backlog + 0.5 * (concurrency - 1) * busy


def explain(times: Times) -> Mapping[str, Floats]:
    """The parts of a decode step in milliseconds, for people."""
    return {
        "weights": times.weights_ms,
        "KV cache": times.kv_ms,
        "compute": times.compute_ms,
        "communication": times.communication_ms,
        "kernels and scheduler": times.overhead_ms,
    }
