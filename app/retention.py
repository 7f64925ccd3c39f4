"""Deletes once a day what has been kept for as long as the settings say."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta

from core.accounts import services as accounts
from core.jobs import engine
from core.kernel import audit, clock
from core.kernel.actor import Actor
from core.kernel.settings import settings
from core.metrics import services as metrics

log = logging.getLogger(__name__)

_EVERY_S = 86_400.0
# Not while the app starts.
_FIRST_AFTER_S = 300.0


def prune(actor: Actor) -> dict[str, int]:
    """Delete what is too old; how much of what. What fails is logged and left out."""
    now = clock.now()
    keep = settings()
    duties: dict[str, Callable[[], int]] = {
        "requests": lambda: metrics.prune(actor, now - timedelta(days=keep.keep_requests_days)),
        "jobs": lambda: engine.prune(actor, now - timedelta(days=keep.keep_jobs_days)),
        "audit entries": lambda: audit.prune(actor, now - timedelta(days=keep.keep_audit_days)),
        "log-ins": lambda: accounts.prune_sessions(actor),
    }
    pruned: dict[str, int] = {}
    for name, duty in duties.items():
        try:
            pruned[name] = duty()
        except Exception:
            log.exception("old %s could not be deleted; it is tried again tomorrow", name)
    log.info("deleted as too old: %s", pruned)
    return pruned


class Pruner:
    """One thread in the app."""

    def __init__(self, first_after_s: float = _FIRST_AFTER_S) -> None:
        self._wait_s = first_after_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="retention", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; what is being deleted is finished first."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def _loop(self) -> None:
        while not self._stopping.wait(self._wait_s):
            prune(Actor.system())
            self._wait_s = _EVERY_S
