"""Predictions of a deployment, and how measured requests correct them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from core.deployments import calibration, predictions
from core.deployments import services as deployments
from core.deployments.predictions import Predicted, Setup
from core.deployments.schemas import Calibration, DeploymentRequest, DeploymentView, Load
from core.kernel import audit, clock
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound
from core.registry import services as registry
from core.registry import versions
from core.registry.schemas import ModelView
from core.simulation.schemas import Value
from tests.unit.deployments.machines import PROJECT, probed

__all__ = ["probed"]

ASKED = Predicted(Load(isl=64, osl=11, concurrency=2), Value(100, 80, 150), Value(10, 8, 15))


def _measured(requests: int, ratio: float) -> Calibration:
    return Calibration(
        requests=requests,
        ttft_log_ratio=math.log(ratio),
        tpot_log_ratio=-math.log(ratio),
        calibrated_at=clock.now(),
    )


@pytest.fixture
def deployed(data_dir: Path, admin: Actor) -> DeploymentView:
    model = registry.add_starter(admin)
    asked = DeploymentRequest(
        project_id=PROJECT, name="smol", model_id=model.id, context_tokens=512, slots=2, threads=1
    )
    return deployments.deploy(admin, asked)


def _model(admin: Actor, deployed: DeploymentView) -> ModelView:
    return versions.pinned(admin, deployed.model_id, deployed.model_version_id)


def test_what_follows_from_the_two_means() -> None:
    assert ASKED.e2e_ms == Value(200, 160, 300)
    # Two requests in flight give 22 tokens in each 200 ms.
    assert ASKED.tokens_per_s.mean == pytest.approx(110)
    assert ASKED.tokens_per_s.low == pytest.approx(22e3 / 300)
    assert ASKED.requests_per_s == pytest.approx(10)


@pytest.mark.parametrize(("requests", "share"), [(1, 1 / 21), (20, 1 / 2), (180, 0.9)])
def test_few_requests_correct_little_and_many_nearly_all(requests: int, share: float) -> None:
    corrected = calibration.applied(ASKED, _measured(requests, 2.0))
    assert corrected.ttft_ms.mean == pytest.approx(100 * 2**share)
    assert corrected.tpot_ms.mean == pytest.approx(10 / 2**share)
    assert corrected.ttft_ms.high / corrected.ttft_ms.low == pytest.approx(150 / 80)
    assert calibration.applied(ASKED, None) is ASKED


def test_a_calibration_is_kept_reset_and_audited(admin: Actor, deployed: DeploymentView) -> None:
    assert deployed.calibration is None
    kept = calibration.store(
        admin, deployed.id, requests=12, ttft_log_ratio=0.5, tpot_log_ratio=-9.0
    )
    assert kept.calibration is not None
    assert (kept.calibration.requests, kept.calibration.ttft_log_ratio) == (12, 0.5)
    assert kept.calibration.tpot_log_ratio == pytest.approx(-math.log(20)), "bounded"
    reset = calibration.reset(admin, deployed.id)
    assert reset.calibration is None
    assert reset.measured_since > deployed.measured_since
    actions = [e.action for e in audit.entries(admin, PROJECT, subject=f"deployment:{deployed.id}")]
    assert actions[:2] == ["deployment.calibration_reset", "deployment.calibrated"]


def test_a_calibration_without_requests_or_by_a_stranger_is_refused(
    admin: Actor, deployed: DeploymentView
) -> None:
    with pytest.raises(InvalidInput, match="needs measured requests"):
        calibration.store(admin, deployed.id, requests=0, ttft_log_ratio=0, tpot_log_ratio=0)
    with pytest.raises(InvalidInput, match="needs measured requests"):
        calibration.store(admin, deployed.id, requests=3, ttft_log_ratio=math.nan, tpot_log_ratio=0)
    stranger = Actor("usr_b", "b@example.org", admin.tenant_id, "member", {"prj_b": "admin"})
    with pytest.raises(NotFound):
        calibration.reset(stranger, deployed.id)


def test_new_settings_are_measured_anew(admin: Actor, deployed: DeploymentView) -> None:
    deployments._cancel_job(admin, deployed)
    deployments.edit(admin, deployed.id, name="other")
    assert deployments.get_deployment(admin, deployed.id).measured_since == deployed.measured_since
    deployments.edit(admin, deployed.id, slots=1)
    edited = deployments.get_deployment(admin, deployed.id)
    assert edited.measured_since > deployed.measured_since
    deployments.scale(admin, deployed.id, 2)
    scaled = deployments.get_deployment(admin, deployed.id)
    assert scaled.measured_since > edited.measured_since


def test_threads_that_meet_after_each_operation_slow_a_small_model(
    probed: None, admin: Actor, deployed: DeploymentView
) -> None:
    """Measured on two quiet cores: 6.2 ms a token with one thread, 18.1 ms with two."""
    setups = [Setup(1, 1, 1), Setup(1, 2, 1)]
    asked = [(setup, Load(isl=16, osl=48)) for setup in setups]
    one, two = predictions.predict(admin, _model(admin, deployed), asked)
    assert one.tpot_ms.mean == pytest.approx(6.2, rel=0.3)
    assert two.tpot_ms.mean == pytest.approx(18.1, rel=0.3)


def test_more_slots_and_replicas_are_predicted_as_such(
    probed: None, admin: Actor, deployed: DeploymentView
) -> None:
    load = Load(isl=64, osl=32, concurrency=4)
    setups = [Setup(1, 1, 1), Setup(4, 1, 1), Setup(2, 1, 2)]
    asked = [(setup, load) for setup in setups]
    one, four, two_by_two = predictions.predict(admin, _model(admin, deployed), asked)
    assert four.ttft_ms.mean < one.ttft_ms.mean, "nobody waits for a slot"
    assert four.tpot_ms.mean > one.tpot_ms.mean, "four share each step"
    assert two_by_two.tpot_ms.mean < four.tpot_ms.mean
    (own,) = predictions.of_deployment(admin, deployed, [load])
    assert own == predictions.predict(admin, _model(admin, deployed), [(Setup(2, 1, 1), load)])[0]
