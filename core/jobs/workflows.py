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

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.jobs import crud, processes
from core.kernel import database
from core.kernel.errors import BudError, InvalidInput

_WRITE_INTERVAL_S = 0.25
_TERM_GRACE_S = 1.0


class JobCancelled(Exception):
    """Somebody cancelled the job; raised inside the running step."""


class JobInterrupted(BaseException):
    """The app stops; the job goes on at this step when it is back.

    Not an Exception: neither the step nor DBOS may take it for the step's outcome.
    """


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
        on_cancel: Called with the same arguments once a cancelled job has stopped, before it
            counts as cancelled. It may run twice, and before the first step ever ran.
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

    stop: threading.Event = field(default_factory=threading.Event)
    cancelled: bool = False
    interrupted: bool = False
    groups: dict[int, float | None] = field(default_factory=dict)

    def cancel(self) -> None:
        """Tell the step that somebody cancelled, and end the processes it started."""
        self.cancelled = True
        self.stop.set()
        processes.end(list(self.groups), _TERM_GRACE_S)

    def interrupt(self) -> None:
        """Tell the step that the app stops, and end the processes it started."""
        self.interrupted = True
        self.stop.set()
        processes.end(list(self.groups), _TERM_GRACE_S)

    def check(self) -> None:
        """Raise when the job shall stop."""
        if self.cancelled:
            raise JobCancelled
        if self.interrupted:
            raise JobInterrupted


class Progress:
    """What a running step says about itself."""

    def __init__(self, job_id: str, step: str, control: Control) -> None:
        self.job_id = job_id
        self._step = step
        self._control = control
        self._written_s = 0.0
        self._written_fraction: float | None = None

    def update(self, fraction: float | None, detail: str = "") -> None:
        """Say how far it is (0 to 1, None when unknown); writes at most four times a second."""
        self.check()
        if fraction is not None:
            fraction = min(max(fraction, 0.0), 1.0)
        now_s = time.monotonic()
        ends = fraction == 1 and self._written_fraction != 1
        if now_s - self._written_s < _WRITE_INTERVAL_S and not ends:
            return
        self._written_s, self._written_fraction = now_s, fraction
        with database.transaction() as tx:
            crud.set_step(tx, self.job_id, self._step, fraction=fraction, detail=detail)

    def log(self, line: str, level: str = "info") -> None:
        """Append a line to the job's log."""
        with database.transaction() as tx:
            crud.add_log(tx, self.job_id, level, line)

    def check(self) -> None:
        """Raise JobCancelled when somebody asked to cancel; call it often."""
        self._control.check()

    @property
    def cancelled(self) -> bool:
        """Whether the step shall stop, because somebody cancelled or the app stops."""
        return self._control.stop.is_set()

    def sleep(self, seconds: float) -> None:
        """Wait, but not longer than until the job is cancelled."""
        self._control.stop.wait(seconds)
        self.check()

    def track(self, process_group: int) -> None:
        """Register a process group of this step: a cancel ends it, with all it started.

        It is also ended before the step runs again after the app was killed.
        """
        if process_group in self._control.groups:
            return
        self._control.groups[process_group] = processes.leader_started_s(process_group)
        self._save_groups()
        if self._control.stop.is_set():
            # It started while the others were being ended.
            processes.end([process_group], grace_s=0)

    def untrack(self, process_group: int) -> None:
        """Forget a process group that has ended."""
        if process_group in self._control.groups:
            del self._control.groups[process_group]
            self._save_groups()

    def _save_groups(self) -> None:
        groups = list(self._control.groups.items())
        with database.transaction() as tx:
            crud.set_step(tx, self.job_id, self._step, process_groups=groups)


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
            JobInterrupted: The app stops.
        """
        self._control.check()
        outcome = self._run_once(name, lambda: self._attempt(name, function, arguments))
        # Only now that its result is remembered: a step shown as done is never run again.
        self._end(name, outcome["state"])
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
            log_traceback(self.job_id, error)
        # A step whose processes were ended may look failed, or even done.
        if self._control.cancelled:
            outcome = {"state": "cancelled"}
        elif self._control.interrupted:
            raise JobInterrupted
        return outcome

    def _begin(self, name: str) -> None:
        self._control.groups.clear()
        with database.transaction() as tx:
            crud.begin_step(tx, self.job_id, name)

    def _end(self, name: str, state: str) -> None:
        with database.transaction() as tx:
            crud.end_step(tx, self.job_id, name, state)


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


def log_traceback(job_id: str, error: Exception) -> None:
    """Write where an unexpected error came from into the job's log."""
    with database.transaction() as tx:
        for line in "".join(traceback.format_exception(error)).splitlines():
            crud.add_log(tx, job_id, "error", line)
