"""Predicted beside measured: a deployment's newest requests, and what was predicted for each.

Each request is predicted with its own lengths, its own hits in the cache and the mean number of
requests in flight while it ran. Only streamed answers count: without a first token there is
neither TTFT nor TPOT.
"""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from core.deployments import calibration, predictions
from core.deployments import services as deployments
from core.deployments.predictions import Predicted, Setup
from core.deployments.schemas import ONE_PERSON, DeploymentView, Fit, Load
from core.kernel import clock
from core.kernel.actor import Actor
from core.kernel.errors import BudError
from core.metrics import services, store
from core.metrics.schemas import Filters, RequestRow, Window
from core.projects import services as projects
from core.registry import versions

log = logging.getLogger(__name__)

MOST_REQUESTS = 200
_WINDOW = timedelta(days=7)
# Fewer output tokens time the gateway and the sampling of one token, not the steps.
_LEAST_OUTPUT_TOKENS = 8
_LEAST_REQUESTS = 3
# A calibration is renewed when a quarter more requests were measured, or an hour has passed.
_GROWTH = 1.25
_RENEW_AFTER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Means:
    """Means over some requests; tokens/s are output tokens of the whole deployment."""

    ttft_ms: float
    tpot_ms: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was measured over some requests, and what is predicted for the same ones.

    Attributes:
        requests: How many.
        concurrency: Requests in flight, mean over the requests' time.
        isl: Mean input tokens.
        osl: Mean output tokens.
        measured: What they took.
        predicted: What is predicted, without the calibration.
        calibrated: The same with the calibration that is kept; None without one.
        ttft_log_ratio: Median of log(measured / predicted).
        tpot_log_ratio: The same for TPOT.
    """

    requests: int
    concurrency: float
    isl: float
    osl: float
    measured: Means
    predicted: Means
    calibrated: Means | None
    ttft_log_ratio: float
    tpot_log_ratio: float


@dataclass(frozen=True, slots=True)
class _Timed:
    """A streamed request."""

    load: Load
    ttft_ms: float
    tpot_ms: float


def compare(actor: Actor, deployment_id: str) -> Comparison | None:
    """A deployment's newest requests against their predictions; None when there is none yet.

    Raises:
        InvalidInput: The simulator does not know the model's architecture.
        NotFound: There is no such deployment.
    """
    view = deployments.get_deployment(actor, deployment_id)
    timed = _timed(_rows(actor, view))
    if not timed:
        return None
    predicted = predictions.of_deployment(actor, view, [each.load for each in timed])
    kept = view.calibration
    corrected = [calibration.applied(each, kept) for each in predicted] if kept else None
    return Comparison(
        requests=len(timed),
        concurrency=statistics.fmean(each.load.concurrency for each in timed),
        isl=statistics.fmean(each.load.isl for each in timed),
        osl=statistics.fmean(each.load.osl for each in timed),
        measured=_means([(each.load, each.ttft_ms, each.tpot_ms) for each in timed]),
        predicted=_predicted_means(predicted),
        calibrated=_predicted_means(corrected) if corrected else None,
        ttft_log_ratio=_median_log_ratio(
            [each.ttft_ms for each in timed], [each.ttft_ms.mean for each in predicted]
        ),
        tpot_log_ratio=_median_log_ratio(
            [each.tpot_ms for each in timed], [each.tpot_ms.mean for each in predicted]
        ),
    )


def repredict(actor: Actor, deployment_id: str, plan: Fit) -> Predicted:
    """What a deployment will do with other settings, corrected by what was measured of it.

    Under the mean load of its newest requests, or that of one person who tries it.

    Raises:
        InvalidInput: The simulator does not know the model's architecture.
        NotFound: There is no such deployment.
    """
    view = deployments.get_deployment(actor, deployment_id)
    timed = _timed(_rows(actor, view))
    load = _mean_load(timed) if timed else ONE_PERSON
    model = versions.pinned(actor, view.model_id, view.model_version_id)
    (predicted,) = predictions.predict(actor, model, [(Setup.of(plan), load)])
    return calibration.applied(predicted, view.calibration)


def _mean_load(timed: Sequence[_Timed]) -> Load:
    loads = [each.load for each in timed]
    return Load(
        isl=round(statistics.fmean(load.isl for load in loads)),
        osl=round(statistics.fmean(load.osl for load in loads)),
        concurrency=max(1, round(statistics.fmean(load.concurrency for load in loads))),
        prefix_hit_share=statistics.fmean(load.prefix_hit_share for load in loads),
    )


def calibrate(actor: Actor, deployment_id: str) -> DeploymentView | None:
    """Keep how a deployment's newest requests differ from their predictions.

    None, and nothing is kept, while too few were measured or hardly any since the last time.
    """
    view = deployments.get_deployment(actor, deployment_id)
    found = compare(actor, deployment_id)
    if found is None or found.requests < _LEAST_REQUESTS or not _is_due(view, found.requests):
        return None
    return calibration.store(
        actor,
        deployment_id,
        requests=found.requests,
        ttft_log_ratio=found.ttft_log_ratio,
        tpot_log_ratio=found.tpot_log_ratio,
    )


def _is_due(view: DeploymentView, requests: int) -> bool:
    kept = view.calibration
    if kept is None or requests >= _GROWTH * kept.requests:
        return True
    return clock.now() - kept.calibrated_at > _RENEW_AFTER


def _rows(actor: Actor, view: DeploymentView) -> list[RequestRow]:
    now = clock.now() + timedelta(seconds=1)
    since = max(view.measured_since, now - _WINDOW)
    return services.requests(
        actor,
        view.project_id,
        Window.between(min(since, now - timedelta(seconds=1)), now),
        Filters(deployment_id=view.id, outcome="ok", traffic="all"),
        limit=MOST_REQUESTS,
    )


def _timed(rows: Sequence[RequestRow]) -> list[_Timed]:
    in_flight = _in_flight(rows)
    timed = []
    for row, concurrency in zip(rows, in_flight, strict=True):
        if not row.stream or row.ttft_ms is None or not row.input_tokens or not row.output_tokens:
            continue
        if row.hedge:
            continue  # it waited for one replica, and another one may have answered
        generated_ms = row.duration_ms - row.ttft_ms
        if row.output_tokens < _LEAST_OUTPUT_TOKENS or row.ttft_ms <= 0 or generated_ms <= 0:
            continue
        load = Load(
            isl=row.input_tokens,
            osl=row.output_tokens,
            concurrency=max(1, round(concurrency)),
            prefix_hit_share=min(1.0, (row.cached_tokens or 0) / row.input_tokens),
        )
        timed.append(_Timed(load, row.ttft_ms, generated_ms / (row.output_tokens - 1)))
    return timed


def _in_flight(rows: Sequence[RequestRow]) -> list[float]:
    """How many requests ran while each did, itself included, as a mean over its time."""
    start = np.array([row.started_at.timestamp() * 1e3 for row in rows])
    duration = np.array([max(row.duration_ms, 1e-3) for row in rows])
    end = start + duration
    overlap = np.minimum(end[:, None], end) - np.maximum(start[:, None], start)
    found: list[float] = (np.maximum(0.0, overlap).sum(axis=1) / duration).tolist()
    return found


def _predicted_means(predicted: Sequence[Predicted]) -> Means:
    return _means([(each.load, each.ttft_ms.mean, each.tpot_ms.mean) for each in predicted])


def _means(requests: Sequence[tuple[Load, float, float]]) -> Means:
    tokens_per_s = [
        1e3 * load.concurrency * load.osl / (ttft_ms + tpot_ms * (load.osl - 1))
        for load, ttft_ms, tpot_ms in requests
    ]
    return Means(
        ttft_ms=statistics.fmean(ttft_ms for _, ttft_ms, _ in requests),
        tpot_ms=statistics.fmean(tpot_ms for _, _, tpot_ms in requests),
        tokens_per_s=statistics.fmean(tokens_per_s),
    )


def _median_log_ratio(measured: Sequence[float], predicted: Sequence[float]) -> float:
    pairs = zip(measured, predicted, strict=True)
    return statistics.median(math.log(found / expected) for found, expected in pairs)


class Calibrator:
    """After new requests it calibrates the deployments that ran them."""

    def __init__(self) -> None:
        self._seen_at = clock.now()

    def run(self) -> None:
        """Calibrate, when requests came in since the last time."""
        with store.remote_or_local() as metrics:
            ingested_at = metrics.last_ingested_at()
        if ingested_at is None or ingested_at <= self._seen_at:
            return
        self._seen_at = ingested_at
        actor = Actor.system()
        for project in projects.list_projects(actor):
            for view in deployments.list_deployments(actor, project.id):
                if view.desired_state == "running" and view.task == "chat" and not view.demo:
                    _calibrate_quietly(actor, view)


def _calibrate_quietly(actor: Actor, view: DeploymentView) -> None:
    try:
        calibrate(actor, view.id)
    except BudError as error:
        log.debug("%s is not calibrated: %s", view.name, error)
