"""Predictions with their error bands: the one way that everything in Bud asks for times.

`Predictor.predict` answers a whole batch of scenarios at once; pages, the search, the batch
command and the replay all call it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from core.simulation import dataset, features, memory, training
from core.simulation.learners import ROOFLINE
from core.simulation.memory import Memory
from core.simulation.roofline import Roofline, Times
from core.simulation.scenarios import MODES, Floats, Ints, ModelTable, Scenarios, SystemTable
from core.simulation.support import KINDS, Place
from core.simulation.training import HEADS, About, Choice, Trained

Booleans = npt.NDArray[np.bool_]

_BLOCK_ROWS = 4096
_DEVICE = KINDS.index("device")
# So many doublings of the load beyond anything measured leave half of what was learnt: of half a
# doubling to four, this did best in inner folds. What the roofline misses, it misses there too.
_DOUBLINGS_TO_HALF = 2.0


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

    def __init__(self, models: ModelTable, systems: SystemTable, trained: Trained) -> None:
        self.models, self.systems, self.trained = models, systems, trained
        self.roofline = Roofline(models, systems, trained.coefficients)
        self._support = trained.support.over(models, systems)
        self._is_cpu = systems.columns["is_cpu"] > 0

    @property
    def about(self) -> About:
        """The data and the date of the training."""
        return self.trained.about

    def predict(self, rows: Scenarios) -> Prediction:
        """Predict every row. Rows that do not fit are answered too, with `fits` false."""
        if len(rows) <= _BLOCK_ROWS:
            return self._predict(rows)
        # Blocks that stay in the processor's cache are twice as fast.
        starts = range(0, len(rows), _BLOCK_ROWS)
        parts = [self._predict(rows.take(slice(at, at + _BLOCK_ROWS))) for at in starts]
        return _joined(parts)

    def _predict(self, rows: Scenarios) -> Prediction:
        times = self.roofline.times(rows)
        excess = self._excess(rows, times)
        if not excess.any():
            return self._answered(rows, times)
        most = _running(times.most_sequences)
        running = replace(rows, concurrency=np.where(excess > 0, most, rows.concurrency))
        return self._with_waiting(
            rows, excess, self._answered(running, self.roofline.times(running))
        )

    def _excess(self, rows: Scenarios, times: Times) -> Floats:
        """Requests that wait, for each one that runs; 0 where all have room.

        The analytic model of a processor has them in its times, decoding workers whose number is
        not known are taken to be enough, and who measured so many in flight had room for them.
        """
        excess = np.maximum(0.0, rows.concurrency / _running(times.most_sequences) - 1)
        are_enough = (rows.mode == 1) & (rows.decode_workers == 0)
        excess = np.where(self._is_cpu[rows.system] | are_enough, 0.0, excess)
        if excess.any():
            excess = np.where(self._support.place(rows).nearby > 0, 0.0, excess)
        return excess

    def _with_waiting(self, rows: Scenarios, excess: Floats, running: Prediction) -> Prediction:
        """What all requests see, when no more run at once than have room.

        Those that run go on as if there were no others, and one that waits is let in when one of
        them ends: a closed loop, so more in flight wait longer and get nothing more done. The
        learners are not asked about it: nearly all of what they saw had room.
        """
        ttft, e2e = running.ttft_ms, running.e2e_ms
        waiting = Band(
            ttft.mean + excess * e2e.mean,
            ttft.low + excess * e2e.low,
            ttft.high + excess * e2e.high,
        )
        times = replace(
            running.times,
            ttft_ms=running.times.ttft_ms + excess * e2e.mean,
            wait_ms=running.times.wait_ms + excess * e2e.mean,
            pressure=np.where(excess > 0, 1 + excess, running.times.pressure),
        )
        return assemble(rows, times, waiting, running.tpot_ms, running.nearby, self)

    def _answered(self, rows: Scenarios, times: Times) -> Prediction:
        is_cpu = self._is_cpu[rows.system]
        place, trust = trusted(self._support.place(rows), is_cpu)
        matrix = features.matrix(rows, times, self.models, self.systems)
        bands = {
            head: self._band(head, rows, np.log(getattr(times, head)), matrix, place, trust)
            for head in HEADS
        }
        nearby = np.where(is_cpu, 0, place.nearby)
        return assemble(rows, times, bands["ttft_ms"], bands["tpot_ms"], nearby, self)

    def _band(
        self,
        head: str,
        rows: Scenarios,
        roofline: Floats,
        matrix: features.Matrix,
        place: Place,
        trust: Floats,
    ) -> Band:
        answer, low, high = roofline.copy(), np.empty(len(rows)), np.empty(len(rows))
        regimes = place.kind * len(MODES) + rows.mode
        ranges = training.band_of(place.nearby)
        for regime in np.unique(regimes):
            which = np.flatnonzero(regimes == regime)
            choice = self.trained.choices[head][training.regime(*divmod(int(regime), len(MODES)))]
            answer[which] = self._combined(head, choice, matrix[which], roofline[which])
            low[which] = np.array(choice.low)[ranges[which]]
            high[which] = np.array(choice.high)[ranges[which]]
        # Far from the data the answer goes back to the analytic one, and the band grows.
        answer = roofline + trust * (answer - roofline)
        wider = 1 + place.beyond
        return Band(np.exp(answer), np.exp(answer + low * wider), np.exp(answer + high * wider))

    def _combined(
        self, head: str, choice: Choice, matrix: features.Matrix, roofline: Floats
    ) -> Floats:
        known = self.trained.learners[head]
        logarithms = {
            name: roofline if name == ROOFLINE else known[name].logarithms(matrix, roofline)
            for name in choice.combination.learners
        }
        return choice.combination.of(logarithms)


def _running(most_sequences: Floats) -> Floats:
    """How many requests run at once; one is tried where not even that fits."""
    return np.maximum(1.0, most_sequences)


def trusted(place: Place, is_cpu: Booleans) -> tuple[Place, Floats]:
    """Where scenarios count as standing, and the share of what was learnt that holds there."""
    # Nothing was learnt about serving on processors: the analytic answer stands.
    place = replace(
        place,
        kind=np.where(is_cpu, _DEVICE, place.kind),
        beyond=np.where(is_cpu, 0.0, place.beyond),
    )
    return place, np.where(is_cpu, 0.0, np.exp2(-place.beyond / _DOUBLINGS_TO_HALF))


def _joined(parts: list[Prediction]) -> Prediction:
    """One prediction of all rows, column by column."""

    def join(values: list[Any]) -> Any:
        if isinstance(values[0], np.ndarray):
            return np.concatenate(values)
        names = [each.name for each in fields(values[0])]
        columns = {name: join([getattr(value, name) for value in values]) for name in names}
        return type(values[0])(**columns)

    joined: Prediction = join(parts)
    return joined


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


@cache
def shipped() -> Predictor:
    """The predictor that ships with Bud, over the shipped models and systems."""
    return Predictor(*dataset.tables(), trained())


@cache
def trained() -> Trained:
    """What ships with Bud, or was written in its place by `bud simulator train`."""
    return training.read()
