"""A million requests replayed, on one core: `bud bench simulator_replay [--json]`."""

from __future__ import annotations

import json as json_module
import time
from typing import Any

from core.simulation import replay, traces, workloads
from core.simulation.predictor import shipped
from core.simulation.replay import Policy
from core.simulation.scenarios import from_columns

REQUESTS = 1_000_000
# Requests a second, replicas at first, and the policy.
_LOADS = {
    "steady": (8.0, 1, Policy()),
    "eight_replicas": (80.0, 8, Policy()),
    "overload": (60.0, 1, Policy()),
    "autoscaled": (40.0, 1, Policy(max_replicas=16, target_in_flight=24)),
}


def run(json: bool = False, requests: int = REQUESTS) -> dict[str, Any]:
    """Replay a synthetic chat trace over Llama 3.1 8B on H100s; prints and gives back figures."""
    predictor = shipped()
    figures: dict[str, Any] = {"requests": requests}
    for name, (rate, replicas, policy) in _LOADS.items():
        configuration = from_columns(
            {
                "model": predictor.models.ids["llama-3.1-8b"],
                "system": predictor.systems.ids["h100_sxm"],
                "isl": 1,
                "osl": 1,
                "concurrency": 1,
                "replicas": replicas,
            }
        )
        trace = traces.synthetic(
            workloads.find("chat"),
            requests_per_s=rate,
            duration_s=requests / rate,
            burstiness=2.0,
            length_variation=1.0,
        )
        started_s = time.process_time()
        replay.run(predictor, configuration, trace, policy)
        figures[f"replay_{name}_s"] = round(time.process_time() - started_s, 1)
    if json:
        print(json_module.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value:>12,}")
    return figures
