"""Memory of one device: the one calculation that everything in Bud uses.

A llama.cpp server on a CPU holds its weights as they are stored, a KV cache for its slots, the
buffers of one micro-batch (for each token its logits and about sixteen activations of the model's
width, in float32) and the process itself. A micro-batch is 512 tokens for a chat and a whole text
for an embedding, which keeps its logits twice. Measured with the starter model on xllamacpp
2026.10, without weights and KV cache: a chat 56 MB (reckoned 239), an embedding of 2048 tokens
838 MB (reckoned 1001), of 1024 tokens 438 MB (reckoned 560).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np

from core.simulation.scenarios import (
    ATTENTION_WEIGHT_BYTES,
    ENGINES,
    MLP_WEIGHT_BYTES,
    PRECISIONS,
    Floats,
    Ints,
    ModelTable,
    Scenarios,
    SystemTable,
    precision_of,
)

# Engines fill this share of a device; the rest is the driver's, the allocator's and the graphs'.
USABLE_SHARE = 0.92
# CUDA or ROCm context, collectives' buffers and captured graphs.
RUNTIME_BYTES = 3.0e9
# Of a llama.cpp server on a CPU.
PROCESS_BYTES = 120_000_000
MICRO_BATCH_TOKENS = 512
_WIDTHS_PER_TOKEN = 16
_FLOAT32_BYTES = 4
# Peak of activations, in hidden-sized BF16 vectors a token of the largest step.
_ACTIVATION_VECTORS = 12.0
_DEFAULT_CHUNK_TOKENS = 8192.0
# Weights that fill more than this of what is left for them leave no room to serve.
_FULL_SHARE = 0.97
_LLAMA_CPP = ENGINES.index("llama.cpp")
_FP8, _FP4 = PRECISIONS.index("fp8"), PRECISIONS.index("fp4")


@dataclass(frozen=True)
class Side:
    """The devices that hold one copy of the model: of a deployment, or of one side of it.

    `sequences` are those in flight on one copy, `tokens` what each holds at the most.
    """

    tp: Floats
    pp: Floats
    ep: Floats
    dp: Floats
    sequences: Floats
    tokens: Floats


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, by what they hold; `most_sequences` is of one copy of the model."""

    weights: Floats
    kv: Floats
    activations: Floats
    runtime: Floats
    usable: Floats
    kv_per_sequence: Floats
    most_sequences: Floats

    @property
    def needed(self) -> Floats:
        """Everything that must fit."""
        return self.weights + self.kv + self.activations + self.runtime

    @property
    def fits(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Whether the weights and at least one sequence fit."""
        return self.most_sequences >= 1


def enlarged(rows: Scenarios, side: Side, models: ModelTable, systems: SystemTable) -> Side:
    """The side with as many more tensor-parallel devices as its weights need to fit.

    Measured rows that cannot have fitted as described did run: on more devices than they say.
    """
    held = of_side(rows, side, models, systems)
    room = np.maximum(0.05 * held.usable, held.usable - held.activations - held.runtime)
    times = np.maximum(1.0, np.ceil(held.weights / (_FULL_SHARE * room)))
    if not (times > 1).any():
        return side
    return replace(side, tp=side.tp * times)


def kv_element_bytes(rows: Scenarios, precision: Ints) -> Floats:
    """Bytes of one number in the KV cache: as asked, else FP8 with FP8 and FP4 weights.

    llama.cpp keeps F16 whatever the weights are.
    """
    is_eight_bit = ((precision == _FP8) | (precision == _FP4)) & (rows.engine != _LLAMA_CPP)
    automatic = np.where(is_eight_bit, 1.0, 2.0)
    return np.where(rows.kv_bytes > 0, rows.kv_bytes, automatic)


def whole(rows: Scenarios) -> Side:
    """The one side of aggregated rows."""
    dp = np.where(rows.dp > 0, rows.dp, 1.0)
    sequences = np.maximum(1.0, np.ceil(rows.concurrency / np.maximum(1.0, rows.replicas)))
    return Side(rows.tp, rows.pp, rows.ep, dp, sequences, rows.isl + rows.osl)


def decode_side(rows: Scenarios) -> Side:
    """The decoding devices of disaggregated rows; one worker where their number is unknown."""
    workers = np.maximum(1.0, rows.decode_workers)
    return Side(
        np.maximum(1.0, rows.decode_tp),
        np.maximum(1.0, rows.decode_pp),
        np.maximum(1.0, rows.decode_ep),
        np.maximum(1.0, rows.decode_dp),
        np.maximum(1.0, np.ceil(rows.concurrency / workers / np.maximum(1.0, rows.replicas))),
        rows.isl + rows.osl,
    )


def prefill_side(rows: Scenarios) -> Side:
    """The prefilling devices of disaggregated rows, with one prompt a worker."""
    return Side(
        np.maximum(1.0, rows.prefill_tp),
        np.maximum(1.0, rows.prefill_pp),
        np.maximum(1.0, rows.prefill_ep),
        np.maximum(1.0, rows.prefill_dp),
        np.ones(len(rows)),
        rows.isl,
    )


def of_side(rows: Scenarios, side: Side, models: ModelTable, systems: SystemTable) -> Memory:
    """Memory of one device of `side`."""
    precision = precision_of(rows, models)
    system = {name: systems.columns[name][rows.system] for name in ("memory_bytes", "is_cpu")}
    weights = weight_bytes(rows, side, models, precision)
    kv_per_sequence = _kv_bytes_per_sequence(rows, side, models, kv_element_bytes(rows, precision))
    hidden = models.columns["hidden"][rows.model]
    chunk = np.where(rows.chunk_tokens > 0, rows.chunk_tokens, _DEFAULT_CHUNK_TOKENS)
    is_cpu = system["is_cpu"] > 0
    vocabulary = models.columns["vocab"][rows.model]
    activations = np.where(
        is_cpu,
        MICRO_BATCH_TOKENS * buffer_bytes_per_token(vocabulary, hidden),
        _ACTIVATION_VECTORS * 2.0 * hidden * np.minimum(chunk, 65_536.0),
    )
    runtime = np.where(is_cpu, PROCESS_BYTES, RUNTIME_BYTES)
    usable = USABLE_SHARE * system["memory_bytes"]
    free = usable - weights - activations - runtime
    # A device holds the sequences of its own data-parallel rank only.
    most = np.floor(np.maximum(0.0, free) / kv_per_sequence) * side.dp
    asked = np.where(rows.max_sequences > 0, rows.max_sequences, np.inf)
    held = np.minimum(np.minimum(side.sequences, asked), np.maximum(most, 1.0))
    return Memory(
        weights=weights,
        kv=kv_per_sequence * np.ceil(held / side.dp),
        activations=activations,
        runtime=runtime,
        usable=usable,
        kv_per_sequence=kv_per_sequence,
        most_sequences=np.minimum(most, asked),
    )


_Number = TypeVar("_Number", int, Floats)


def buffer_bytes_per_token(vocabulary: _Number, hidden: _Number, logits: int = 1) -> _Number:
    """What llama.cpp's buffers hold on a CPU for each token of a micro-batch.

    `logits` is how often a token's logits are kept: twice to embed.
    """
    return (logits * vocabulary + _WIDTHS_PER_TOKEN * hidden) * _FLOAT32_BYTES


def kv_bytes_per_token(layers: int, kv_heads: int, head_dims: int, element_bytes: int = 2) -> int:
    """KV cache of one token over layers of one shape; `head_dims` is key and value length."""
    return layers * kv_heads * head_dims * element_bytes


def of_deployment(rows: Scenarios, models: ModelTable, systems: SystemTable) -> Memory:
    """Memory of one device; of the side with less room to spare when disaggregated."""
    is_split = rows.mode == 1
    one = of_side(rows, whole(rows), models, systems)
    if not is_split.any():
        return one
    decode = of_side(rows, decode_side(rows), models, systems)
    prefill = of_side(rows, prefill_side(rows), models, systems)
    tighter = np.where(decode.usable - decode.needed <= prefill.usable - prefill.needed, 1, 2)
    choice = np.where(is_split, tighter, 0)
    return Memory(
        **{
            each.name: np.choose(
                choice, [getattr(side, each.name) for side in (one, decode, prefill)]
            )
            for each in fields(Memory)
        }
    )


def weight_bytes(rows: Scenarios, side: Side, models: ModelTable, precision: Ints) -> Floats:
    """Bytes of weights on one device. Data-parallel attention repeats the attention weights.

    Of a model whose own file is known, and used as it is, they are that file's.
    """
    table = models.columns
    model = rows.model
    attention = (
        table["attention_layers"][model] * table["attention_params"][model]
        + table["linear_layers"][model] * table["linear_params"][model]
    )
    dense = table["dense_layers"][model] * table["dense_params"][model]
    shared = table["moe_layers"][model] * table["shared_params"][model]
    experts = table["moe_layers"][model] * table["experts"][model] * table["expert_params"][model]
    attention_shards = np.maximum(1.0, side.tp / side.dp)
    per_stage = (
        ATTENTION_WEIGHT_BYTES[precision] * attention / attention_shards
        + MLP_WEIGHT_BYTES[precision] * (dense + experts + shared) / side.tp
    )
    # Embedding and output head stay in BF16, on the first and the last stage.
    embeddings = 2.0 * table["embedding_params"][model] / side.tp
    reckoned = per_stage / side.pp + embeddings / np.minimum(side.pp, 2.0)
    stored = table["stored_bytes"][model] / (side.tp * side.pp)
    return np.where(is_stored(rows, models), stored, reckoned)


def is_stored(rows: Scenarios, models: ModelTable) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which rows use the weights as the model's file holds them."""
    return np.asarray((rows.precision < 0) & (models.columns["stored_bytes"][rows.model] > 0))


def _kv_bytes_per_sequence(
    rows: Scenarios, side: Side, models: ModelTable, element_bytes: Floats
) -> Floats:
    table = models.columns
    model = rows.model
    shards = kv_shards(rows, side, models)
    # The last block of a sequence is kept whole.
    block = np.maximum(1.0, rows.block_tokens)
    tokens = np.ceil(side.tokens / block) * block
    windowed = np.minimum(tokens, table["window"][model])
    full = table["full_layers"][model] * table["kv_elements"][model] * tokens
    window = table["window_layers"][model] * table["window_kv_elements"][model] * windowed
    cache = element_bytes / shards * (full + window)
    state = table["linear_layers"][model] * table["linear_state_bytes"][model] / shards
    return np.asarray(np.maximum(1.0, (cache + state) / side.pp))


def kv_shards(rows: Scenarios, side: Side, models: ModelTable) -> Floats:
    """Over how many devices one sequence's KV cache is split; MLA's is on every one, whole."""
    table = models.columns
    attention_shards = np.maximum(1.0, side.tp / side.dp)
    grouped = np.minimum(attention_shards, np.maximum(1.0, table["kv_heads"][rows.model]))
    return np.asarray(np.where(table["is_mla"][rows.model] > 0, 1.0, grouped))
