"""Puts new processes in the place of running ones, one after the other, without a pause."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from app.parts import Started

_READY_S = 120.0


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

    Attributes:
        done: How many restarts came to their end.
        problem: Why the last one did not; "" when it did.
        leaving: Processes that still answer their last callers.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._places: list[Place] = []
        self._successor: Started | None = None
        self._started_s = 0.0
        self._is_running = False
        self.done = 0
        self.problem = ""
        self.leaving: list[subprocess.Popen[bytes]] = []

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
            self.leaving.append(self._successor.process)
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
        self.leaving.append(present)
        self._successor = None
        self._places.pop(0)

    def _give_up(self, why: str) -> None:
        assert self._successor is not None
        self._successor.forget()
        self.leaving.append(self._successor.process)
        self.problem = f"{self._places[0].title} goes on as it is: {why}."
        self._successor, self._places, self._is_running = None, [], False
        self.done += 1
        self._say(self.problem)

    def _reap(self) -> bool:
        left = [process for process in self.leaving if process.poll() is None]
        changed = len(left) < len(self.leaving)
        self.leaving = left
        return changed
