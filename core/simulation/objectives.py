"""What makes a configuration better than another: targets met, cost, throughput."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from core.kernel.errors import InvalidInput
from core.simulation.encoding import Decoded
from core.simulation.predictor import Band, Booleans, Prediction
from core.simulation.scenarios import Floats, Ints
from core.simulation.topology import NUMBER

# Added to the logarithm of what is not priced, so that it comes after everything that is.
_UNPRICED = 50.0
# How far from feasible: no answer is worse than no room at all, which is worse than too little
# room for the requests that run at once (a share below 1).
_NO_ANSWER, _NO_ROOM = 1e6, 10.0
_NAMES = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "e2e_ms": "the whole request"}
# Objectives that differ by less are equal; it keeps rounding out of the front.
_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Slo:
    """Service-level objectives in milliseconds; None asks for nothing.

    `bound` says what must meet them: the predicted mean, or the upper bound of its 80% band.
    """

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    bound: Literal["mean", "high"] = "mean"

    def __post_init__(self) -> None:
        for name, target in self.targets.items():
            if not 0 < target < float("inf"):
                raise InvalidInput(
                    f"A target for {_NAMES[name]} is a positive number of milliseconds.",
                    value=target,
                    remedy="Leave it out to ask for nothing.",
                )

    @property
    def targets(self) -> dict[str, float]:
        """What is asked for, by the name of the prediction's column."""
        values = {name: getattr(self, name) for name in ("ttft_ms", "tpot_ms", "e2e_ms")}
        return {name: value for name, value in values.items() if value is not None}

    def misses(self, prediction: Prediction) -> dict[str, Floats]:
        """How far each target is missed, as a share of it: 0.5 is half as much again; 0 is met."""
        return {
            name: np.maximum(0.0, self._judged(getattr(prediction, name)) / target - 1)
            for name, target in self.targets.items()
        }

    def _judged(self, band: Band) -> Floats:
        return band.mean if self.bound == "mean" else band.high


@dataclass(frozen=True)
class Scores:
    """A population under its objectives; one entry a configuration.

    Attributes:
        values: Shape (rows, 3), all to be minimised: logarithms of 1 + the sum of the shares by
            which targets are missed, of the cost, and of 1 / throughput.
        reason: NUMBER of the reason why it is not feasible; 0 if it is.
        shortfall: How far from feasible; 0 if it is.
    """

    values: Floats
    reason: Ints
    shortfall: Floats

    def take(self, which: Booleans | Ints) -> Scores:
        """Those at `which` (a mask or indexes)."""
        return Scores(**{each.name: getattr(self, each.name)[which] for each in fields(self)})

    @property
    def is_feasible(self) -> Booleans:
        """Whether it can run."""
        return np.equal(self.reason, 0)


@dataclass(frozen=True)
class Costs:
    """Per million tokens of the whole deployment at its predicted throughput.

    `usd` is of input and output tokens together, `usd_output` of output tokens; both are NaN
    where no price is known. `device_hours` counts rented devices, per million tokens of both.
    """

    usd: Floats
    usd_output: Floats
    device_hours: Floats


def costs(decoded: Decoded, prediction: Prediction) -> Costs:
    """What a million tokens cost."""
    rows = decoded.rows
    hours = 1e6 / (3600 * prediction.requests_per_s * (rows.isl + rows.osl))
    return Costs(
        usd=decoded.usd_per_hour * hours,
        usd_output=decoded.usd_per_hour * hours * (rows.isl + rows.osl) / rows.osl,
        device_hours=decoded.rented_devices * hours,
    )


def scores(decoded: Decoded, prediction: Prediction, slo: Slo) -> Scores:
    """Objectives of every configuration.

    What has no price is never free: it is compared by its device hours, and comes after all that
    has a price. Where nothing has one, device hours are the cost.
    """
    with np.errstate(all="ignore"):  # what is not finite is sorted out below
        missed = sum(slo.misses(prediction).values(), np.zeros(len(decoded.rows)))
        cost = costs(decoded, prediction)
        unpriced = _UNPRICED + np.log(cost.device_hours)
        throughput = prediction.requests_per_s * decoded.rows.osl
        columns = [
            np.log1p(missed),
            np.where(np.isnan(cost.usd), unpriced, np.log(cost.usd)),
            -np.log(throughput),
        ]
    values = np.stack(columns, axis=1).round(_DECIMALS)
    answered = np.isfinite(values).all(axis=1)
    reason, shortfall = _infeasible(decoded, prediction, answered)
    return Scores(values, reason, shortfall)


def _infeasible(
    decoded: Decoded, prediction: Prediction, answered: Booleans
) -> tuple[Ints, Floats]:
    memory = prediction.memory
    lacks = 1 - prediction.most_concurrency / decoded.most_running
    rules = (
        ("no prediction", ~answered, np.full(len(answered), _NO_ANSWER)),
        ("memory", ~prediction.fits, _NO_ROOM + memory.needed / memory.usable),
        ("KV cache", lacks > 0, lacks),
    )
    reason = np.zeros(len(answered), dtype=np.int64)
    shortfall = np.zeros(len(answered))
    for name, applies, how_far in rules:
        first = applies & (reason == 0)
        reason[first] = NUMBER[name]
        shortfall[first] = how_far[first]
    return reason, shortfall
