"""Predictions of the shipped model: their arithmetic, bands, support and limits."""

from dataclasses import fields

import numpy as np
import pytest

from core.simulation import dataset, memory, predictor, training
from core.simulation.predictor import Predictor
from core.simulation.scenarios import ENGINES, PRECISIONS, Scenarios, from_columns


@pytest.fixture(scope="module")
def shipped() -> Predictor:
    return predictor.shipped()


def scenario(shipped: Predictor, model="llama-3.1-70b", system="h200_sxm", **columns) -> Scenarios:
    named = {
        "model": shipped.models.ids[model],
        "system": shipped.systems.ids[system],
        "engine": ENGINES.index(columns.pop("engine", "vllm")),
        "precision": PRECISIONS.index(columns.pop("precision", "fp8")),
    }
    return from_columns(named | {"isl": 1024, "osl": 1024, "concurrency": 16, "tp": 4} | columns)


def test_the_shipped_model_was_trained_on_the_shipped_rows():
    assert predictor.trained().about == training.about(dataset.load())


def test_bands_hold_the_mean_and_totals_follow_from_the_means(shipped):
    found = shipped.predict(scenario(shipped, concurrency=[1, 8, 64, 256]))
    for band in (found.ttft_ms, found.tpot_ms, found.e2e_ms, found.tokens_per_s_per_gpu):
        assert (band.low < band.mean).all()
        assert (band.mean < band.high).all()
    e2e_ms = found.ttft_ms.mean + 1023 * found.tpot_ms.mean
    assert found.e2e_ms.mean == pytest.approx(e2e_ms)
    assert found.requests_per_s == pytest.approx(np.array([1, 8, 64, 256]) / e2e_ms * 1e3)
    assert found.tokens_per_s_per_gpu.mean == pytest.approx(found.requests_per_s * 1024 / 4)
    assert found.total_tokens_per_s_per_gpu == pytest.approx(found.requests_per_s * 2048 / 4)


def test_measured_rows_are_met_closely(shipped):
    measured = dataset.load()
    serving = measured.take((measured.rows.lengths != 2) & (measured.rows.mode == 0))
    found = shipped.predict(serving.rows)
    assert np.median(np.abs(found.tpot_ms.mean / serving.tpot_ms - 1)) < 0.06
    assert np.median(np.abs(found.ttft_ms.mean / serving.ttft_ms - 1)) < 0.15


def test_what_has_no_room_waits_and_gets_nothing_more_done(shipped):
    loads = np.array([16, 25, 26, 64, 256, 512])
    chat = {"isl": 1155, "osl": 211, "tp": 1, "precision": "bf16", "concurrency": loads}
    found = shipped.predict(scenario(shipped, model="qwen3-32b", system="h100_sxm", **chat))
    most = found.most_concurrency[0]
    assert loads[0] < most < loads[3]
    over = loads > most
    assert (found.nearby[over] == 0).all()
    whole = found.tokens_per_s_per_gpu.mean[over]
    assert whole == pytest.approx(whole[0], rel=1e-6)
    assert whole[0] >= found.tokens_per_s_per_gpu.mean[0]
    assert found.tpot_ms.mean[over] == pytest.approx(found.tpot_ms.mean[over][0])
    assert (np.diff(found.ttft_ms.mean[over]) > 0).all()
    at_once = shipped.predict(
        scenario(shipped, model="qwen3-32b", system="h100_sxm", **(chat | {"concurrency": most}))
    )
    assert found.e2e_ms.mean[over] == pytest.approx(at_once.e2e_ms.mean * loads[over] / most)


def test_who_measured_so_many_in_flight_had_room(shipped):
    rows = training.served(dataset.load()).rows
    found = shipped.predict(rows)
    crowded = (rows.concurrency > 1.5 * found.most_concurrency) & (found.nearby > 0)
    assert crowded.any()
    # What was measured stands, also below what the analytic model would have it wait.
    assert (found.ttft_ms.mean < found.times.wait_ms)[crowded].any()


