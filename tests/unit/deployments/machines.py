"""What this machine is taken to be, so that no test waits for a probe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.kernel import machine

PROJECT = "prj_default"


@pytest.fixture
def probed(data_dir: Path) -> None:
    """This machine has been measured: 46 GB/s and 0.139 TFLOP/s a core."""
    cores = machine.cores(machine.cgroup_limits())
    rates = {
        "memory_bandwidth_gb_per_s": 46.0 * cores,
        "matmul_float32_tflops": 0.139 * cores,
        "weight_products": None,
    }
    measured = {
        "cpu_model": machine.cpu_model(),
        "cores": cores,
        "rates": rates,
        "measured_at": "2026-11-25T00:00:00+00:00",
    }
    (data_dir / "hardware_probe.json").write_text(json.dumps(measured))
