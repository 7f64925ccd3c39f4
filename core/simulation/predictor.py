"""Predictions with their error bands: the one way that everything in Bud asks for times.

`Predictor.predict` answers a whole batch of scenarios at once; pages, the search, the batch
command and the replay all call it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from core.simulation import dataset, memory
from core.simulation.memory import Memory
from core.simulation.roofline import PRIOR, Roofline, Times
from core.simulation.scenarios import Floats, Ints, ModelTable, Scenarios, SystemTable

Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Band:
    """A mean, and the bounds between which it lies in 80% of the cases; one entry a scenario."""

    mean: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Prediction:
    """What a batch of scenarios does; every column has one entry a scenario.

    Attributes:
        ttft_ms: Mean time to first token at steady closed-loop concurrency.
        tpot_ms: Mean time per output token after the first.
        e2e_ms: Mean time of a whole request.
        tokens_per_s_per_gpu: Output tokens.
        total_tokens_per_s_per_gpu: Input and output tokens.
        requests_per_s: Of the whole deployment.
        devices: Of the whole deployment: all replicas, and both sides when disaggregated.
        memory: Of one device; of the fuller side when disaggregated.
        most_concurrency: Requests in flight that fit in the KV cache of the whole deployment.
        fits: Whether the weights and at least one sequence fit.
        nearby: Measured rows near the scenario; 0 means extrapolated.
        times: The analytic parts behind the answer.
    """

    ttft_ms: Band
    tpot_ms: Band
    e2e_ms: Band
    tokens_per_s_per_gpu: Band
    total_tokens_per_s_per_gpu: Floats
    requests_per_s: Floats
    devices: Floats
    memory: Memory
    most_concurrency: Floats
    fits: Booleans
    nearby: Ints
    times: Times

    @cached_property
    def tokens_per_s_per_user(self) -> Floats:
        """Output tokens a second that one caller sees after the first."""
        return 1e3 / self.tpot_ms.mean


class Predictor:
    """Answers for scenarios over the models and systems of its tables."""

    def __init__(self, models: ModelTable, systems: SystemTable) -> None:
        self.models, self.systems = models, systems
        self.roofline = Roofline(models, systems, PRIOR)

    def predict(self, rows: Scenarios) -> Prediction:
        """Predict every row. Rows that do not fit are answered too, with `fits` false."""
        times = self.roofline.times(rows)
        wide = 1.3
        ttft = Band(times.ttft_ms, times.ttft_ms / wide, times.ttft_ms * wide)
        tpot = Band(times.tpot_ms, times.tpot_ms / wide, times.tpot_ms * wide)
        return assemble(rows, times, ttft, tpot, np.zeros(len(rows), np.int64), self)


def assemble(
    rows: Scenarios, times: Times, ttft: Band, tpot: Band, nearby: Ints, predictor: Predictor
) -> Prediction:
    """Everything that follows from the two means, their bands and the memory."""
    after_first = np.maximum(0.0, rows.osl - 1)
    e2e = Band(
        ttft.mean + tpot.mean * after_first,
        ttft.low + tpot.low * after_first,
        ttft.high + tpot.high * after_first,
    )
    devices = device_count(rows)
    held = memory.of_deployment(rows, predictor.models, predictor.systems)

    def rate(e2e_ms: Floats) -> Floats:
        return rows.concurrency / e2e_ms * 1e3

    output = rows.osl / devices
    return Prediction(
        ttft_ms=ttft,
        tpot_ms=tpot,
        e2e_ms=e2e,
        tokens_per_s_per_gpu=Band(
            rate(e2e.mean) * output, rate(e2e.high) * output, rate(e2e.low) * output
        ),
        total_tokens_per_s_per_gpu=rate(e2e.mean) * (rows.isl + rows.osl) / devices,
        requests_per_s=rate(e2e.mean),
        devices=devices,
        memory=held,
        most_concurrency=times.most_sequences,
        fits=held.fits,
        nearby=nearby,
        times=times,
    )


def device_count(rows: Scenarios) -> Floats:
    """Devices of each deployment; unknown workers count as one."""
    prefill = np.maximum(1.0, rows.prefill_workers) * np.maximum(1.0, rows.prefill_tp)
    prefill = prefill * np.maximum(1.0, rows.prefill_pp)
    decode = np.maximum(1.0, rows.decode_workers) * np.maximum(1.0, rows.decode_tp)
    decode = decode * np.maximum(1.0, rows.decode_pp)
    one = np.where(rows.mode == 1, prefill + decode, rows.tp * rows.pp)
    return one * np.maximum(1.0, rows.replicas)


def shipped() -> Predictor:
    """The predictor that ships with Bud, over the shipped models and systems."""
    return Predictor(*dataset.tables())
