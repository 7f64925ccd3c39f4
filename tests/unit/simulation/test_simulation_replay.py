from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from core.kernel.errors import InvalidInput
from core.simulation import dataset, predictor, replay, replay_times, traces, workloads
from core.simulation.predictor import Band
from core.simulation.replay import LatencyTargets, Policy
from core.simulation.replay_engine import Engine, Scaling, Work, simulate
from core.simulation.roofline import PRIOR, Roofline
from core.simulation.scenarios import from_columns
from core.simulation.traces import Trace
from tests.unit.simulation.stepwise_replay import Stepwise

REQUESTS = 5_000


class Analytic(predictor.Predictor):
    """The roofline with its prior coefficients: training again changes nothing in these tests."""

    def __init__(self):
        self.models, self.systems = dataset.tables()
        self.roofline = Roofline(self.models, self.systems, PRIOR)

    def predict(self, rows):
        times = self.roofline.times(rows)
        ttft, tpot = (Band(mean, mean, mean) for mean in (times.ttft_ms, times.tpot_ms))
        nearby = np.zeros(len(rows), np.int64)
        return predictor.assemble(rows, times, ttft, tpot, nearby, self)


PREDICTOR = Analytic()


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
        hand_over_s=(0.03 + 2e-5 * read).tolist(),
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
        is_disaggregated=False,
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
    "disaggregated": (work_of(25), engine_of(is_disaggregated=True), scaling_of(1)),
    "disaggregated, little memory": (
        work_of(40),
        engine_of(is_disaggregated=True, kv_bytes=1_500_000),
        scaling_of(1),
    ),
    "disaggregated, autoscaled": (
        work_of(60, burstiness=4.0),
        engine_of(is_disaggregated=True),
        scaling_of(1, 6),
    ),
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
    # The bound is 2%; nothing but rounding differs.
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_cases_reach_what_they_are_named_for():
    def run(case):
        work, engine, scaling = CASES[case]
        assert max(work.kv_bytes) <= engine.kv_bytes
        log = simulate(work, engine, scaling, lambda _: None)
        return figures(work, log.admitted_s, log.first_token_s, log.finished_s), log.lifetimes

    assert run("overload")[0]["queue mean"] > 5 > 0.1 > run("busy")[0]["queue mean"]
    busy, little = run("busy")[0], run("little memory")[0]
    assert little["queue mean"] > 5 * busy["queue mean"]
    for case in ("autoscaled bursts", "disaggregated, autoscaled"):
        lifetimes = run(case)[1]
        assert len(lifetimes) > 2
        assert any(life.ended_s < 1e9 for life in lifetimes)
    apart, tight = run("disaggregated")[0], run("disaggregated, little memory")[0]
    assert tight["ttft p99"] > 2 * apart["ttft p99"]


# --- what a replay says --------------------------------------------------------------------------


def azure(minutes=10):
    return traces.shipped("azure-conversation").window(0, 60 * minutes)


def test_a_steady_load_gets_the_times_that_the_predictor_says():
    for columns in (
        {"isl": 1000.0, "osl": 300.0, "concurrency": 16.0},
        {"isl": 1000.0, "osl": 300.0, "concurrency": 64.0},
        {"isl": 4000.0, "osl": 300.0, "concurrency": 24.0, "engine": 1},
        {"isl": 1000.0, "osl": 500.0, "concurrency": 32.0, "tp": 4.0, "model": "llama-3.1-70b"},
        {"isl": 1000.0, "osl": 300.0, "concurrency": 64.0, "mode": 1, "decode_tp": 2.0},
    ):
        one = configuration(**columns)
        expected = PREDICTOR.predict(one)
        assert full_batch_tpot_ms(PREDICTOR, one) == pytest.approx(
            expected.tpot_ms.mean[0], rel=0.1
        ), columns


def full_batch_tpot_ms(answers, one):
    """With more requests waiting than a batch takes, as many run as in a closed loop."""
    concurrency, isl, osl = (int(value[0]) for value in (one.concurrency, one.isl, one.osl))
    count = 20 * concurrency
    at_once = trace_of(np.zeros(count), np.full(count, isl), np.full(count, osl))
    limited = one.with_columns(max_sequences=one.concurrency)
    return replay.run(answers, limited, at_once).tpot_ms.p50


def test_what_the_shipped_predictor_learned_is_in_the_replay():
    shipped = predictor.shipped()
    for columns in (
        {"isl": 1024.0, "osl": 1024.0, "concurrency": 64.0},
        {"isl": 1024.0, "osl": 1024.0, "concurrency": 16.0, "model": "gpt-oss-120b", "tp": 2.0},
        {"isl": 8192.0, "osl": 1024.0, "concurrency": 16.0, "model": "llama-3.1-70b", "tp": 4.0},
    ):
        one = configuration(**columns)
        expected = shipped.predict(one)
        assert full_batch_tpot_ms(shipped, one) == pytest.approx(
            expected.tpot_ms.mean[0], rel=0.15
        ), columns


