"""A process that runs jobs, for tests that kill it: `python job_process.py`."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from core import jobs
from core.jobs import engine
from core.kernel.errors import InvalidInput
from core.kernel.settings import settings

STEPS = (jobs.Step("first", "First", typical_s=1), jobs.Step("second", "Second", typical_s=1))


def _first(progress: jobs.Progress, word: str) -> str:
    progress.log(f"first {word}")
    return word.upper()


def _second(progress: jobs.Progress, word: str) -> str:
    progress.log(f"second {word}")
    gate = settings().data_dir / "gate"
    while not gate.exists():
        progress.update(0.5, "waiting for the gate")
        time.sleep(0.05)
    return word


@jobs.workflow("test.two_steps", steps=STEPS)
def two_steps(run: jobs.Run, word: str) -> None:
    run.step("second", _second, run.step("first", _first, word))


# Ignores SIGTERM, and starts one grandchild in its group and one in a session of its own; what
# a failing test leaves of it ends by itself.
_STUBBORN = "trap '' TERM; sleep 60 & setsid sleep 60 & wait"


def _child(progress: jobs.Progress, _word: str) -> None:
    if (settings().data_dir / "gate").exists():
        return
    child = subprocess.Popen(["sh", "-c", _STUBBORN], start_new_session=True)
    progress.track(child.pid)
    progress.log(f"child {child.pid}")
    child.wait()


def _undo(word: str) -> None:
    (settings().data_dir / f"undone-{word}").touch()


@jobs.workflow("test.child", steps=(jobs.Step("child", "Child"),), on_cancel=_undo)
def child(run: jobs.Run, word: str) -> None:
    run.step("child", _child, word)


def _break(progress: jobs.Progress, word: str) -> None:
    for number in range(200):
        progress.update(number / 200, f"{word} {number}")
    raise RuntimeError("something unforeseen")


@jobs.workflow("test.break", steps=(jobs.Step("break", "Break"),))
def breaks(run: jobs.Run, word: str) -> None:
    run.step("break", _break, word)


def _refuse(_progress: jobs.Progress, word: str) -> None:
    if not (settings().data_dir / "allowed").exists():
        raise InvalidInput("This word is not allowed.", value=word, remedy="Use another one.")


@jobs.workflow("test.refuse", steps=(jobs.Step("refuse", "Refuse"),))
def refuse(run: jobs.Run, word: str) -> None:
    run.step("refuse", _refuse, word)


if __name__ == "__main__":
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    engine.launch()
    asked.wait(600)
    engine.shutdown()
