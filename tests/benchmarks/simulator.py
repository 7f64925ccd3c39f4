"""Predictions and searches of the simulator on one core: `bud bench simulator [--json]`."""

from __future__ import annotations

import json as json_module
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from core.hardware import catalogue
from core.simulation import dataset, predictor, search
from core.simulation.encoding import Encoding
from core.simulation.objectives import Slo
from core.simulation.predictor import Predictor
from core.simulation.space import Load, Machine, Space

_REPEATS = 3
_EVALUATIONS = 50_000
_ROWS = 100_000
_LONE_CALLS = 100


def run(json: bool = False) -> dict[str, Any]:
    """Measure with the shipped predictor; prints the figures and gives them back."""
    shipped = predictor.shipped()
    figures = prediction_figures(shipped) | search_figures(shipped)
    if json:
        print(json_module.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value:>12,}")
    return figures


def prediction_figures(asked: Predictor) -> dict[str, Any]:
    """Full predictions a CPU second: both means and bands, memory and fit, features included.

    The measured rows in turn, as they are, and of a model that nobody measured.
    """
    measured = dataset.load()
    rows = measured.rows.take(np.arange(_ROWS) % len(measured))
    unseen = rows.with_columns(model=np.full(_ROWS, asked.models.ids["qwen2.5-72b"]))
    one = rows.take(slice(0, 1))
    asked.predict(one)
    started_s = time.process_time()
    for _ in range(_LONE_CALLS):
        asked.predict(one)
    lone_ms = (time.process_time() - started_s) / _LONE_CALLS * 1e3
    return {
        "predictions_per_s": round(_ROWS / _least_cpu_s(lambda: asked.predict(rows))),
        "unseen_model_predictions_per_s": round(
            _ROWS / _least_cpu_s(lambda: asked.predict(unseen))
        ),
        "one_prediction_ms": round(lone_ms, 2),
    }


def _least_cpu_s(work: Callable[[], object]) -> float:
    times_s = []
    for _ in range(_REPEATS):
        started_s = time.process_time()
        work()
        times_s.append(time.process_time() - started_s)
    return min(times_s)


def search_figures(asked: Predictor) -> dict[str, Any]:
    """CPU seconds of a search with 50,000 evaluations, prediction included."""
    machines = tuple(
        Machine.of_price(price)
        for price in catalogue.shipped_prices()
        if price.accelerator_id in ("l40s", "a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm")
    )
    space = Space(models=("llama-3.1-70b", "qwen3-235b-a22b"), machines=machines, max_devices=32)
    load, slo = Load(2000, 400, 128, 0.3), Slo(ttft_ms=800, tpot_ms=25)
    search.run(asked, space, load, slo, budget=1000)  # first calls load libraries
    times_s = []
    for seed in range(_REPEATS):
        started_s = time.process_time()
        result = search.run(asked, space, load, slo, budget=_EVALUATIONS, seed=seed)
        times_s.append(time.process_time() - started_s)
    return {
        "search_points": Encoding(space, asked, load).points,
        "search_evaluations": result.evaluated,
        "search_cpu_s_p50": round(statistics.median(times_s), 2),
    }


if __name__ == "__main__":
    run()