@pytest.mark.parametrize(
    ("columns", "trace_id"),
    [
        ({}, "azure-conversation"),
        # Full long before its batches are.
        ({}, "mooncake-conversation"),
        # Sliding windows, and experts.
        ({"model": "gpt-oss-120b", "tp": 2.0}, "mooncake-conversation"),
        ({"mode": 1, "decode_tp": 2.0, "decode_workers": 2.0}, "azure-conversation"),
    ],
)
def test_tabulated_steps_are_those_of_the_predictor(columns, trace_id):
    one, trace = configuration(**columns), traces.shipped(trace_id)
    times = replay_times.tabulate(PREDICTOR, one, trace.input_tokens, trace.output_tokens)
    random = np.random.default_rng(0)
    batch = np.round(np.exp(random.uniform(0, np.log(256), 300)))
    isl = np.array([random.choice(trace.input_tokens, int(each)).mean() for each in batch])
    osl = trace.output_tokens.mean()
    rows = one.take(np.zeros(300, int)).with_columns(
        isl=isl, osl=np.full(300, osl), concurrency=batch
    )
    predicted = PREDICTOR.predict(rows)
    expected = predicted.times.step_ms * predicted.tpot_ms.mean / predicted.times.tpot_ms
    at = batch.astype(int)
    found = times.step_ms[at] + times.step_ms_per_token[at] * (isl + osl / 2)
    fits = predicted.times.pressure <= 1
    assert fits.sum() > 100
    assert np.abs(found / expected - 1)[fits].max() < 0.02


def test_percentiles_targets_hours_and_cost_agree_with_each_other():
    targets = LatencyTargets(ttft_ms=100, tpot_ms=15)
    found = replay.run(
        PREDICTOR, configuration(tp=2.0), azure(), usd_per_device_hour=3.0, targets=targets
    )
    assert found.requests == found.answered == len(azure())
    assert found.refused == {}
    for spread in (found.ttft_ms, found.tpot_ms, found.e2e_ms):
        assert 0 < spread.p50 <= spread.p90 <= spread.p95 <= spread.p99
    assert found.ttft_ms.mean < found.e2e_ms.mean
    assert set(found.attained) == {"ttft_ms", "tpot_ms"}
    assert 0 < found.attainment <= min(found.attained.values()) < 1
    assert found.device_hours == pytest.approx(2 * found.duration_s / 3600)
    assert found.cost_usd == pytest.approx(3 * found.device_hours)
    tokens = azure().output_tokens.sum()
    assert found.usd_per_million_output_tokens == pytest.approx(found.cost_usd / tokens * 1e6)
    assert (found.mean_replicas, found.peak_replicas) == (1, 1)
    # A median target is met by half of the requests.
    half = replay.run(
        PREDICTOR, configuration(tp=2.0), azure(), targets=LatencyTargets(e2e_ms=found.e2e_ms.p50)
    )
    assert half.attainment == pytest.approx(0.5, abs=0.01)
    assert half.cost_usd is None


def test_the_timeline_adds_up_to_the_whole():
    trace = azure()
    found = replay.run(PREDICTOR, configuration(), trace, Policy(max_replicas=4, start_up_s=60.0))
    line = found.timeline
    assert {len(getattr(line, name)) for name in line.__slots__ if name != "bin_s"} == {
        len(line.start_s)
    }
    assert sum(line.arrivals_per_s) * line.bin_s == pytest.approx(len(trace))
    assert sum(line.output_tokens_per_s) * line.bin_s == pytest.approx(trace.output_tokens.sum())
    # Little's law, of those who wait and of those in a batch.
    assert sum(line.queued) * line.bin_s * 1e3 == pytest.approx(found.queue_ms.mean * len(trace))
    in_flight = np.add(line.queued, line.running).sum() * line.bin_s * 1e3
    assert in_flight == pytest.approx(found.e2e_ms.mean * len(trace))
    assert sum(line.replicas) * line.bin_s / 3600 == pytest.approx(found.device_hours)


def test_more_replicas_wait_less_and_cost_more_and_autoscaling_lies_between():
    trace = traces.shipped("azure-code").window(0, 1200)
    small = replay.run(PREDICTOR, configuration(), trace)
    large = replay.run(PREDICTOR, configuration(replicas=6.0), trace)
    scaled = replay.run(
        PREDICTOR,
        configuration(),
        trace,
        Policy(max_replicas=6, target_in_flight=6, start_up_s=30.0, scale_down_delay_s=60.0),
    )
    assert large.ttft_ms.mean < scaled.ttft_ms.mean < small.ttft_ms.mean
    assert small.device_hours < scaled.device_hours < large.device_hours
    assert 1 < scaled.mean_replicas < 6
    assert 2 <= scaled.peak_replicas <= 6


