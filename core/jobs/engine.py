"""The dispatcher: runs queued jobs on DBOS, in the app process only.

DBOS remembers which steps of a job are done, so that a killed app goes on at the step it was
in. The job rows are the queue: a job started by any process, with or without a running app, is
picked up here, and one whose hand-over to DBOS was cut short is handed over again. Whatever
happens, a row ends: one that DBOS no longer works on is given to it again, or closed as failed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from dbos import DBOS, DBOSConfig, SetWorkflowID

from core.jobs import crud, processes, workflows
from core.jobs.models import Job
from core.jobs.workflows import Control, JobCancelled, JobInterrupted, Run, failure, log_traceback
from core.kernel import audit, clock, database, events
from core.kernel.actor import Actor
from core.kernel.errors import BudError

log = logging.getLogger(__name__)

MAX_RUNNING = 4
_POLL_S = 0.5
_STOP_TIMEOUT_S = 4.0
# Short transactions, so that running jobs can go on writing.
_PRUNE_BATCH = 200
# What DBOS says of a workflow that it will run, or runs.
_ALIVE = frozenset({"ENQUEUED", "DELAYED", "PENDING"})
# Pinned: DBOS resumes only workflows of the same version and executor (see the design).
_CONFIG_NAME = "bud"
_APPLICATION_VERSION = "1"
_EXECUTOR_ID = "app"


class Engine:
    """Owns DBOS and the dispatcher thread."""

    def __init__(self) -> None:
        self._controls: dict[str, Control] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="jobs", daemon=True)

    def launch(self) -> None:
        """Start DBOS, which resumes what was running, then the dispatcher."""
        config: DBOSConfig = {
            "name": _CONFIG_NAME,
            "system_database_url": database.jobs_database_url(),
            "system_database_engine": database.engine(database.jobs_database_url()),
            "application_version": _APPLICATION_VERSION,
            "executor_id": _EXECUTOR_ID,
            "enable_otlp": False,
            "console_log_level": "WARNING",
            "max_executor_threads": MAX_RUNNING * 2,
        }
        DBOS(config=config)
        DBOS.workflow(name="bud_job")(_execute)
        DBOS.launch()
        events.subscribe("jobs.changed", self.wake)
        self._thread.start()

    def shutdown(self) -> None:
        """Interrupt what runs, to be resumed at the next start, and stop."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=_STOP_TIMEOUT_S)
        for control in self._running().values():
            _in_background(control.interrupt)
        deadline_s = time.monotonic() + _STOP_TIMEOUT_S
        while self._running() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        DBOS.destroy(workflow_completion_timeout_sec=0)

    def wake(self) -> None:
        """Look for new work now."""
        self._wake.set()

    def control(self, job_id: str) -> Control:
        """The live side of a job that begins to run."""
        with self._lock:
            control = self._controls.setdefault(job_id, Control())
        if self._stopping.is_set():
            control.interrupt()
        return control

    def forget(self, job_id: str) -> None:
        """A job has ended."""
        with self._lock:
            self._controls.pop(job_id, None)
        self.wake()

    def _running(self) -> dict[str, Control]:
        with self._lock:
            return dict(self._controls)

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self._cancel_asked()
                _clean_up()
                self._dispatch()
            except Exception:
                log.exception("the job dispatcher will try again")
            self._wake.wait(_POLL_S)
            self._wake.clear()

    def _cancel_asked(self) -> None:
        running = self._running()
        if not running:
            return
        with database.reading() as session:
            asked = crud.asked_to_cancel(session, list(running))
        for job_id in asked:
            if not running[job_id].cancelled:
                running[job_id].cancelled = True
                _in_background(running[job_id].cancel)

    def _dispatch(self) -> None:
        # Read first: what ends meanwhile is in both, and not taken for lost.
        busy = self._running()
        with database.reading() as session:
            waiting, begun = crud.waiting(session), crud.running(session)
        for job_id in begun:
            if job_id not in busy:
                _settle(job_id)
        free = MAX_RUNNING - len(busy.keys() | set(begun))
        ready = [job_id for job_id in waiting if job_id not in busy]
        for job_id in ready[: max(free, 0)]:
            self._hand_over(job_id)

    def _hand_over(self, job_id: str) -> None:
        self.control(job_id)
        with SetWorkflowID(job_id):
            handle = DBOS.start_workflow(_execute, job_id)
        if handle.get_status().status not in _ALIVE:
            # DBOS ran it before, and will not again; or it was as quick as this.
            _close_lost(job_id)
            self.forget(job_id)


def _in_background(call: Callable[[], None]) -> None:
    threading.Thread(target=call, daemon=True).start()