def test_a_batch_larger_than_a_block_is_the_same_as_its_rows_one_by_one(shipped):
    measured = dataset.load()
    rows = measured.rows.take(np.arange(6000) % len(measured))
    found = shipped.predict(rows)
    for at in (0, 4095, 4096, 5999):
        alone = shipped.predict(rows.take(slice(at, at + 1)))
        assert found.ttft_ms.mean[at] == pytest.approx(alone.ttft_ms.mean[0], rel=1e-6)
        assert found.tpot_ms.high[at] == pytest.approx(alone.tpot_ms.high[0], rel=1e-6)
        assert found.memory.weights[at] == alone.memory.weights[0]
    assert all(len(getattr(found.times, each.name)) == 6000 for each in fields(found.times))


def test_nearby_counts_measured_rows_and_is_nothing_for_what_nobody_measured(shipped):
    seen = shipped.predict(scenario(shipped))
    assert seen.nearby[0] >= 5
    unseen_device = shipped.predict(scenario(shipped, system="l40s", tp=4))
    unseen_model = shipped.predict(scenario(shipped, model="qwen2.5-72b"))
    assert unseen_device.nearby[0] == unseen_model.nearby[0] == 0


def test_bands_are_wider_where_less_was_measured(shipped):
    def width(**columns) -> float:
        band = shipped.predict(scenario(shipped, **columns)).tpot_ms
        return float(np.log(band.high / band.low)[0])

    assert width() < width(system="l40s")
    assert width() < width(model="qwen2.5-72b")
    assert width() < width(isl=1_000_000)


def test_far_from_the_data_the_answer_is_the_analytic_one(shipped):
    far = shipped.predict(scenario(shipped, isl=4_000_000, concurrency=1))
    assert far.tpot_ms.mean[0] == pytest.approx(far.times.tpot_ms[0], rel=0.02)
    cpu = shipped.predict(
        scenario(shipped, model="smollm2-135m", system="xeon_8480", engine="llama.cpp", tp=1)
    )
    assert cpu.ttft_ms.mean[0] == pytest.approx(cpu.times.ttft_ms[0])


def test_what_does_not_fit_is_answered_and_says_so(shipped):
    found = shipped.predict(scenario(shipped, model="llama-3.1-405b", tp=1))
    assert not found.fits[0]
    assert found.memory.needed[0] > found.memory.usable[0]
    assert np.isfinite(found.ttft_ms.mean[0])


def test_odd_device_counts_are_answered(shipped):
    found = shipped.predict(scenario(shipped, tp=[3, 5, 7]))
    assert np.isfinite(found.e2e_ms.mean).all()


def test_devices_count_all_replicas_and_both_sides(shipped):
    both = scenario(
        shipped, mode=1, prefill_workers=2, prefill_tp=4, decode_workers=3, decode_tp=8, replicas=2
    )
    assert predictor.device_count(both)[0] == 2 * (2 * 4 + 3 * 8)
    assert predictor.device_count(scenario(shipped, tp=4, pp=2, replicas=3))[0] == 24


def test_memory_adds_up_and_grows_with_what_it_holds(shipped):
    def held(**columns) -> memory.Memory:
        rows = scenario(shipped, **columns)
        return memory.of_deployment(rows, shipped.models, shipped.systems)

    one = held()
    parts = one.weights + one.kv + one.activations + one.runtime
    assert one.needed == pytest.approx(parts)
    assert held(tp=8).weights[0] < one.weights[0]
    assert held(concurrency=64).kv[0] > one.kv[0]
    assert held(precision="bf16").weights[0] > 1.8 * one.weights[0]
    assert held(max_sequences=4).most_sequences[0] == 4
    # FP8 weights of 70.6e9 parameters over four devices.
    assert one.weights[0] == pytest.approx(70.6e9 / 4, rel=0.05)


def test_a_latent_cache_is_on_every_device_and_a_grouped_one_is_split(shipped):
    def per_sequence(model: str, tp: int) -> float:
        rows = scenario(shipped, model=model, system="b200_sxm", tp=tp)
        return float(memory.of_deployment(rows, shipped.models, shipped.systems).kv_per_sequence[0])

    assert per_sequence("deepseek-v3", 8) == per_sequence("deepseek-v3", 4)
    assert per_sequence("llama-3.1-70b", 8) == pytest.approx(per_sequence("llama-3.1-70b", 4) / 2)
