"""Jobs over several processes that are killed, stopped, or lose their database."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from core import jobs
from core.jobs import engine
from core.kernel import clock, database
from core.kernel.actor import Actor
from core.kernel.settings import ROOT

sys.path.insert(0, str(ROOT / "tests" / "unit" / "jobs"))
import job_process as kinds

from tests.machine import slowness


def _wait(check: Callable[[], object], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def _start(actor: Actor, workflow: jobs.Workflow, word: str = "word") -> str:
    return jobs.start(
        actor,
        workflow,
        project_id="prj_a",
        title="A test",
        subject=f"test:{word}",
        arguments={"word": word},
    )


@contextmanager
def _runner() -> Iterator[subprocess.Popen[bytes]]:
    """Another process that runs jobs on this test's data folder; killed at the end."""
    process = subprocess.Popen([sys.executable, str(kinds.__file__)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def _launched(data_dir: Path) -> Iterator[None]:
    engine.launch()
    try:
        yield
    finally:
        engine.shutdown()


def _tree(admin: Actor, job_id: str) -> list[psutil.Process]:
    """The processes of the job's first step: the child and what it started."""
    _wait(lambda: jobs.logs(admin, job_id))
    child = psutil.Process(int(jobs.logs(admin, job_id)[0].line.split()[1]))
    _wait(lambda: len(child.children(recursive=True)) == 2)
    return [child, *child.children(recursive=True)]


def _gone(processes: list[psutil.Process]) -> bool:
    return not any(
        process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes
    )


def test_cancel_ends_children_that_refuse_and_children_that_fled(
    data_dir: Path, admin: Actor
) -> None:
    with _launched(data_dir):
        job_id = _start(admin, kinds.child, "stubborn")
        tree = _tree(admin, job_id)
        asked_s = time.monotonic()
        jobs.cancel(admin, job_id)
        _wait(lambda: jobs.get(admin, job_id).state == "cancelled")
        assert time.monotonic() - asked_s < 3 * slowness()
        _wait(lambda: _gone(tree), timeout_s=2 * slowness())
        assert (data_dir / "undone-stubborn").exists()


def test_what_a_killed_app_left_running_is_ended_before_its_step_runs_again(
    data_dir: Path, admin: Actor
) -> None:
    job_id = _start(admin, kinds.child)
    with _runner() as first:
        tree = _tree(admin, job_id)
        first.kill()
        first.wait()
    assert not _gone(tree)
    (data_dir / "gate").touch()
    with _launched(data_dir):
        _wait(lambda: jobs.get(admin, job_id).state == "succeeded")
        assert _gone(tree)
        assert jobs.get(admin, job_id).steps[0].runs == 2


def test_a_job_cancelled_while_the_app_was_dead_ends_with_its_processes(
    data_dir: Path, admin: Actor
) -> None:
    job_id = _start(admin, kinds.child, "dead")
    with _runner() as first:
        tree = _tree(admin, job_id)
        first.kill()
        first.wait()
    jobs.cancel(admin, job_id)
    with _launched(data_dir):
        _wait(lambda: jobs.get(admin, job_id).state == "cancelled")
        assert _gone(tree)
        assert (data_dir / "undone-dead").exists()


def test_a_stop_interrupts_and_the_next_start_goes_on(data_dir: Path, admin: Actor) -> None:
    job_id, tree_job = _start(admin, kinds.two_steps), _start(admin, kinds.child, "stopped")
    with _launched(data_dir):
        _wait(lambda: jobs.get(admin, job_id).steps[1].state == "running")
        tree = _tree(admin, tree_job)
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 5 * slowness()
    assert _gone(tree)
    for stopped in (job_id, tree_job):
        view = jobs.get(admin, stopped)
        assert (view.state, view.error) == ("running", None)
    (data_dir / "gate").touch()
    with _launched(data_dir):
        _wait(lambda: jobs.get(admin, job_id).state == "succeeded")
        _wait(lambda: jobs.get(admin, tree_job).state == "succeeded")
    assert [step.runs for step in jobs.get(admin, job_id).steps] == [1, 2]
    assert not (data_dir / "undone-stopped").exists()


def test_a_job_cancelled_before_it_ran_is_cleaned_up_by_the_next_app(
    data_dir: Path, admin: Actor
) -> None:
    job_id = _start(admin, kinds.child, "queued")
    jobs.cancel(admin, job_id)
    assert jobs.get(admin, job_id).state == "cancelled"
    assert not (data_dir / "undone-queued").exists()
    with _launched(data_dir):
        _wait(lambda: (data_dir / "undone-queued").exists())
    assert jobs.get(admin, job_id).steps[0].state == "pending"


def test_any_process_can_retry_without_knowing_the_workflow(data_dir: Path, admin: Actor) -> None:
    (data_dir / "allowed").touch()
    job_id = _start(admin, kinds.refuse)
    with database.transaction() as tx:
        row = tx.get_one(engine.Job, job_id)
        row.state, row.ended_at = "failed", clock.now()
    asked = (
        "from core import jobs; from core.kernel.actor import Actor; "
        f"print(jobs.retry(Actor.system(), {job_id!r}))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True
    )
    again = answer.stdout.strip()
    with _launched(data_dir):
        _wait(lambda: jobs.get(admin, again).state == "succeeded")
    assert jobs.get(admin, again).retry_of == job_id


def test_without_its_own_database_the_engine_begins_a_running_job_anew(
    data_dir: Path, admin: Actor
) -> None:
    job_id = _start(admin, kinds.two_steps)
    with _runner() as first:
        _wait(lambda: jobs.get(admin, job_id).steps[1].state == "running")
        first.kill()
        first.wait()
    for file in data_dir.glob("jobs.db*"):
        file.unlink()
    (data_dir / "gate").touch()
    with _launched(data_dir):
        _wait(lambda: jobs.get(admin, job_id).state == "succeeded")
    assert [step.runs for step in jobs.get(admin, job_id).steps] == [2, 2]


def test_a_job_whose_end_could_not_be_written_is_closed(
    data_dir: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data_dir / "gate").touch()
    finish = engine._finish
    full = [True]

    def disk_full(job: object, state: str, *rest: object) -> None:
        if full and full.pop():
            raise OSError(28, "No space left on device")
        finish(job, state, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "_finish", disk_full)
    job_id = _start(admin, kinds.two_steps)
    with _launched(data_dir):
        _wait(lambda: not jobs.get(admin, job_id).is_active)
    view = jobs.get(admin, job_id)
    assert (view.state, view.error) == ("failed", "The job ended without an outcome.")
    assert "Retry" in str(view.remedy)


def test_an_unforeseen_error_is_in_the_log_and_a_missing_workflow_is_named(
    data_dir: Path, admin: Actor
) -> None:
    broken = _start(admin, kinds.breaks)
    unknown = _start(admin, jobs.Workflow("test.removed", (), lambda _run, **_words: None))
    with _launched(data_dir):
        _wait(lambda: not jobs.get(admin, broken).is_active)
        _wait(lambda: not jobs.get(admin, unknown).is_active)
    view = jobs.get(admin, broken)
    assert view.error == "RuntimeError: something unforeseen"
    assert "log" in str(view.remedy)
    assert any("in _break" in line.line for line in jobs.logs(admin, broken))
    # 200 updates in a few milliseconds: only the first was written.
    assert view.steps[0].detail == "word 0"
    assert "no workflow 'test.removed'" in str(jobs.get(admin, unknown).error)


def test_a_process_that_stops_does_not_wait_for_its_steps(data_dir: Path, admin: Actor) -> None:
    job_id = _start(admin, kinds.two_steps)
    with _runner() as process:
        _wait(lambda: jobs.get(admin, job_id).steps[1].state == "running")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert jobs.get(admin, job_id).state == "running"


def test_no_more_than_four_run_at_once_and_the_rest_follow(data_dir: Path, admin: Actor) -> None:
    ids = [_start(admin, kinds.two_steps, f"w{number}") for number in range(6)]
    with _launched(data_dir):
        _wait(lambda: sum(jobs.get(admin, job).state == "running" for job in ids) == 4)
        time.sleep(1.2)
        assert [jobs.get(admin, job).state for job in ids] == ["running"] * 4 + ["queued"] * 2
        (data_dir / "gate").touch()
        _wait(lambda: all(jobs.get(admin, job).state == "succeeded" for job in ids))
