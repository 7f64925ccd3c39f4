"""A restart of workers one by one, when one of them dies in the middle of it."""

from __future__ import annotations

import subprocess
import sys

from app.parts import Started
from app.rolling import Place, Rolling


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
