"""What a replay needs to know of a configuration, tabulated once from the predictor.

For each batch size a decode step is fitted as an affine function of the mean context, which it is
in the analytic model (attention reads and scores are linear in the context) up to the learned
correction and sliding windows. What a prompt costs the steps it is read in is what the predictor
adds to the time per output token for it; what a lone request waits beyond that (tokenising,
latency that overlaps with other work) is a delay outside the engine. A disaggregated copy prefills
on workers of their own: there a prompt costs what keeps all of them busy together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from core.simulation import memory
from core.simulation.memory import Memory
from core.simulation.predictor import Prediction, Predictor, device_count
from core.simulation.scenarios import Floats, Ints, Scenarios

# Engines' own: vLLM admits 1,024 sequences and 8,192 tokens a step on large accelerators.
DEFAULT_MAX_SEQUENCES = 1024
DEFAULT_MAX_BATCHED_TOKENS = 8192
_BATCHES, _CONTEXTS, _PROMPTS = 28, 6, 24
# Prefill is priced at this many sequences in flight: enough to share a step's overhead.
_PREFILL_CONCURRENCY = 16.0
# Of the KV cache: whole sequences leave some of it empty.
_FULL = 0.97


@dataclass(frozen=True)
class CopyTimes:
    """Times and memory of one copy of the model.

    Attributes:
        step_ms: A decode step without context, at index [sequences in the batch].
        step_ms_per_token: What each token of the mean context adds, at the same index.
        prompt_tokens: Prompt lengths, rising, at which the next three are given.
        prefill_ms: What reading a prompt of that length adds to the steps it is read in; how long
            it occupies all prefill workers when disaggregated.
        delay_ms: What a lone request waits for its first token beyond that; without the first
            decode step when disaggregated.
        kv_lengths: Tokens of a sequence, rising, at which `kv_bytes` is given.
        kv_bytes: Bytes that a sequence of that length holds on a device.
        kv_capacity_bytes: Bytes for all sequences; ranks of data-parallel attention and decode
            workers add up. 0 when the weights do not fit.
        max_sequences: Sequences in one batch.
        max_batched_tokens: Tokens in one step.
        max_context: Longest sequence that the model takes; 0 is unknown.
        devices: Devices of one copy.
        is_disaggregated: Whether prompts are read by workers of their own.
    """

    step_ms: Floats
    step_ms_per_token: Floats
    prompt_tokens: Floats
    prefill_ms: Floats
    delay_ms: Floats
    kv_lengths: Floats
    kv_bytes: Floats
    kv_capacity_bytes: float
    max_sequences: int
    max_batched_tokens: int
    max_context: int
    devices: int
    is_disaggregated: bool

    def prefill_ms_of(self, input_tokens: Ints) -> Floats:
        """Milliseconds that prompts of these lengths add to steps."""
        return np.interp(input_tokens, self.prompt_tokens, self.prefill_ms)

    def delay_ms_of(self, input_tokens: Ints) -> Floats:
        """Milliseconds outside the engine before the first token."""
        return np.interp(input_tokens, self.prompt_tokens, self.delay_ms)

    def kv_bytes_of(self, tokens: Ints) -> Ints:
        """Bytes that sequences of these lengths hold."""
        return np.ceil(np.interp(tokens, self.kv_lengths, self.kv_bytes)).astype(np.int64)


def tabulate(
    predictor: Predictor, configuration: Scenarios, input_tokens: Ints, output_tokens: Ints
) -> CopyTimes:
    """The times of one copy of `configuration` (one row) for requests like these."""
    one = configuration.with_columns(
        replicas=np.ones(1),
        lengths=np.zeros(1, np.int64),
        # Unknown numbers of workers would be sized for each load anew.
        prefill_workers=np.maximum(1.0, configuration.prefill_workers),
        decode_workers=np.maximum(1.0, configuration.decode_workers),
    )
    asked = float(one.max_sequences[0]) or DEFAULT_MAX_SEQUENCES
    batched = int(one.chunk_tokens[0]) or DEFAULT_MAX_BATCHED_TOKENS
    sequences = int(min(asked, batched))
    output = float(output_tokens.mean())
    lengths, kv_bytes, capacity = _kv(predictor, one, input_tokens + output_tokens)
    most = min(sequences, int(capacity / kv_bytes[0]))
    batches = np.unique(np.geomspace(1, max(1, most), _BATCHES).round())
    # Longer contexts than these do not fit, and the predictor would answer for a smaller batch.
    longest = np.interp(_FULL * capacity / batches, kv_bytes, lengths)
    step_ms, per_token_ms = _steps(predictor, one, batches, longest, input_tokens, output)
    every = np.arange(sequences + 1)
    prompts = np.unique(np.geomspace(input_tokens.min(), input_tokens.max(), _PROMPTS).round())
    price = _split_prompts if one.mode[0] == 1 else _prompts
    prefill_ms, delay_ms = price(predictor, one, prompts, output)
    return CopyTimes(
        step_ms=np.interp(every, batches, step_ms),
        step_ms_per_token=np.interp(every, batches, per_token_ms),
        prompt_tokens=prompts,
        prefill_ms=prefill_ms,
        delay_ms=delay_ms,
        kv_lengths=lengths,
        kv_bytes=kv_bytes,
        kv_capacity_bytes=capacity,
        max_sequences=sequences,
        max_batched_tokens=batched,
        max_context=int(predictor.models.columns["max_context"][one.model[0]]),
        devices=int(device_count(one)[0]),
        is_disaggregated=bool(one.mode[0] == 1),
    )


def _steps(
    predictor: Predictor,
    one: Scenarios,
    batches: Floats,
    longest: Floats,
    input_tokens: Ints,
    output: float,
) -> tuple[Floats, Floats]:
    """Intercepts and slopes of the step time over the mean context, one for each batch.

    `longest` is the longest sequence that a batch of each size can hold.
    """
    # A batch's mean context wanders less than single requests do.
    low, high = np.quantile(input_tokens, (0.1, 0.95)) + output / 2
    # A context is a prompt and half an answer, which may be shorter than the mean one.
    high = np.clip(np.maximum(longest - output / 2, longest / 1.5), 2.0, max(high, 2 * low))
    low = np.maximum(1.0, np.minimum(low, high / 2))
    context = np.geomspace(low, high, _CONTEXTS)
    answer = np.minimum(output, context)
    rows = _rows(
        one,
        isl=(context - answer / 2).ravel(),
        osl=answer.ravel(),
        concurrency=np.broadcast_to(batches, context.shape).ravel(),
    )
    prediction = predictor.predict(rows)
    step_ms = (prediction.times.step_ms * _correction(prediction)).reshape(context.shape)
    fitted = [_affine(*column) for column in zip(context.T, step_ms.T, strict=True)]
    constant, slope = np.array(fitted).T
    return constant, slope


def _affine(context: Floats, step_ms: Floats) -> tuple[float, float]:
    """The line with the least relative error that neither falls nor starts below 0."""
    weight = 1 / step_ms**2
    mean_context, mean_ms = np.average(context, weights=weight), np.average(step_ms, weights=weight)
    spread = np.average((context - mean_context) ** 2, weights=weight)
    together = np.average((context - mean_context) * (step_ms - mean_ms), weights=weight)
    slope = min(max(0.0, together / spread), mean_ms / mean_context)
    return float(mean_ms - slope * mean_context), float(slope)


def _prompts(
    predictor: Predictor, one: Scenarios, prompts: Floats, output: float
) -> tuple[Floats, Floats]:
    """What prompts of these lengths add to steps, and the delay of a lone one beyond that."""
    alone = predictor.predict(_rows(one, isl=prompts, osl=output, concurrency=1.0))
    shared = predictor.predict(
        _rows(one, isl=prompts, osl=output, concurrency=_PREFILL_CONCURRENCY)
    )
    added_ms = (shared.times.tpot_ms - shared.times.step_ms) * _correction(shared)
    in_batch = np.minimum(_PREFILL_CONCURRENCY, np.maximum(1.0, shared.most_concurrency))
    prefill_ms = np.maximum.accumulate(np.maximum(0.0, added_ms) * output / in_batch)
    return prefill_ms, np.maximum(0.0, alone.ttft_ms.mean - prefill_ms)


def _split_prompts(
    predictor: Predictor, one: Scenarios, prompts: Floats, output: float
) -> tuple[Floats, Floats]:
    """The same of a disaggregated copy; its first token comes from a decode step."""
    alone = predictor.predict(_rows(one, isl=prompts, osl=output, concurrency=1.0))
    correction = alone.ttft_ms.mean / alone.times.ttft_ms
    prefill_ms = np.maximum.accumulate(alone.times.prefill_busy_ms * correction)
    delay_ms = alone.ttft_ms.mean - alone.times.step_ms * _correction(alone) - prefill_ms
    return prefill_ms, np.maximum(0.0, delay_ms)


def _correction(prediction: Prediction) -> Floats:
    """What the predictor learned on top of the analytic time per output token, as a factor."""
    return prediction.tpot_ms.mean / prediction.times.tpot_ms


def _kv(predictor: Predictor, one: Scenarios, tokens: Ints) -> tuple[Floats, Floats, float]:
    """Lengths, the bytes that sequences of them hold, and the bytes there are for all."""
    models, systems = predictor.models, predictor.systems
    shortest, longest = tokens.min(), tokens.max() + 1
    window = np.clip(models.columns["window"][one.model[0]], shortest, longest)
    lengths = np.unique(np.append(np.geomspace(shortest, longest, 64).round(), window))
    rows = _rows(one, isl=lengths, osl=0.0, concurrency=1.0)
    is_split = one.mode[0] == 1
    side = memory.decode_side(rows) if is_split else memory.whole(rows)
    held = memory.of_side(rows, side, models, systems)
    capacity = _free_bytes(held) * side.dp[0] * (one.decode_workers[0] if is_split else 1.0)
    if is_split:
        prefill = memory.of_side(rows, memory.prefill_side(rows), models, systems)
        capacity = capacity if _free_bytes(prefill) > 0 else 0.0
    return lengths, held.kv_per_sequence, max(0.0, float(capacity))


def _free_bytes(held: Memory) -> float:
    return float((held.usable - held.weights - held.activations - held.runtime)[0])


def _rows(one: Scenarios, **columns: Floats | float) -> Scenarios:
    """Copies of a row with other values in some columns."""
    count = max(np.size(value) for value in columns.values())
    rows = one.take(np.zeros(count, np.int64))
    return rows.with_columns(
        **{
            name: np.broadcast_to(np.asarray(value, float), count)
            for name, value in columns.items()
        }
    )
