"""How a workflow is written: named steps, each with its progress.

```python
@workflow("model.add", steps=(Step("copy", "Copy the file", typical_s=5),))
def add(run: Run, model_id: str) -> None:
    run.step("copy", _copy, model_id)
```

A step is a plain function `(progress, *arguments)` that returns something JSON can hold. It may
run twice: after a kill it starts again, while the steps before it are not repeated.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.jobs import crud
from core.kernel import clock, database
from core.kernel.errors import BudError, InvalidInput

_WRITE_INTERVAL_S = 0.25
_TERM_GRACE_S = 1.0


class JobCancelled(Exception):
    """Somebody cancelled the job; raised inside the running step."""


@dataclass(frozen=True)
class Step:
    """A step as a page shows it; `typical_s` is the first guess of its duration in seconds."""

    name: str
    title: str
    typical_s: float = 2.0


@dataclass(frozen=True)
class Workflow:
    """A kind of job: its steps, its function, and what to undo when it is cancelled."""

    kind: str
    steps: tuple[Step, ...]
    function: Callable[..., None]
    on_cancel: Callable[..., None] | None = None


_workflows: dict[str, Workflow] = {}


def workflow(
    kind: str, *, steps: tuple[Step, ...], on_cancel: Callable[..., None] | None = None
) -> Callable[[Callable[..., None]], Workflow]:
    """Register a workflow function `(run, **arguments)`.

    Args:
        kind: `domain.verb`, unique; stored with each job, so it must not change.
        steps: The steps in order; the function runs each of them at most once.
        on_cancel: Called with the same arguments after a cancelled job has stopped.
    """

    def register(function: Callable[..., None]) -> Workflow:
        made = Workflow(kind, steps, function, on_cancel)
        _workflows[kind] = made
        return made

    return register


def registered(kind: str) -> Workflow:
    """The workflow of this kind; InvalidInput when this version of Bud has none."""
    try:
        return _workflows[kind]
    except KeyError:
        raise InvalidInput(
            f"This version of Bud has no workflow {kind!r}.",
            remedy="Start the work again from its page.",
        ) from None


@dataclass
class Control:
    """The live side of a running job: whether it shall stop, and which processes it started."""

    cancelled: threading.Event = field(default_factory=threading.Event)
    groups: set[int] = field(default_factory=set)

    def cancel(self) -> None:
        """Tell the step to stop, and end the process groups it started."""
        self.cancelled.set()
        for send in (signal.SIGTERM, signal.SIGKILL):
            for group in list(self.groups):
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, send)
            if self.groups and send == signal.SIGTERM:
                time.sleep(_TERM_GRACE_S)


class Progress:
    """What a running step says about itself."""

    def __init__(self, job_id: str, step: str, control: Control) -> None:
        self.job_id = job_id
        self._step = step
        self._control = control
        self._written_s = 0.0

    def update(self, fraction: float | None, detail: str = "") -> None:
        """Say how far it is (0 to 1, None when unknown); writes at most four times a second."""
        self.check()
        now_s = time.monotonic()
        if now_s - self._written_s < _WRITE_INTERVAL_S and fraction != 1:
            return
        self._written_s = now_s
        with database.transaction() as tx:
            crud.set_step(tx, self.job_id, self._step, fraction=fraction, detail=detail)

    def log(self, line: str, level: str = "info") -> None:
        """Append a line to the job's log."""
        with database.transaction() as tx:
            crud.add_log(tx, self.job_id, level, line)

    def check(self) -> None:
        """Raise JobCancelled when somebody asked to cancel; call it often."""
        if self._control.cancelled.is_set():
            raise JobCancelled

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to cancel."""
        return self._control.cancelled.is_set()

    def sleep(self, seconds: float) -> None:
        """Wait, but not longer than until the job is cancelled."""
        self._control.cancelled.wait(seconds)
        self.check()

    def track(self, process_group: int) -> None:
        """Register a process group of this step; a cancel ends it."""
        self._control.groups.add(process_group)

    def untrack(self, process_group: int) -> None:
        """Forget a process group that has ended."""
        self._control.groups.discard(process_group)


class StepRunner(Protocol):
    """Runs `call` once and remembers its result under `name` across restarts."""

    def __call__(self, name: str, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Run, or give back the remembered result."""


class Run:
    """A job that runs: what a workflow function gets."""

    def __init__(self, job_id: str, control: Control, run_once: StepRunner) -> None:
        self.job_id = job_id
        self._control = control
        self._run_once = run_once

    def step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run one step, or give back its result when it was done before a restart.

        Raises:
            BudError: What the step raised.
            JobCancelled: The job was cancelled.
        """
        if self._control.cancelled.is_set():
            raise JobCancelled
        outcome = self._run_once(name, lambda: self._attempt(name, function, arguments))
        if outcome["state"] == "cancelled":
            raise JobCancelled
        if outcome["state"] == "failed":
            raise BudError(outcome["error"], remedy=outcome["remedy"])
        return outcome["value"]

    def _attempt(
        self, name: str, function: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> dict[str, Any]:
        self._begin(name)
        outcome: dict[str, Any]
        try:
            value = function(Progress(self.job_id, name, self._control), *arguments)
            outcome = {"state": "succeeded", "value": value}
        except JobCancelled:
            outcome = {"state": "cancelled"}
        except BudError as error:
            outcome = failure(error)
        except Exception as error:  # noqa: BLE001 (a step's fault must end its job, not the app)
            outcome = failure(error)
            _log_traceback(self.job_id, error)
        # A step whose processes a cancel ended may look failed, or even done.
        if self._control.cancelled.is_set():
            outcome = {"state": "cancelled"}
        self._end(name, outcome["state"])
        return outcome

    def _begin(self, name: str) -> None:
        from core.jobs.models import JobStep

        with database.transaction() as tx:
            crud.set_step(
                tx,
                self.job_id,
                name,
                state="running",
                runs=JobStep.runs + 1,
                fraction=None,
                detail="",
                started_at=clock.now(),
                ended_at=None,
            )

    def _end(self, name: str, state: str) -> None:
        values: dict[str, object] = {"state": state, "ended_at": clock.now()}
        if state == "succeeded":
            values["fraction"] = 1.0
        with database.transaction() as tx:
            crud.set_step(tx, self.job_id, name, **values)


def failure(error: Exception) -> dict[str, Any]:
    """A failed outcome, in the words of the error."""
    if isinstance(error, BudError):
        what = error.what
        if error.value is not None and str(error.value) not in what:
            what = f"{what} (got: {error.value})"
        return {"state": "failed", "error": what, "remedy": error.remedy}
    return {
        "state": "failed",
        "error": f"{type(error).__name__}: {error}",
        "remedy": "This is a fault in Bud. The job's log has the details; retry, and report it.",
    }


def _log_traceback(job_id: str, error: Exception) -> None:
    import traceback

    with database.transaction() as tx:
        for line in "".join(traceback.format_exception(error)).splitlines():
            crud.add_log(tx, job_id, "error", line)
