"""Predicted beside measured, over requests that a store holds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from core.deployments import calibration as kept
from core.deployments import predictions
from core.deployments import services as deployments
from core.deployments.models import Deployment
from core.deployments.schemas import ONE_PERSON, DeploymentRequest, DeploymentView, Load
from core.kernel import audit, clock, database
from core.kernel.actor import Actor
from core.kernel.errors import NotFound
from core.metrics import calibration, ingest, segments, store
from core.metrics.schemas import StoredFact
from core.metrics.store import WritableStore
from core.registry import services as registry
from tests.unit.deployments.machines import PROJECT, probed

__all__ = ["probed"]


@pytest.fixture
def metrics(data_dir: Path) -> Iterator[WritableStore]:
    opened = ingest.open_store(data_dir)
    store.set_writer(opened)
    yield opened
    store.set_writer(None)
    opened.close()


@pytest.fixture
def deployed(probed: None, metrics: WritableStore, admin: Actor) -> DeploymentView:
    model = registry.add_starter(admin)
    asked = DeploymentRequest(
        project_id=PROJECT, name="smol", model_id=model.id, context_tokens=512, slots=2, threads=1
    )
    made = deployments.deploy(admin, asked)
    with database.transaction() as tx:
        row = tx.get(Deployment, made.id)
        assert row is not None
        row.measured_since -= timedelta(hours=1)
    return deployments.get_deployment(admin, made.id)


def _ask(
    metrics: WritableStore,
    data_dir: Path,
    view: DeploymentView,
    count: int,
    *,
    ttft_ms: float,
    tpot_ms: float,
    together: bool = False,
    ago_s: float = 1800,
    **values: object,
) -> None:
    """Requests of 64 tokens in and 21 out, some time ago, in turn or at the same time."""
    duration_ms = ttft_ms + 20 * tpot_ms
    segment = clock.now().strftime("%H%M%S%f")
    first_s = clock.unix_s() - ago_s
    defaults: dict[str, object] = {
        "project_id": PROJECT,
        "deployment_id": view.id,
        "stream": True,
        "status": 200,
        "input_tokens": 64,
        "output_tokens": 21,
        "ttft_ms": ttft_ms,
    }
    facts = [
        StoredFact(
            request_id=f"{segment}-{number}",
            started_unix_s=first_s + (0 if together else number * duration_ms / 1e3),
            endpoint="/v1/chat/completions",
            duration_ms=duration_ms,
            **(defaults | values),  # type: ignore[arg-type]
        )
        for number in range(count)
    ]
    segments.write(data_dir, f"seg-{segment}", facts)
    ingest.ingest_once(metrics, data_dir)


def test_without_requests_there_is_nothing_to_compare(
    admin: Actor, deployed: DeploymentView
) -> None:
    assert calibration.compare(admin, deployed.id) is None
    assert calibration.calibrate(admin, deployed.id) is None


def test_one_request_beside_its_prediction(
    metrics: WritableStore, data_dir: Path, admin: Actor, deployed: DeploymentView
) -> None:
    _ask(metrics, data_dir, deployed, 1, ttft_ms=500, tpot_ms=20)
    found = calibration.compare(admin, deployed.id)
    assert found is not None
    assert (found.requests, found.concurrency, found.isl, found.osl) == (1, 1, 64, 21)
    assert found.measured.ttft_ms == pytest.approx(500)
    assert found.measured.tpot_ms == pytest.approx(20)
    assert found.measured.tokens_per_s == pytest.approx(21e3 / 900)
    (predicted,) = predictions.of_deployment(admin, deployed, [Load(isl=64, osl=21)])
    assert found.predicted.tpot_ms == pytest.approx(predicted.tpot_ms.mean)
    assert found.tpot_log_ratio == pytest.approx(math.log(20 / predicted.tpot_ms.mean))
    assert found.calibrated is None


def test_requests_at_the_same_time_are_predicted_as_such(
    metrics: WritableStore, data_dir: Path, admin: Actor, deployed: DeploymentView
) -> None:
    _ask(metrics, data_dir, deployed, 2, ttft_ms=500, tpot_ms=20, together=True)
    found = calibration.compare(admin, deployed.id)
    assert found is not None
    assert found.concurrency == 2
    (predicted,) = predictions.of_deployment(admin, deployed, [Load(isl=64, osl=21, concurrency=2)])
    assert found.predicted.tpot_ms == pytest.approx(predicted.tpot_ms.mean)
    assert found.measured.tokens_per_s == pytest.approx(2 * 21e3 / 900)


def test_what_does_not_time_the_tokens_does_not_count(
    metrics: WritableStore, data_dir: Path, admin: Actor, deployed: DeploymentView
) -> None:
    bad: list[dict[str, object]] = [
        {"stream": False},
        {"output_tokens": 3},
        {"input_tokens": None},
        {"error_class": "timeout", "status": 504},
        {"project_id": "prj_b"},
    ]
    for values in bad:
        _ask(metrics, data_dir, deployed, 1, ttft_ms=500, tpot_ms=20, **values)
    assert calibration.compare(admin, deployed.id) is None


def test_measured_requests_calibrate_and_a_reset_forgets_them(
    metrics: WritableStore, data_dir: Path, admin: Actor, deployed: DeploymentView
) -> None:
    _ask(metrics, data_dir, deployed, 2, ttft_ms=500, tpot_ms=20)
    assert calibration.calibrate(admin, deployed.id) is None, "two are too few"
    _ask(metrics, data_dir, deployed, 18, ttft_ms=500, tpot_ms=20, ago_s=1200)
    view = calibration.calibrate(admin, deployed.id)
    assert view is not None
    assert view.calibration is not None
    assert view.calibration.requests == 20
    assert calibration.calibrate(admin, deployed.id) is None, "nothing new"
    found = calibration.compare(admin, deployed.id)
    assert found is not None
    assert found.calibrated is not None
    halfway = math.sqrt(found.measured.tpot_ms * found.predicted.tpot_ms)
    assert found.calibrated.tpot_ms == pytest.approx(halfway), "20 of 40 requests' weight"
    kept.reset(admin, deployed.id)
    assert calibration.compare(admin, deployed.id) is None
    entries = audit.entries(admin, PROJECT, subject=f"deployment:{deployed.id}")
    assert [entry.action for entry in entries][:2] == [
        "deployment.calibration_reset",
        "deployment.calibrated",
    ]


def test_other_settings_are_predicted_under_the_measured_load_and_calibrated(
    metrics: WritableStore, data_dir: Path, admin: Actor, deployed: DeploymentView
) -> None:
    asked = DeploymentRequest(
        project_id=PROJECT, name="smol", model_id=deployed.model_id, slots=1, threads=1
    )
    plan = deployments.check_fit(admin, asked, replacing=deployed.id)
    assert calibration.repredict(admin, deployed.id, plan).load == ONE_PERSON
    _ask(metrics, data_dir, deployed, 20, ttft_ms=500, tpot_ms=40)
    before = calibration.repredict(admin, deployed.id, plan)
    assert before.load == Load(isl=64, osl=21)
    assert calibration.calibrate(admin, deployed.id) is not None
    after = calibration.repredict(admin, deployed.id, plan)
    assert before.tpot_ms.mean < after.tpot_ms.mean < 40
    assert after.tpot_ms.mean == pytest.approx(math.sqrt(before.tpot_ms.mean * 40))


def test_project_b_sees_nothing_of_a(
    metrics: WritableStore, data_dir: Path, admin: Actor, deployed: DeploymentView
) -> None:
    _ask(metrics, data_dir, deployed, 3, ttft_ms=500, tpot_ms=20)
    stranger = Actor("usr_b", "b@example.org", admin.tenant_id, "member", {"prj_b": "admin"})
    with pytest.raises(NotFound):
        calibration.compare(stranger, deployed.id)
