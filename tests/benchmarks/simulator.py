"""Searches of the simulator on one core: `bud bench simulator [--json]`."""

from __future__ import annotations

import json as json_module
import statistics
import time
from typing import Any

from core.hardware import catalogue
from core.simulation import predictor, search
from core.simulation.encoding import Encoding
from core.simulation.objectives import Slo
from core.simulation.predictor import Predictor
from core.simulation.space import Load, Machine, Space

_REPEATS = 3
_EVALUATIONS = 50_000


def run(json: bool = False) -> dict[str, Any]:
    """Measure with the shipped predictor; prints the figures and gives them back."""
    figures = search_figures(predictor.shipped())
    if json:
        print(json_module.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value:>12,}")
    return figures


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
