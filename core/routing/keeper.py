"""Publishes what no event tells of: dated prices, and changes of a process that died."""

from __future__ import annotations

import logging
import threading

from core.routing import services

log = logging.getLogger(__name__)

_EVERY_S = 5.0


class Keeper:
    """One thread in the app; publishing what has not changed costs a few milliseconds."""

    def __init__(self, every_s: float = _EVERY_S) -> None:
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="routes", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; the gateway goes on with the last table."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def _loop(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                services.publish()
            except Exception:
                log.exception("the route table could not be published; it is tried again")
