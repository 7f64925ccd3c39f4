from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from core import jobs
from core.jobs import engine
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, NotFound

sys.path.insert(0, str(Path(__file__).parent))
import job_process as kinds

from tests.machine import slowness

PROJECT = "prj_a"


def _wait(check: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def _start(actor: Actor, workflow: jobs.Workflow, word: str = "word") -> str:
    return jobs.start(
        actor,
        workflow,
        project_id=PROJECT,
        title="A test",
        subject="test:1",
        arguments={"word": word},
    )


@pytest.fixture
def running(data_dir: Path) -> Iterator[Path]:
    engine.launch()
    yield data_dir
    (data_dir / "gate").touch()
    engine.shutdown()


def test_steps_are_shown_live_and_kept_afterwards(running: Path, admin: Actor) -> None:
    job_id = _start(admin, kinds.two_steps)
    _wait(lambda: jobs.get(admin, job_id).steps[1].detail == "waiting for the gate")
    view = jobs.get(admin, job_id)
    assert [step.state for step in view.steps] == ["succeeded", "running"]
    assert view.steps[1].fraction == 0.5
    assert view.eta_s is not None
    (running / "gate").touch()
    _wait(lambda: jobs.get(admin, job_id).state == "succeeded")
    assert [line.line for line in jobs.logs(admin, job_id)] == ["first word", "second WORD"]
    assert jobs.get(admin, job_id).eta_s is None


def test_cancel_ends_the_whole_process_tree_and_undoes(running: Path, admin: Actor) -> None:
    job_id = _start(admin, kinds.child, "tree")
    _wait(lambda: jobs.logs(admin, job_id))
    child = psutil.Process(int(jobs.logs(admin, job_id)[0].line.split()[1]))
    tree = [child, *child.children(recursive=True)]
    jobs.cancel(admin, job_id)
    _wait(lambda: jobs.get(admin, job_id).state == "cancelled", timeout_s=4 * slowness())
    _wait(lambda: not any(process.is_running() for process in tree), timeout_s=3 * slowness())
    _wait(lambda: (running / "undone-tree").exists())


def test_a_failed_job_names_the_value_and_the_remedy_and_can_be_retried(
    running: Path, admin: Actor
) -> None:
    job_id = _start(admin, kinds.refuse, "blue")
    _wait(lambda: jobs.get(admin, job_id).state == "failed")
    view = jobs.get(admin, job_id)
    assert view.error == "This word is not allowed. (got: blue)"
    assert view.remedy == "Use another one."
    assert view.steps[0].state == "failed"
    (running / "allowed").touch()
    again = jobs.retry(admin, job_id)
    _wait(lambda: jobs.get(admin, again).state == "succeeded")
    assert (jobs.get(admin, again).attempt, jobs.get(admin, again).retry_of) == (2, job_id)
    with pytest.raises(Conflict):
        jobs.retry(admin, again)


def test_a_queued_job_is_cancelled_at_once(data_dir: Path, admin: Actor) -> None:
    job_id = _start(admin, kinds.two_steps)
    jobs.cancel(admin, job_id)
    assert jobs.get(admin, job_id).state == "cancelled"
    with pytest.raises(Conflict):
        jobs.cancel(admin, job_id)


def test_another_project_sees_nothing(data_dir: Path, admin: Actor) -> None:
    job_id = _start(admin, kinds.two_steps)
    stranger = Actor("usr_b", "b@example.org", admin.tenant_id, "member", {"prj_b": "admin"})
    with pytest.raises(NotFound):
        jobs.get(stranger, job_id)
    assert jobs.list_jobs(stranger, "prj_b") == []
    assert [job.id for job in jobs.list_jobs(admin, PROJECT)] == [job_id]


def test_after_kill_9_a_job_goes_on_at_the_step_it_was_in(data_dir: Path, admin: Actor) -> None:
    # Started here, run by another process: the row is the queue.
    job_id = _start(admin, kinds.two_steps)
    runner = [sys.executable, str(Path(__file__).parent / "job_process.py")]
    first = subprocess.Popen(runner)
    try:
        _wait(lambda: jobs.get(admin, job_id).steps[1].state == "running", timeout_s=120)
    finally:
        first.kill()
        first.wait()
    assert jobs.get(admin, job_id).state == "running"
    (data_dir / "gate").touch()
    second = subprocess.Popen(runner)
    try:
        _wait(lambda: jobs.get(admin, job_id).state == "succeeded", timeout_s=120)
    finally:
        second.kill()
        second.wait()
    assert [step.runs for step in jobs.get(admin, job_id).steps] == [1, 2]
    assert [line.line for line in jobs.logs(admin, job_id)] == [
        "first word",
        "second WORD",
        "second WORD",
    ]
