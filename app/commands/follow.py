"""Watching a job from the command line: its steps as they go, then how it ended."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from app import formats
from app.commands import context, output
from core.kernel.errors import BudError, Unavailable

if TYPE_CHECKING:
    from core.jobs.schemas import JobView, StepView
    from core.kernel.actor import Actor

_POLL_S = 0.3
_MARKS = {"succeeded": "✓", "failed": "✗", "cancelled": "–", "running": "…", "pending": "·"}


class JobFailed(BudError):
    """A job that was waited for has failed or was cancelled."""

    code = "job_failed"


def job(actor: Actor, job_id: str) -> JobView:
    """Wait for a job, with its steps on standard error; the job when it has succeeded.

    Raises:
        JobFailed: It failed or was cancelled; with the job's own remedy.
        Unavailable: Bud does not run, so that nothing would ever happen.
    """
    from core import jobs

    _require_running(job_id)
    shown: dict[str, str] = {}
    while True:
        view = jobs.get(actor, job_id)
        for step in view.steps:
            _show_step(step, shown)
        if not view.is_active:
            break
        _show_now(view)
        time.sleep(_POLL_S)
    if view.state != "succeeded":
        raise JobFailed(
            view.error or f"{view.title}: the job was {view.state}.",
            remedy=view.remedy or f"See: bud jobs logs {job_id} — then: bud jobs retry {job_id}",
        )
    return view


def _require_running(job_id: str) -> None:
    if not context.is_running():
        raise Unavailable(
            f"Job {job_id} is queued, but Bud does not run, so nothing works on it.",
            remedy="Start Bud with: bud up — the job goes on then.",
        )


def _show_step(step: StepView, shown: dict[str, str]) -> None:
    if step.state in ("pending", "running") or shown.get(step.name) == step.state:
        return
    shown[step.name] = step.state
    took = formats.NONE
    if step.started_at and step.ended_at:
        took = formats.duration((step.ended_at - step.started_at).total_seconds())
    _clear_line()
    output.note(f"  {_MARKS[step.state]} {step.title:<44} {took:>9}  {step.detail}".rstrip())


def _show_now(view: JobView) -> None:
    if not sys.stderr.isatty():
        return
    running = next((step for step in view.steps if step.state == "running"), None)
    what = f"{running.title} {running.detail}" if running else f"{view.title}: {view.state}"
    eta = f", about {formats.duration(view.eta_s)} left" if view.eta_s else ""
    sys.stderr.write(f"\r\033[K  … {what}{eta}"[:110])
    sys.stderr.flush()


def _clear_line() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\r\033[K")


def steps_text(view: JobView) -> str:
    """The steps of a job, one a line."""
    lines = []
    for step in view.steps:
        share = f" {formats.percent(step.fraction)}" if step.fraction is not None else ""
        lines.append(f"  {_MARKS[step.state]} {step.title}{share}  {step.detail}".rstrip())
    return "\n".join(lines)
