"""A trace of requests replayed over one configuration: what each would have waited, and the cost.

`docs/simulator-replay.md` says how; `replay_times` turns the predictor into step times and
`replay_engine` runs the batches.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from core.kernel.errors import InvalidInput
from core.simulation import replay_times
from core.simulation.predictor import Predictor
from core.simulation.replay_engine import Engine, Log, Scaling, Work, simulate
from core.simulation.replay_results import LatencyTargets, Outcomes, ReplayResult, summarise
from core.simulation.replay_times import CopyTimes
from core.simulation.scenarios import Ints, Scenarios
from core.simulation.traces import Trace

MAX_REPLICAS = 1000
# What share of a full batch the autoscaler aims at: it starts replicas before requests queue.
_TARGET_SHARE = 0.75
_RANGES = (
    ("target_in_flight", 0.01, 1e6),
    ("scaling_interval_s", 1.0, 86_400.0),
    ("start_up_s", 0.0, 86_400.0),
    ("scale_down_delay_s", 0.0, 86_400.0),
)


@dataclass(frozen=True)
class Policy:
    """How requests are batched, and how many replicas there are.

    Attributes:
        chunked_prefill: Read prompts in the steps that decode, in pieces that leave no step with
            more than the configuration's `chunk_tokens`; otherwise whole prompts come first, and
            decoding waits.
        min_replicas: Copies of the model that always run; None takes the configuration's.
        max_replicas: Most copies; None is the same as `min_replicas`: no autoscaling.
        target_in_flight: Requests in flight for each replica that the autoscaler aims at; None
            takes three quarters of what fits in a batch.
        scaling_interval_s: How often the autoscaler decides.
        start_up_s: From the decision to the first request: the machine, the model's weights.
        scale_down_delay_s: How long fewer replicas must have been enough.
    """

    chunked_prefill: bool = True
    min_replicas: int | None = None
    max_replicas: int | None = None
    target_in_flight: float | None = None
    scaling_interval_s: float = 15.0
    start_up_s: float = 120.0
    scale_down_delay_s: float = 300.0

    def __post_init__(self) -> None:
        least = 1 if self.min_replicas is None else self.min_replicas
        most = least if self.max_replicas is None else self.max_replicas
        if not 1 <= least <= most <= MAX_REPLICAS:
            raise _bad_replicas(least, most)
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InvalidInput(
                    f"{name} must be from {low:g} to {high:,.0f}.", value=value, remedy="Change it."
                )


def replica_range(policy: Policy, configured: int) -> tuple[int, int]:
    """Fewest and most replicas of a configuration with `configured` copies of the model.

    Raises:
        InvalidInput: The policy allows fewer than the configuration has.
    """
    least = configured if policy.min_replicas is None else policy.min_replicas
    most = least if policy.max_replicas is None else policy.max_replicas
    if least > most:
        raise _bad_replicas(least, most)
    return least, most


def _bad_replicas(least: int, most: int) -> InvalidInput:
    return InvalidInput(
        f"Replicas go from {least:,} to {most:,}: it must be 1 ≤ min ≤ max ≤ {MAX_REPLICAS:,}.",
        remedy="Change min_replicas or max_replicas.",
    )


def run(
    predictor: Predictor,
    configuration: Scenarios,
    trace: Trace,
    policy: Policy = Policy(),
    *,
    usd_per_device_hour: float | None = None,
    targets: LatencyTargets = LatencyTargets(),  # noqa: B008 (frozen)
    progress: Callable[[float], None] = lambda _: None,
) -> ReplayResult:
    """Replay `trace` over `configuration`.

    Args:
        predictor: Answers for the times of steps.
        configuration: One row. Its lengths and concurrency are not used: the trace has its own.
        trace: The requests.
        policy: Batching and autoscaling.
        usd_per_device_hour: Price of one device; None leaves the cost unknown.
        targets: What a request must meet to count as attained.
        progress: Called with the share that is done, many times a second; may raise to stop.

    Raises:
        InvalidInput: Not one row, a policy that makes no sense, or a trace of which no request
            fits.
    """
    _check_configuration(configuration)
    times = replay_times.tabulate(predictor, configuration, trace.input_tokens, trace.output_tokens)
    kv_bytes = times.kv_bytes_of(trace.input_tokens + trace.output_tokens)
    refused = _refused(trace, times, kv_bytes)
    accepted = np.flatnonzero(refused == _ACCEPTED)
    if not len(accepted):
        raise _none_fits(trace, times, refused)
    engine = _engine(times, policy)
    scaling = _scaling(policy, configuration, times, float(kv_bytes[accepted].mean()))
    work = _work(times, float(configuration.prefix_hit_share[0]), trace, accepted, kv_bytes)
    log = simulate(work, engine, scaling, progress)
    return summarise(
        trace,
        _outcomes(trace, times, accepted, log),
        log.lifetimes,
        {_REASONS[code]: int((refused == code).sum()) for code in _REASONS},
        targets,
        devices_per_replica=times.devices,
        usd_per_device_hour=usd_per_device_hour,
    )


_ACCEPTED, _TOO_LONG, _TOO_LARGE = 0, 1, 2
_REASONS = {
    _TOO_LONG: "longer than the model's context",
    _TOO_LARGE: "larger than the KV cache",
}


def _check_configuration(configuration: Scenarios) -> None:
    if len(configuration) != 1:
        raise InvalidInput(
            "A replay takes one configuration.", value=len(configuration), remedy="Choose one."
        )
    sequences, tokens = configuration.max_sequences[0], configuration.chunk_tokens[0]
    if 0 < tokens < sequences:
        raise InvalidInput(
            f"{tokens:g} tokens a step are fewer than the {sequences:g} sequences that take one "
            "each.",
            remedy="Raise chunk_tokens or lower max_sequences.",
        )


def _refused(trace: Trace, times: CopyTimes, kv_bytes: Ints) -> Ints:
    """For each request 0, or why it is refused."""
    tokens = trace.input_tokens + trace.output_tokens
    is_too_long = (times.max_context > 0) & (tokens > times.max_context)
    is_too_large = kv_bytes > times.kv_capacity_bytes
    return np.where(is_too_long, _TOO_LONG, np.where(is_too_large, _TOO_LARGE, _ACCEPTED))


def _none_fits(trace: Trace, times: CopyTimes, refused: Ints) -> InvalidInput:
    if times.kv_capacity_bytes <= 0:
        return InvalidInput(
            "The model's weights leave no memory for requests.",
            remedy="Take more devices for a copy (tp), a larger one or a smaller precision.",
        )
    counts = ", ".join(
        f"{int((refused == code).sum()):,} are {why}"
        for code, why in _REASONS.items()
        if (refused == code).any()
    )
    shortest = int((trace.input_tokens + trace.output_tokens).min())
    return InvalidInput(
        f"No request of {trace.name} fits: {counts}. The shortest has {shortest:,} tokens.",
        remedy="Choose a model with a longer context, or more memory for its KV cache.",
    )


def _engine(times: CopyTimes, policy: Policy) -> Engine:
    return Engine(
        step_s=(times.step_ms / 1e3).tolist(),
        step_s_per_token=(times.step_ms_per_token / 1e3).tolist(),
        max_sequences=times.max_sequences,
        max_batched_tokens=times.max_batched_tokens,
        kv_bytes=int(times.kv_capacity_bytes),
        chunked_prefill=policy.chunked_prefill,
        is_disaggregated=times.is_disaggregated,
    )


def _scaling(
    policy: Policy, configuration: Scenarios, times: CopyTimes, kv_bytes_per_request: float
) -> Scaling:
    least, most = replica_range(policy, max(1, int(configuration.replicas[0])))
    target = policy.target_in_flight
    if target is None:
        in_batch = min(times.max_sequences, times.kv_capacity_bytes / kv_bytes_per_request)
        target = max(1.0, _TARGET_SHARE * in_batch)
    return Scaling(
        min_replicas=least,
        max_replicas=most,
        target_in_flight=target,
        interval_s=policy.scaling_interval_s,
        start_up_s=policy.start_up_s,
        scale_down_delay_s=policy.scale_down_delay_s,
    )


def _work(
    times: CopyTimes, prefix_hit_share: float, trace: Trace, accepted: Ints, kv_bytes: Ints
) -> Work:
    inputs = trace.input_tokens[accepted]
    to_read = np.maximum(1, np.round(inputs * (1 - prefix_hit_share))).astype(np.int64)
    prefill_ms = times.prefill_ms_of(inputs)
    # Arrays, not lists of objects: a million requests take 56 MB here, and no more time.
    return Work(
        arrival_s=array("d", trace.arrival_s[accepted].tobytes()),
        input_tokens=array("q", inputs.tobytes()),
        output_tokens=array("q", trace.output_tokens[accepted].tobytes()),
        prefill_tokens=array("q", to_read.tobytes()),
        prefill_s_per_token=array("d", (prefill_ms / 1e3 / to_read).tobytes()),
        kv_bytes=array("q", kv_bytes[accepted].tobytes()),
        hand_over_s=array("d", ((prefill_ms + times.delay_ms_of(inputs)) / 1e3).tobytes()),
    )


def _outcomes(trace: Trace, times: CopyTimes, accepted: Ints, log: Log) -> Outcomes:
    delay_s = times.delay_ms_of(trace.input_tokens[accepted]) / 1e3
    if times.is_disaggregated:
        # It is a part of the hand-over already.
        delay_s = np.zeros(len(accepted))
    return Outcomes(
        accepted=accepted,
        arrival_s=trace.arrival_s[accepted],
        output_tokens=trace.output_tokens[accepted],
        admitted_s=np.frombuffer(log.admitted_s),
        first_token_s=np.frombuffer(log.first_token_s) + delay_s,
        finished_s=np.frombuffer(log.finished_s) + delay_s,
    )
