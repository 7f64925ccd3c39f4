"""Deletes once a day what has been kept for as long as the settings say."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta

from core.accounts import services as accounts
from core.batches import services as batches
from core.captures import services as captures
from core.jobs import engine
from core.kernel import audit, clock
from core.kernel.actor import Actor
from core.kernel.settings import settings
from core.metrics import services as metrics

log = logging.getLogger(__name__)


def prune(actor: Actor) -> dict[str, int]:
    """Delete what is too old; how much of what. What fails is logged and left out."""
    now = clock.now()
    keep = settings()
    duties: dict[str, Callable[[], int]] = {
        "requests": lambda: metrics.prune(actor, now - timedelta(days=keep.keep_requests_days)),
        "jobs": lambda: engine.prune(actor, now - timedelta(days=keep.keep_jobs_days)),
        "audit entries": lambda: audit.prune(actor, now - timedelta(days=keep.keep_audit_days)),
        "batches and files": lambda: batches.prune(actor),
        "captures": lambda: captures.prune(actor),
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
