"""Serving on a CPU: against measured and published figures, and how the parts behave."""

from __future__ import annotations

from dataclasses import astuple, replace

import numpy as np
import pytest

from core.hardware import catalogue
from core.hardware.schemas import Accelerator, WeightProducts
from core.simulation import architectures, memory, predictor, processor
from core.simulation.architectures import Architecture
from core.simulation.predictor import Prediction, Predictor
from core.simulation.scenarios import (
    ENGINES,
    ModelTable,
    Scenarios,
    SystemTable,
    from_columns,
)

# SmolLM2-135M, and a Llama of a billion parameters with its vocabulary.
SMALL = Architecture(
    id="small",
    family="llama",
    layers=30,
    hidden=576,
    vocab=49_152,
    tied_embeddings=True,
    heads=9,
    kv_heads=3,
    head_dim=64,
    v_head_dim=64,
    intermediate=1536,
    gated_mlp=True,
    full_layers=30,
    native_precision="q4_1",
    stored_bytes=98_362_432,
)
LARGE = replace(
    SMALL,
    id="large",
    layers=16,
    hidden=2048,
    heads=32,
    kv_heads=8,
    intermediate=8192,
    full_layers=16,
)
# One Zen 5 core, as the probe measures it.
ZEN5 = Accelerator(
    *("this-machine", "One core", "this-machine", "cpu", "x86"),
    *(16.0, 46.0, 0.139, None, None, None, 1.0, 1.0, 1, None, None, "", True),
)


def _predict(
    model: Architecture, device: Accelerator = ZEN5, **load: float | list[float]
) -> Prediction:
    known = Predictor(ModelTable([model]), SystemTable([device]), predictor.trained())
    return known.predict(_rows(**load))


def _rows(**load: float | list[float]) -> Scenarios:
    given = {"isl": 64, "osl": 32, "concurrency": 1} | load
    return from_columns({"model": 0, "system": 0, "engine": ENGINES.index("llama.cpp")} | given)


def _device(name: str) -> Accelerator:
    return catalogue.find_in(name, catalogue.shipped(), catalogue.aliases())


def _like(model: Architecture, stored_as: str, size_bytes: float) -> Architecture:
    return replace(model, native_precision=stored_as, stored_bytes=int(size_bytes))


@pytest.mark.parametrize(
    ("model", "isl", "measured_ms"),
    [
        (SMALL, 16, 6.06),
        (SMALL, 256, 7.96),
        (SMALL, 1024, 13.2),
        (_like(SMALL, "q8_0", 144.8e6), 64, 7.78),
        (_like(SMALL, "q4_0", 77.6e6), 16, 4.31),
        (_like(SMALL, "f16", 270.9e6), 64, 10.62),
        (_like(LARGE, "q4_0", 606e6), 32, 29.61),
        (_like(LARGE, "q8_0", 1142.9e6), 32, 42.41),
    ],
    ids=lambda each: each.native_precision if isinstance(each, Architecture) else str(each),
)
def test_one_sequence_is_as_fast_as_measured(
    model: Architecture, isl: int, measured_ms: float
) -> None:
    """Time a token of xllamacpp 2026.10 with one thread; random weights but the first.

    Those of Q4 are wall time on a quiet machine, the others processor time on a busy one.
    """
    found = _predict(model, isl=isl, osl=25).tpot_ms.mean[0]
    assert found == pytest.approx(measured_ms, rel=0.2)


@pytest.mark.parametrize(
    ("stored_as", "size_bytes", "bandwidth", "cores", "threads", "core_tflops", "tokens_per_s"),
    [
        # Llama 3.1 8B on a Ryzen 7950X (DDR5-5200, 4 threads of 5 GHz), ik_llama.cpp PR 54
        ("q4_0", 4.65e9, 83.2, 16, 4, 0.160, 11.25),
        ("q8_0", 8.54e9, 83.2, 16, 4, 0.160, 7.56),
        # the same on 8 of 32 cores (4 GHz) of a Threadripper 5975WX
        ("q8_0", 8.54e9, 204.8, 32, 8, 0.128, 8.13),
    ],
)
def test_published_figures_of_a_larger_model_are_met_within_a_half(
    stored_as: str,
    size_bytes: float,
    bandwidth: float,
    cores: int,
    threads: int,
    core_tflops: float,
    tokens_per_s: float,
) -> None:
    llama = _like(architectures.find("llama-3.1-8b"), stored_as, size_bytes)
    machine = replace(
        ZEN5, memory_bandwidth_gb_per_s=bandwidth, bf16_tflops=core_tflops * cores, memory_gb=64
    )
    serving = processor.with_threads(machine, threads, cores)
    found = 1e3 / _predict(llama, serving, isl=1, osl=128).tpot_ms.mean[0]
    assert tokens_per_s / 1.5 < found < tokens_per_s * 1.5


