from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.simulation import predictor, traces, workloads
from core.simulation.replay_engine import Engine, Scaling, Work, simulate
from core.simulation.scenarios import from_columns
from core.simulation.traces import Trace
from tests.unit.simulation.stepwise_replay import Stepwise

PREDICTOR = predictor.shipped()
REQUESTS = 5_000


def configuration(**columns):
    known = {"model": "llama-3.1-8b", "system": "h100_sxm"} | columns
    known["model"] = PREDICTOR.models.ids[known["model"]]
    known["system"] = PREDICTOR.systems.ids[known["system"]]
    return from_columns({"isl": 1.0, "osl": 1.0, "concurrency": 1.0} | known)


def trace_of(arrival_s, inputs, outputs):
    return Trace("test", np.array(arrival_s, float), np.array(inputs), np.array(outputs))


# --- the fast replay against one that goes step by step -------------------------------------------


def work_of(requests_per_s, *, inputs=600, outputs=60, burstiness=1.0, seed=1):
    workload = workloads.Workload("test", "Test", inputs, outputs, 1, 0.0, "")
    trace = traces.synthetic(
        workload,
        requests_per_s=requests_per_s,
        duration_s=1.3 * REQUESTS / requests_per_s,
        burstiness=burstiness,
        length_variation=1.0,
        seed=seed,
    )
    assert len(trace) >= REQUESTS
    read = trace.input_tokens[:REQUESTS]
    tokens = read + trace.output_tokens[:REQUESTS]
    return Work(
        arrival_s=trace.arrival_s[:REQUESTS].tolist(),
        input_tokens=read.tolist(),
        output_tokens=trace.output_tokens[:REQUESTS].tolist(),
        prefill_tokens=read.tolist(),
        # Long prompts cost more for each token, as attention does.
        prefill_s_per_token=(2e-5 + 1e-9 * read).tolist(),
        kv_bytes=(tokens * 100).tolist(),
    )


def engine_of(**changes):
    batch = np.arange(257)
    engine = Engine(
        step_s=(0.006 + 4e-5 * batch).tolist(),
        step_s_per_token=(6e-9 * batch).tolist(),
        max_sequences=256,
        max_batched_tokens=2048,
        kv_bytes=20_000_000,
        chunked_prefill=True,
    )
    return replace(engine, **changes)


def scaling_of(least, most=None, **changes):
    scaling = Scaling(least, most or least, 12.0, 5.0, 20.0, 30.0)
    return replace(scaling, **changes)


CASES = {
    "light": (work_of(2), engine_of(), scaling_of(1)),
    "busy": (work_of(25), engine_of(), scaling_of(1)),
    "overload": (work_of(90), engine_of(), scaling_of(1)),
    "few sequences": (work_of(25), engine_of(max_sequences=16), scaling_of(1)),
    "little memory": (work_of(25), engine_of(kv_bytes=1_500_000), scaling_of(1)),
    "small chunks": (work_of(15), engine_of(max_batched_tokens=256), scaling_of(1)),
    "prefill first": (work_of(20), engine_of(chunked_prefill=False), scaling_of(1)),
    "prefill first, overload": (work_of(60), engine_of(chunked_prefill=False), scaling_of(1)),
    "three replicas": (work_of(70), engine_of(), scaling_of(3)),
    "autoscaled bursts": (work_of(40, burstiness=4.0), engine_of(), scaling_of(1, 6)),
    "autoscaled overload": (work_of(200), engine_of(max_sequences=32), scaling_of(1, 4)),
    "answers of a token": (work_of(30, outputs=2), engine_of(), scaling_of(2)),
}


def figures(work, admitted_s, first_token_s, finished_s):
    arrival_s, outputs = np.array(work.arrival_s), np.array(work.output_tokens)
    several = outputs > 1
    tpot = (np.array(finished_s) - first_token_s)[several] / (outputs[several] - 1)
    found = {}
    for name, values in {
        "ttft": np.array(first_token_s) - arrival_s,
        "tpot": tpot,
        "e2e": np.array(finished_s) - arrival_s,
    }.items():
        found[f"{name} mean"] = values.mean()
        for percent in (50, 90, 99):
            found[f"{name} p{percent}"] = np.percentile(values, percent)
    found["queue mean"] = (np.array(admitted_s) - arrival_s).mean()
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_replay_agrees_with_one_that_goes_step_by_step(case):
    work, engine, scaling = CASES[case]
    slow = Stepwise(work, engine, scaling).run()
    fast = simulate(work, engine, scaling, lambda _: None)

    expected = figures(work, slow.admitted_s, slow.first_token_s, slow.finished_s)
    found = figures(work, fast.admitted_s, fast.first_token_s, fast.finished_s)
    until_s = max(slow.finished_s)
    expected["replica hours"] = slow.replica_hours(until_s)
    found["replica hours"] = (
        sum(min(life.ended_s, until_s) - life.launched_s for life in fast.lifetimes) / 3600
    )
    assert found == pytest.approx(expected, rel=0.02)
    # The cases differ from each other in what they exercise.
    if case == "overload":
        assert expected["queue mean"] > 5
    if case.startswith("autoscaled"):
        assert len(fast.lifetimes) > scaling.min_replicas
        assert any(life.ended_s < until_s for life in fast.lifetimes) or "overload" in case
