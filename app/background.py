"""What the app does beside showing pages: jobs, deployments, routes, metrics, upkeep, warming."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from app import internal, retention, warming
from core.batches import services as batches
from core.deployments import workflows as _deployment_workflows  # noqa: F401 (registers kinds)
from core.deployments.reconciler import Reconciler
from core.jobs import engine
from core.kernel.actor import Actor
from core.kernel.periodic import Periodic
from core.leaderboards import refreshes
from core.metrics.calibration import Calibrator
from core.metrics.ingest import Ingester
from core.registry import refreshes as catalogue_refreshes
from core.registry import workflows as _registry_workflows  # noqa: F401 (registers kinds)
from core.routing import services as routing
from core.simulation import search_workflow as _search_workflow  # noqa: F401 (registers kinds)
from core.simulation import training_workflow as _training_workflow  # noqa: F401 (registers kinds)
from core.simulation import workflows as _simulation_workflows  # noqa: F401 (registers kinds)

log = logging.getLogger(__name__)


@dataclass
class _Running:
    reconciler: Reconciler
    ingester: Ingester
    periodic: list[Periodic]
    warmer: warming.Warmer


_running: _Running | None = None


def _periodic() -> list[Periodic]:
    actor = Actor.system()
    return [
        # What no event tells of: dated prices, and changes of a process that died.
        Periodic("routes", routing.publish, every_s=5),
        Periodic("batches", batches.take_up, every_s=1),
        Periodic("calibrator", Calibrator().run, every_s=15),
        Periodic("board-refresher", lambda: refreshes.start_due(actor), every_s=3600),
        Periodic("catalogue-refresher", lambda: catalogue_refreshes.start_due(actor), every_s=3600),
        # Not while the app starts.
        Periodic("retention", lambda: retention.prune(actor), every_s=86_400, first_after_s=300),
    ]


def start() -> None:
    """Start everything; called once, when the app starts."""
    global _running
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("httpx", "httpcore", "dbos", "watchdog"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    routing.subscribe()
    routing.publish()
    warmer = warming.Warmer(warming.visits, warming.loads, warming.expected_after_s())
    _running = _Running(Reconciler(), Ingester(), _periodic(), warmer)
    _running.ingester.start()
    internal.start()
    _running.reconciler.start()
    engine.launch()
    for each in _running.periodic:
        each.start()
    _running.warmer.start()


def stop() -> None:
    """Stop everything; model servers go on, and are adopted by the next app."""
    global _running
    if _running is None:
        return
    internal.stop()
    _running.warmer.stop()
    for each in _running.periodic:
        each.stop()
    engine.shutdown()
    _running.reconciler.stop()
    _running.ingester.stop()
    _running = None
