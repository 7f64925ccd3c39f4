"""Work that the app does again and again beside everything else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 5.0


class Periodic:
    """One thread that calls a function every so often; what fails is logged and tried again."""

    def __init__(
        self,
        name: str,
        call: Callable[[], object],
        every_s: float,
        *,
        first_after_s: float | None = None,
    ) -> None:
        """Make it; `start` begins.

        Args:
            name: Of the thread, and of the work in the log.
            call: The work.
            every_s: How long to wait after each call.
            first_after_s: How long to wait before the first; None: as long as between two.
        """
        self._name, self._call, self._every_s = name, call, every_s
        self._first_after_s = every_s if first_after_s is None else first_after_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; what is being done is finished first, for as long as a stop may take."""
        self._stopping.set()
        self._thread.join(timeout=_STOP_TIMEOUT_S)

    def _loop(self) -> None:
        wait_s = self._first_after_s
        while not self._stopping.wait(wait_s):
            wait_s = self._every_s
            try:
                self._call()
            except Exception:
                log.exception("%s failed; it is tried again", self._name)
