"""Before any calibration, the starter model on this machine: predicted against measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.kernel.actor import Actor
from tests.benchmarks import simulator_local


def test_the_starter_model_is_predicted_within_30_percent_of_its_measured_tpot(
    data_dir: Path, admin: Actor
) -> None:
    rows = simulator_local.undisturbed(admin)
    assert [load.isl for load, _, _ in rows] == [16, 256]
    # Of answers that other tests did not hold up.
    for load, predicted_tpot_ms, tpot_ms in rows:
        assert predicted_tpot_ms == pytest.approx(tpot_ms, rel=0.3), load