def test_prefix_hits_and_a_slower_start_change_the_time_to_first_token():
    trace = traces.shipped("mooncake-conversation").window(0, 300).at_rate(0.2)
    cold = replay.run(PREDICTOR, configuration(), trace)
    warm = replay.run(PREDICTOR, configuration(prefix_hit_share=0.8), trace)
    assert warm.ttft_ms.mean < 0.7 * cold.ttft_ms.mean


def test_chunked_prefill_keeps_tokens_coming_and_whole_prompts_come_sooner():
    trace = traces.shipped("mooncake-conversation").window(0, 300).at_rate(0.2)
    one = configuration(chunk_tokens=1024.0)
    chunked = replay.run(PREDICTOR, one, trace)
    whole = replay.run(PREDICTOR, one, trace, Policy(chunked_prefill=False))
    assert whole.ttft_ms.mean < chunked.ttft_ms.mean
    assert whole.duration_s == pytest.approx(chunked.duration_s, rel=0.2)


def test_a_disaggregated_configuration_spares_those_who_generate_the_prompts_of_others():
    trace = traces.shipped("mooncake-conversation").window(0, 300).at_rate(0.5)
    together = replay.run(PREDICTOR, configuration(replicas=2.0), trace)
    apart = replay.run(
        PREDICTOR,
        configuration(
            mode=1, prefill_workers=1.0, prefill_tp=1.0, decode_workers=1.0, decode_tp=1.0
        ),
        trace,
    )
    assert apart.answered == len(trace)
    assert apart.device_hours / apart.duration_s == pytest.approx(2 / 3600)
    assert apart.tpot_ms.p99 < together.tpot_ms.p99


def test_what_does_not_fit_is_refused_and_counted_by_reason():
    # 8.0 B parameters in BF16 leave a 24 GB card about 3 GB for the KV cache: some 25,000 tokens.
    one = configuration(system="l4")
    trace = trace_of([0, 1, 2, 3], [100, 60_000, 100, 200_000], [50, 50, 50, 50])
    found = replay.run(PREDICTOR, one, trace, targets=LatencyTargets(e2e_ms=1e9))
    assert found.requests == 4
    assert found.answered == 2
    assert found.refused == {
        "larger than the KV cache": 1,
        "longer than the model's context": 1,
    }
    # They missed their targets too.
    assert found.attainment == 0.5


def test_an_answer_of_one_token_has_no_time_per_token():
    found = replay.run(
        PREDICTOR,
        configuration(),
        trace_of([0, 1], [100, 100], [1, 1]),
        targets=LatencyTargets(tpot_ms=0.001),
    )
    assert found.tpot_ms is None
    assert found.attainment == 1


@pytest.mark.parametrize(
    ("columns", "trace", "message"),
    [
        ({"model": "llama-3.1-405b"}, None, "weights leave no memory.*more devices"),
        ({}, trace_of([0, 1], [200_000, 150_000], [9, 9]), "2 are longer.*shortest has 150,009"),
        ({"max_sequences": 512.0, "chunk_tokens": 256.0}, None, "256 tokens a step are fewer"),
    ],
)
def test_a_configuration_that_cannot_serve_says_why(columns, trace, message):
    with pytest.raises(InvalidInput) as refused:
        replay.run(PREDICTOR, configuration(**columns), trace or azure(1))
    assert re.search(message, str(refused.value))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_replicas": 0}, "0 to 0"),
        ({"min_replicas": 5, "max_replicas": 2}, "5 to 2"),
        ({"max_replicas": 100_000}, "1 ≤ min ≤ max ≤ 1,000"),
        ({"target_in_flight": 0.0}, "target_in_flight"),
        ({"start_up_s": float("nan")}, "start_up_s"),
        ({"scaling_interval_s": 0.0}, "scaling_interval_s"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(changes, message):
    with pytest.raises(InvalidInput, match=message):
        Policy(**changes)


def test_fewer_replicas_at_most_than_configured_are_refused():
    with pytest.raises(InvalidInput, match="4 to 2"):
        replay.run(PREDICTOR, configuration(replicas=4.0), azure(1), Policy(max_replicas=2))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_target_is_over_zero(value):
    with pytest.raises(InvalidInput, match="ttft_ms must be over 0"):
        LatencyTargets(ttft_ms=value)


def test_progress_rises_to_the_end_and_may_stop_the_replay():
    said = []
    trace = traces.shipped("azure-conversation")
    replay.run(PREDICTOR, configuration(), trace, progress=said.append)
    assert said == sorted(said)
    assert len(said) > 3
    assert (0 <= said[0] < 0.01, said[-1]) == (True, 1)

    class Stop(Exception):
        pass

    def stop(_share):
        raise Stop

    with pytest.raises(Stop):
        replay.run(PREDICTOR, configuration(), trace, progress=stop)
