"""The dispatcher: runs queued jobs on DBOS, in the app process only.

DBOS remembers which steps of a job are done, so that a killed app goes on at the step it was
in. The job rows are the queue: a job started by any process, with or without a running app, is
picked up here, and one whose hand-over to DBOS was cut short is handed over again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from dbos import DBOS, DBOSConfig, SetWorkflowID

from core.jobs import crud, workflows
from core.jobs.models import Job
from core.jobs.workflows import Control, JobCancelled, Run, failure
from core.kernel import clock, database, events
from core.kernel.errors import BudError

log = logging.getLogger(__name__)

MAX_RUNNING = 4
_POLL_S = 0.5
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
        """Stop dispatching; running jobs are left to be resumed at the next start."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=5)
        DBOS.destroy(workflow_completion_timeout_sec=0)

    def wake(self) -> None:
        """Look for new work now."""
        self._wake.set()

    def control(self, job_id: str) -> Control:
        """The live side of a job that begins to run."""
        with self._lock:
            return self._controls.setdefault(job_id, Control())

    def forget(self, job_id: str) -> None:
        """A job has ended."""
        with self._lock:
            self._controls.pop(job_id, None)
        self.wake()

    def _loop(self) -> None:
        while not self._stopping.is_set():
            try:
                self._cancel_asked()
                self._dispatch()
            except Exception:
                log.exception("the job dispatcher will try again")
            self._wake.wait(_POLL_S)
            self._wake.clear()

    def _cancel_asked(self) -> None:
        with self._lock:
            running = dict(self._controls)
        if not running:
            return
        with database.reading() as session:
            asked = crud.asked_to_cancel(session, list(running))
        for job_id in asked:
            if not running[job_id].cancelled.is_set():
                running[job_id].cancel()

    def _dispatch(self) -> None:
        with self._lock:
            free = MAX_RUNNING - len(self._controls)
        if free <= 0:
            return
        with database.reading() as session:
            waiting = crud.waiting(session)
        for job_id in [job_id for job_id in waiting if job_id not in self._controls][:free]:
            self.control(job_id)
            with SetWorkflowID(job_id):
                DBOS.start_workflow(_execute, job_id)


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


def _execute(job_id: str) -> None:
    """The one DBOS workflow: runs the job's own workflow function, and never raises."""
    assert _engine is not None
    control = _engine.control(job_id)
    try:
        job = _begin(job_id)
        if job is not None:
            _run(job, control)
    finally:
        _engine.forget(job_id)


def _begin(job_id: str) -> Job | None:
    with database.transaction() as tx:
        job = crud.job(tx, job_id)
        if job is None or job.ended_at is not None:
            return None
        job.state = "running"
        job.started_at = job.started_at or clock.now()
        return job


def _run(job: Job, control: Control) -> None:
    if job.cancel_requested:
        control.cancelled.set()
    try:
        workflow = workflows.registered(job.kind)
        workflow.function(Run(job.id, control, _run_once), **job.arguments)
    except JobCancelled:
        _finish(job, "cancelled")
        if workflow.on_cancel is not None:
            workflow.on_cancel(**job.arguments)
    except BudError as error:
        _finish(job, "failed", failure(error))
    except Exception as error:
        log.exception("job %s failed", job.id)
        _finish(job, "failed", failure(error))
    else:
        _finish(job, "succeeded")


def _run_once(name: str, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return DBOS.run_step({"name": name}, call)


def _finish(job: Job, state: str, outcome: dict[str, Any] | None = None) -> None:
    with database.transaction() as tx:
        row = crud.job(tx, job.id)
        assert row is not None
        row.state, row.ended_at = state, clock.now()
        if outcome is not None:
            row.error, row.remedy = outcome["error"], outcome["remedy"]
        crud.end_open_steps(tx, job.id, state)
    events.publish("jobs.ended", job_id=job.id, subject=job.subject, state=state)
