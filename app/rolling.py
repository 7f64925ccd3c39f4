"""Puts new processes in the place of running ones, one after the other, without a pause."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from app.parts import Started

_READY_S = 120.0
# A worker that hands over ends by itself, at the latest when its callers had ten minutes
# (`gateway.config.Timeouts`, `handover_s` and `drain_s`); one that does not hangs.
LEAVE_S = 660.0


@dataclass
class Place:
    """Where a process runs that can be replaced.

    Attributes:
        title: What a person calls it.
        start: Starts its successor.
        present: The process that runs there now; None while there is none.
        put: Takes the successor in.
    """

    title: str
    start: Callable[[], Started]
    present: Callable[[], subprocess.Popen[bytes] | None]
    put: Callable[[Started], None]


class Rolling:
    """One restart of all places. `advance` is called again and again, and never waits.

    Args:
        say: Takes each line for the person.
        leave_s: After how long one that was replaced is killed.

    Attributes:
        done: How many restarts came to their end.
        problem: Why the last one did not; "" when it did.
    """

    def __init__(self, say: Callable[[str], None], leave_s: float = LEAVE_S) -> None:
        self._say = say
        self._leave_s = leave_s
        self._places: list[Place] = []
        self._successor: Started | None = None
        self._started_s = 0.0
        self._is_running = False
        self.done = 0
        self.problem = ""
        self._until_s: dict[subprocess.Popen[bytes], float] = {}

    @property
    def leaving(self) -> list[subprocess.Popen[bytes]]:
        """Processes that still answer their last callers."""
        return list(self._until_s)

    def begin(self, places: Iterable[Place]) -> None:
        """Replace what runs in these places; does nothing while a restart goes on."""
        if not self._is_running:
            self._places, self._is_running, self.problem = list(places), True, ""

    def advance(self) -> bool:
        """Go on as far as can be now; whether anything changed."""
        changed = self._reap()
        if not self._is_running:
            return changed
        if not self._places:
            self._is_running, self.done = False, self.done + 1
            self._say("The gateway was restarted.")
            return True
        return self._advance(self._places[0]) or changed

    def stop(self) -> None:
        """End the successor that is not in its place yet, and what is leaving."""
        self._dismiss_successor()
        self._places, self._is_running = [], False
        for process in self.leaving:
            process.terminate()

    def _dismiss_successor(self) -> None:
        if self._successor is not None:
            self._successor.forget()
            self._successor.process.terminate()
            self._leaves(self._successor.process)
            self._successor = None

    def _advance(self, place: Place) -> bool:
        present = place.present()
        if present is None:
            # It is being started anew anyway; its successor is for no other place.
            self._dismiss_successor()
            self._places.pop(0)
        elif self._successor is None:
            self._successor, self._started_s = place.start(), time.monotonic()
        elif self._successor.process.poll() is not None:
            self._give_up(f"its successor ended with status {self._successor.process.returncode}")
        elif self._successor.is_ready:
            self._swap(place, present, self._successor)
        elif time.monotonic() - self._started_s > _READY_S:
            self._successor.process.kill()
            self._give_up(f"its successor was not ready within {_READY_S:g} s")
        else:
            return False
        return True

    def _swap(self, place: Place, present: subprocess.Popen[bytes], successor: Started) -> None:
        place.put(successor)
        present.send_signal(signal.SIGUSR1)
        self._leaves(present)
        self._successor = None
        self._places.pop(0)

    def _give_up(self, why: str) -> None:
        assert self._successor is not None
        self._successor.forget()
        self._leaves(self._successor.process)
        self.problem = f"{self._places[0].title} goes on as it is: {why}."
        self._successor, self._places, self._is_running = None, [], False
        self.done += 1
        self._say(self.problem)

    def _leaves(self, process: subprocess.Popen[bytes]) -> None:
        self._until_s[process] = time.monotonic() + self._leave_s

    def _reap(self) -> bool:
        ended = [process for process in self._until_s if process.poll() is not None]
        for process in ended:
            del self._until_s[process]
        for process, until_s in self._until_s.items():
            if time.monotonic() > until_s:
                self._say(f"Process {process.pid} was replaced and did not end; killed it.")
                process.kill()
                self._until_s[process] = time.monotonic() + self._leave_s
        return bool(ended)