def _settle(job_id: str) -> None:
    """Look after a job that counts as running, but that no thread of this process runs."""
    status = DBOS.get_workflow_status(job_id)
    if status is None:
        # The job engine's database was lost: begin anew, the steps allow it.
        with database.transaction() as tx:
            crud.requeue(tx, job_id)
    elif status.status not in _ALIVE:
        _close_lost(job_id)


def _close_lost(job_id: str) -> None:
    with database.reading() as session:
        job = crud.job(session, job_id)
    if job is not None and job.ended_at is None:
        _finish(
            job,
            "failed",
            {
                "error": "The job ended without an outcome.",
                "remedy": "Retry it; the app's log (logs/app.log) says what went wrong.",
            },
        )


def _clean_up() -> None:
    """Call `on_cancel` for the jobs that were cancelled before they ran."""
    with database.reading() as session:
        due = crud.to_clean_up(session)
    for job in due:
        _undo(job)
        with database.transaction() as tx:
            row = crud.job(tx, job.id)
            assert row is not None
            row.cleanup_due = False


def _undo(job: Job) -> None:
    try:
        workflow = workflows.registered(job.kind)
        if workflow.on_cancel is not None:
            workflow.on_cancel(**job.arguments)
    except Exception as error:
        log.exception("cleaning up after job %s failed", job.id)
        log_traceback(job.id, error)


_engine: Engine | None = None


def launch() -> None:
    """Start the engine, after every workflows module has been imported."""
    global _engine
    _engine = Engine()
    _engine.launch()


def shutdown() -> None:
    """Stop the engine."""
    global _engine
    if _engine is not None:
        _engine.shutdown()
        _engine = None


def prune(actor: Actor, before: datetime) -> int:
    """Forget the jobs that ended before a moment, here and in DBOS; how many there were.

    Needs the running engine, which alone can write DBOS's database.
    """
    actor.require("job:delete")
    pruned = 0
    while True:
        with database.reading() as session:
            due = crud.ended_before(session, before, _PRUNE_BATCH)
        if not due:
            break
        # DBOS first: a job that is left over by a kill in between is found again.
        DBOS.delete_workflows(due)
        with database.transaction() as tx:
            crud.delete_jobs(tx, due)
        pruned += len(due)
    if pruned:
        with database.transaction() as tx:
            audit.record(tx, actor, "jobs.pruned", "jobs", before=before.isoformat(), jobs=pruned)
    return pruned


def _execute(job_id: str) -> None:
    """The one DBOS workflow: runs the job's own workflow function."""
    if _engine is None:
        raise JobInterrupted
    control = _engine.control(job_id)
    try:
        if control.interrupted:
            raise JobInterrupted
        job = _begin(job_id)
        if job is not None:
            _end_leftovers(job_id)
            _run(job, control)
    finally:
        if _engine is not None:
            _engine.forget(job_id)


def _begin(job_id: str) -> Job | None:
    with database.transaction() as tx:
        job = crud.job(tx, job_id)
        if job is None or job.ended_at is not None:
            return None
        job.state = "running"
        job.started_at = job.started_at or clock.now()
        return job


def _end_leftovers(job_id: str) -> None:
    """End what a killed app left running: it must not work beside the second run of its step."""
    with database.reading() as session:
        left = crud.process_groups(session, job_id)
    ours = [group for group, started_s in left if processes.still_ours(group, started_s)]
    processes.end(ours, grace_s=1.0)


def _run(job: Job, control: Control) -> None:
    control.cancelled = control.cancelled or job.cancel_requested
    try:
        workflow = workflows.registered(job.kind)
        workflow.function(Run(job.id, control, _run_once), **job.arguments)
    except JobCancelled:
        # Before it counts as cancelled: a retry must not meet its own clean-up.
        _undo(job)
        _finish(job, "cancelled")
    except BudError as error:
        _finish(job, "failed", failure(error))
    except Exception as error:
        if control.interrupted:
            raise JobInterrupted from error
        log.exception("job %s failed", job.id)
        log_traceback(job.id, error)
        _finish(job, "failed", failure(error))
    else:
        _finish(job, "succeeded")


def _run_once(name: str, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return DBOS.run_step({"name": name}, call)


def _finish(job: Job, state: str, outcome: dict[str, Any] | None = None) -> None:
    with database.transaction() as tx:
        row = crud.job(tx, job.id)
        if row is None or row.ended_at is not None:
            return
        row.state, row.ended_at = state, clock.now()
        if outcome is not None:
            row.error, row.remedy = outcome["error"], outcome["remedy"]
        crud.end_open_steps(tx, job.id, state)
    events.publish("jobs.ended", job_id=job.id, subject=job.subject, state=state)
