"""A restart of workers one by one, when one of them dies or hangs in the middle of it."""

from __future__ import annotations

import subprocess
import sys

from app.parts import Started
from app.rolling import LEAVE_S, Place, Rolling
from gateway.config import Timeouts


class _Ready(Started):
    @property
    def is_ready(self) -> bool:
        return True


def test_the_successor_of_a_worker_that_dies_takes_no_other_workers_place() -> None:
    made: list[subprocess.Popen[bytes]] = []

    def process() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
        made.append(subprocess.Popen(command))
        return made[-1]

    begun: dict[str, list[Started]] = {"first": [], "second": []}
    put: list[Started] = []

    def start(name: str) -> Started:
        begun[name].append(_Ready(process()))
        return begun[name][-1]

    try:
        first: list[subprocess.Popen[bytes] | None] = [process()]
        second = process()
        rolling = Rolling(lambda _: None)
        rolling.begin(
            [
                Place("First", lambda: start("first"), lambda: first[0], put.append),
                Place("Second", lambda: start("second"), lambda: second, put.append),
            ]
        )
        rolling.advance()
        assert len(begun["first"]) == 1
        first[0] = None
        while not rolling.done:
            rolling.advance()
        assert put == begun["second"]
        assert begun["first"][0].process.wait(timeout=60) < 0, "nobody would ever end it"
    finally:
        for each in made:
            each.kill()
            each.wait()


def test_a_worker_that_hangs_when_it_is_replaced_is_killed() -> None:
    # It says that it hears nobody, then waits for ever.
    deaf = (
        "import signal, time; signal.signal(signal.SIGUSR1, signal.SIG_IGN); "
        "print(flush=True); time.sleep(600)"
    )
    hanging = subprocess.Popen([sys.executable, "-S", "-c", deaf], stdout=subprocess.PIPE)
    successor = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    said: list[str] = []
    try:
        assert hanging.stdout is not None
        hanging.stdout.readline()
        rolling = Rolling(said.append, leave_s=0.0)
        rolling.begin(
            [Place("Gateway", lambda: _Ready(successor), lambda: hanging, lambda _: None)]
        )
        while not rolling.done:
            rolling.advance()
        assert hanging.wait(timeout=60) < 0
        assert str(hanging.pid) in "".join(said)
        rolling.advance()
        assert rolling.leaving == []
    finally:
        for each in (hanging, successor):
            each.kill()
            each.wait()


def test_no_worker_is_killed_while_it_may_still_answer_its_callers() -> None:
    own = Timeouts()
    assert own.handover_s + own.drain_s < LEAVE_S
