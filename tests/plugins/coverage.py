"""Branch coverage, in the workers: with slipcover's variables, which `bud test --coverage` sets.

Slipcover's own command would also read all sources anew at the end, in the process that only hands
out tests, while nothing else runs.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import slipcover
from slipcover import pytest_plugin

_COLLECTED = "SLIPCOVER_COVERAGE_DIR"
# A line's probe is taken out once it was called so often. To take some out, slipcover goes through
# all functions there are, which takes as long as 100,000 calls and more of a probe.
_CALLS = 5_000


def pytest_configure() -> None:
    measuring = pytest_plugin._slipcover_instance
    if measuring is not None:
        measuring.d_miss_threshold = _CALLS


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what slipcover's plugin has put together of all workers."""
    # Workers write no summary that is seen, but are asked for one.
    if _COLLECTED not in os.environ or hasattr(config, "workerinput"):
        return
    folder = Path(os.environ[_COLLECTED])
    merged = folder / "merged.json"
    if merged.exists():
        terminalreporter.section("coverage")
        slipcover.print_coverage(
            json.loads(merged.read_text()), skip_covered=True, missing_width=60
        )
    shutil.rmtree(folder, ignore_errors=True)
