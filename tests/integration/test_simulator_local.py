"""Before any calibration, the starter model on this machine: predicted against measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.kernel.actor import Actor
from tests.benchmarks import simulator_local


# Other tests would take the time that it measures.
@pytest.mark.alone
def test_the_starter_model_is_predicted_within_30_percent_of_its_measured_tpot(
    data_dir: Path, admin: Actor
) -> None:
    rows = simulator_local.compare(admin)
    assert [row["isl"] for row in rows] == [16, 256]
    for row in rows:
        assert row["predicted_tpot_ms"] == pytest.approx(row["measured_tpot_ms"], rel=0.3), row
