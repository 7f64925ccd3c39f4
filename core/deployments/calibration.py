"""How what was measured of a deployment corrects later predictions for it.

For each metric the median of log(measured / predicted) over n requests is shrunk towards 0 as if
`PRIOR_REQUESTS` requests had been exactly as predicted: a handful moves a prediction little,
hundreds move it nearly all the way. `core.metrics.calibration` does the measuring.
"""

from __future__ import annotations

import math

from core.deployments import crud
from core.deployments.predictions import Predicted
from core.deployments.schemas import Calibration, DeploymentView
from core.deployments.services import get_deployment
from core.kernel import audit, clock, database
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput
from core.simulation.schemas import Value

PRIOR_REQUESTS = 20
# Beyond a factor of 20 something else is wrong than the prediction.
_MOST_LOG_RATIO = math.log(20)


def shrunk(log_ratio: float, requests: int) -> float:
    """The part of a log ratio that `requests` requests warrant."""
    return log_ratio * requests / (requests + PRIOR_REQUESTS)


def applied(predicted: Predicted, calibration: Calibration | None) -> Predicted:
    """The prediction, corrected by what was measured; unchanged without a calibration."""
    if calibration is None:
        return predicted
    ttft = math.exp(shrunk(calibration.ttft_log_ratio, calibration.requests))
    tpot = math.exp(shrunk(calibration.tpot_log_ratio, calibration.requests))
    return Predicted(
        predicted.load, _scaled(predicted.ttft_ms, ttft), _scaled(predicted.tpot_ms, tpot)
    )


def _scaled(value: Value, factor: float) -> Value:
    return Value(value.mean * factor, value.low * factor, value.high * factor)


def store(
    actor: Actor, deployment_id: str, *, requests: int, ttft_log_ratio: float, tpot_log_ratio: float
) -> DeploymentView:
    """Keep what was measured of a deployment.

    Raises:
        InvalidInput: No request, or a ratio that is no number.
        NotFound: There is no such deployment.
    """
    ratios = (ttft_log_ratio, tpot_log_ratio)
    if requests < 1 or not all(math.isfinite(ratio) for ratio in ratios):
        raise InvalidInput(
            "A calibration needs measured requests.",
            value=f"{requests} requests, log ratios {ratios}",
            remedy="Send some requests first.",
        )
    ttft, tpot = (max(-_MOST_LOG_RATIO, min(_MOST_LOG_RATIO, ratio)) for ratio in ratios)
    measured = Calibration(
        requests=requests, ttft_log_ratio=ttft, tpot_log_ratio=tpot, calibrated_at=clock.now()
    )
    _set(actor, deployment_id, "calibrated", measured, requests=requests)
    return get_deployment(actor, deployment_id)


def reset(actor: Actor, deployment_id: str) -> DeploymentView:
    """Forget what was measured of a deployment: only later requests count from now on."""
    _set(actor, deployment_id, "calibration_reset", None)
    return get_deployment(actor, deployment_id)


def _set(
    actor: Actor,
    deployment_id: str,
    verb: str,
    calibration: Calibration | None,
    **details: object,
) -> None:
    view = get_deployment(actor, deployment_id)
    actor.require("deployment:update", view.project_id)
    with database.transaction() as tx:
        row = crud.deployment(tx, deployment_id)
        if row is None:
            return
        row.calibration = None if calibration is None else calibration.model_dump(mode="json")
        if calibration is None:
            row.measured_since = clock.now()
        audit.record(
            tx,
            actor,
            f"deployment.{verb}",
            f"deployment:{deployment_id}",
            project_id=view.project_id,
            name=view.name,
            **details,
        )
