"""Loads what pages read on their first visit, in the background, once somebody has come.

Not when the app starts: a start stays as quick as it is, and an app that nobody opens does no work.
Somebody has come when the log-in page was asked for, or when a page has run; and where somebody
is still logged in, they are expected from the start. While a page runs nothing new is loaded: both
would take twice as long.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from core.accounts import services as accounts
from core.hardware import services as hardware
from core.kernel.actor import Actor
from core.leaderboards import services as leaderboards
from core.leaderboards.schemas import Query
from core.projects import services as projects
from core.registry import catalogue, licences, relatives
from core.simulation import predictor
from core.simulation import services as simulation

log = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 5.0
# A browser asks for the next page, or for more of this one, that soon after what it was given.
_QUIET_S = 0.5
_LOOK_AGAIN_S = 0.1
# Not while the app starts.
_EXPECTED_AFTER_S = 2.0


class Visits:
    """Whether somebody has come, and whether a page runs now."""

    def __init__(self, quiet_s: float = _QUIET_S) -> None:
        self.came = threading.Event()
        self._quiet_s = quiet_s
        self._lock = threading.Lock()
        self._running = 0
        self._last_s = 0.0

    @contextmanager
    def page(self) -> Iterator[None]:
        """While a page runs."""
        with self._lock:
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
            self.seen()

    def seen(self) -> None:
        """Somebody is here."""
        self._last_s = time.monotonic()
        self.came.set()

    @property
    def is_quiet(self) -> bool:
        """Whether no page runs, and none has for a moment."""
        return not self._running and time.monotonic() - self._last_s >= self._quiet_s


visits = Visits()


class Warmer:
    """One thread that waits for the first visitor, then loads one thing after the other."""

    def __init__(
        self,
        visits: Visits,
        loads: Callable[[], Iterable[Callable[[], object]]],
        expected_after_s: float | None = None,
    ) -> None:
        """Wait for a visitor; no longer than `expected_after_s`, where one is expected."""
        self._visits, self._loads = visits, loads
        self._expected_after_s = expected_after_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="warmer", daemon=True)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after what is being loaded."""
        self._stopping.set()
        self._visits.came.set()
        self._thread.join(timeout=_STOP_TIMEOUT_S)

    def _run(self) -> None:
        self._visits.came.wait(self._expected_after_s)
        for load in self._loads():
            while not (self._visits.is_quiet or self._stopping.is_set()):
                self._stopping.wait(_LOOK_AGAIN_S)
            if self._stopping.is_set():
                return
            try:
                load()
            except Exception:
                # The page that needs it tries again, and says what is wrong.
                log.exception("could not be loaded ahead of the first visit")


def expected_after_s() -> float | None:
    """When somebody will come who is still logged in; None where nobody is."""
    return _EXPECTED_AFTER_S if accounts.is_anybody_logged_in() else None


def loads() -> Iterator[Callable[[], object]]:
    """What is kept once it was loaded, what most pages need first."""
    actor = Actor.system()
    yield catalogue.tables
    yield licences.licences
    yield partial(licences.by_id, "")
    yield catalogue.index
    yield partial(simulation.models, actor)
    yield predictor.trained
    for project in projects.list_projects(actor)[:1]:
        for task in leaderboards.tasks():
            yield partial(leaderboards.combined, actor, project.id, Query(task=task.key))
        yield partial(relatives.family_of, actor, project.id, "")
    # By all that a name says: every published name is taken apart for it.
    yield partial(catalogue.recognised, "a name that no source has")
    yield hardware.this_machine