def test_a_large_model_waits_for_memory_and_a_small_one_for_arithmetic() -> None:
    llama = _like(architectures.find("llama-3.1-8b"), "q8_0", 8.54e9)
    for device in ("xeon_8480", "epyc_9654"):
        times = _predict(llama, _device(device)).times
        assert times.weights_ms[0] > times.compute_ms[0]
    small = _predict(SMALL).times
    assert small.compute_ms[0] > small.weights_ms[0]


def test_slots_share_the_reading_of_weights() -> None:
    model = _like(LARGE, "q8_0", 1142.9e6)
    times = _predict(model, concurrency=[1, 4]).times
    assert times.weights_ms[1] == pytest.approx(times.weights_ms[0])
    assert times.step_ms[0] < times.step_ms[1] < 4 * times.step_ms[0]


def test_a_prompt_is_arithmetic_and_a_cached_one_is_not_read_again() -> None:
    times = _predict(SMALL, isl=[512, 1024, 1024], prefix_hit_share=[0, 0, 0.9]).times
    assert times.prefill_ms[1] > 1.9 * times.prefill_ms[0]
    assert times.prefill_ms[2] < 0.3 * times.prefill_ms[1]


def test_requests_beyond_the_slots_wait() -> None:
    found = _predict(SMALL, concurrency=[2, 8], max_sequences=2)
    assert found.times.wait_ms[0] == 0
    # Three more rounds of a whole request each.
    assert found.ttft_ms.mean[1] > 3 * found.e2e_ms.mean[0] * 0.9
    assert found.tpot_ms.mean[1] == pytest.approx(found.tpot_ms.mean[0])


def test_fewer_threads_compute_less_and_draw_less() -> None:
    whole = replace(ZEN5, bf16_tflops=8 * 0.139, memory_bandwidth_gb_per_s=100.0)
    two = processor.with_threads(whole, 2, 8)
    assert two.bf16_tflops == pytest.approx(2 * 0.139)
    assert two.memory_bandwidth_gb_per_s == 30.0
    assert processor.with_threads(whole, 8, 8) == whole


def test_cpus_beside_gpus_are_answered_as_if_alone() -> None:
    gpu, cpu = _device("h100_sxm"), _device("epyc_9654")
    model = architectures.find("llama-3.1-8b")
    both = Predictor(ModelTable([model]), SystemTable([gpu, cpu]), predictor.trained())
    rows = from_columns(
        {"model": 0, "system": [0, 1, 0], "isl": 512, "osl": 128, "concurrency": 4, "engine": 4}
    )
    together = both.predict(rows)
    for row in range(3):
        alone = both.predict(rows.take(np.array([row])))
        assert together.tpot_ms.mean[row] == pytest.approx(alone.tpot_ms.mean[0])
        assert together.ttft_ms.mean[row] == pytest.approx(alone.ttft_ms.mean[0])
    assert together.nearby[1] == 0


def test_a_file_takes_the_memory_that_it_takes() -> None:
    table = ModelTable([SMALL]), SystemTable([ZEN5])
    held = memory.of_deployment(_rows(isl=32, osl=32), *table)
    assert held.weights[0] == SMALL.stored_bytes
    assert held.activations[0] == 512 * (49_152 + 16 * 576) * 4
    assert held.runtime[0] == memory.PROCESS_BYTES
    assert held.kv[0] == 64 * memory.kv_bytes_per_token(30, 3, 128)
    asked = memory.of_deployment(_rows(precision=0), *table)
    assert asked.weights[0] == pytest.approx(2 * SMALL.total_params)


def test_measured_products_stand_for_the_shares_of_the_float32_rate() -> None:
    measured = WeightProducts(
        q4_1_one_tflops=0.5 * 0.31 * 0.139,
        q4_1_many_tflops=2 * 0.42 * 0.139,
        q8_0_one_tflops=0.42 * 0.139,
        q8_0_many_tflops=0.7 * 0.139,
    )
    probed = replace(ZEN5, memory_bandwidth_gb_per_s=1e6, weight_products=measured)
    unprobed = replace(probed, weight_products=None)
    for stored_as, slower, quicker in (("q4_1", 2, 2), ("q4_k_m", 2, 2), ("q8_0", 1, 1)):
        rows = _rows(isl=512)
        models = ModelTable([_like(LARGE, stored_as, 8e8)])
        ours, theirs = (
            processor.times(rows, models, SystemTable([device])) for device in (probed, unprobed)
        )
        assert ours["compute_ms"] == pytest.approx(slower * theirs["compute_ms"])
        assert ours["prefill_ms"] <= theirs["prefill_ms"] / quicker * 1.2
    assert processor.with_threads(probed, 1, 2).weight_products == WeightProducts(
        *(0.5 * each for each in astuple(measured))
    )
