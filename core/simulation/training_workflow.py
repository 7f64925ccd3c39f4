"""The job that trains: each step is a child process at low priority, see `training_process`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from core.jobs import Progress, Run, Step, workflow
from core.kernel import database
from core.kernel.errors import BudError
from core.kernel.settings import ROOT
from core.simulation import crud

MODULE = "core.simulation.training_process"


def _forget(training_id: str) -> None:
    """A cancelled training has no model, also when it was cancelled as it wrote it."""
    with database.transaction() as tx:
        crud.forget_training_results(tx, training_id)


@workflow(
    "simulation.train",
    steps=(
        Step("calibrate", "Calibrate the roofline", typical_s=8),
        Step("hold-out", "Hold out and compare", typical_s=40),
        Step("learn", "Train the learners", typical_s=8),
    ),
    on_cancel=_forget,
)
def train(run: Run, training_id: str) -> None:
    """Train on the rows that ship and those of a training; the model stands in its row."""
    found: dict[str, Any] = {}
    for part in ("calibrate", "hold-out", "learn"):
        found |= run.step(part, _in_child, training_id, part, found)


def _in_child(
    progress: Progress, training_id: str, part: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    with subprocess.Popen(
        [sys.executable, "-m", MODULE, part, training_id],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as child:
        try:
            progress.track(child.pid)
            return _heard(progress, child, given)
        finally:
            # Its workers too. The number is its own until it is waited for.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            progress.untrack(child.pid)


def _heard(
    progress: Progress, child: subprocess.Popen[str], given: Mapping[str, Any]
) -> dict[str, Any]:
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(BrokenPipeError):
        child.stdin.write(json.dumps(given))
        child.stdin.close()
    for line in child.stdout:
        said = _said(line)
        if "fraction" in said:
            progress.update(said["fraction"], said["detail"])
        elif "error" in said:
            raise BudError(said["error"], remedy=said["remedy"])
        elif "value" in said:
            value: dict[str, Any] = said["value"]
            return value
        else:
            progress.log(line.rstrip(), "warning")
    progress.check()
    raise BudError(
        f"The process that trains ended with status {child.wait()}.",
        remedy="The job's log has what it said. Retry; it may have been short of memory.",
    )


def _said(line: str) -> dict[str, Any]:
    """What a line says; nothing where it is no message, but a library's warning."""
    try:
        said = json.loads(line)
    except json.JSONDecodeError:
        return {}
    return said if isinstance(said, dict) else {}
