"""What the app does beside showing pages: jobs, deployments, routes, metrics and upkeep."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from app import internal
from app.retention import Pruner
from core.deployments import workflows as _deployment_workflows  # noqa: F401 (registers kinds)
from core.deployments.reconciler import Reconciler
from core.jobs import engine
from core.leaderboards.refreshes import Refresher
from core.metrics.calibration import Calibrator
from core.metrics.ingest import Ingester
from core.registry import workflows as _registry_workflows  # noqa: F401 (registers kinds)
from core.routing import services as routing
from core.routing.keeper import Keeper
from core.simulation import search_workflow as _search_workflow  # noqa: F401 (registers kinds)
from core.simulation import workflows as _simulation_workflows  # noqa: F401 (registers kinds)

log = logging.getLogger(__name__)


@dataclass
class _Running:
    reconciler: Reconciler
    ingester: Ingester
    keeper: Keeper
    pruner: Pruner
    calibrator: Calibrator
    refresher: Refresher


_running: _Running | None = None


def start() -> None:
    """Start everything; called once, when the app starts."""
    global _running
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for noisy in ("httpx", "httpcore", "dbos", "watchdog"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    routing.subscribe()
    routing.publish()
    _running = _Running(Reconciler(), Ingester(), Keeper(), Pruner(), Calibrator(), Refresher())
    _running.ingester.start()
    _running.keeper.start()
    internal.start()
    _running.reconciler.start()
    engine.launch()
    _running.pruner.start()
    _running.calibrator.start()
    _running.refresher.start()


def stop() -> None:
    """Stop everything; model servers go on, and are adopted by the next app."""
    global _running
    if _running is None:
        return
    internal.stop()
    _running.refresher.stop()
    _running.calibrator.stop()
    _running.pruner.stop()
    engine.shutdown()
    _running.reconciler.stop()
    _running.keeper.stop()
    _running.ingester.stop()
    _running = None
