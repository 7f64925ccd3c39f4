"""The analytic model behaves as the physics says, whatever its coefficients."""

import numpy as np
import pytest

from core.simulation import dataset
from core.simulation.calibration import describe, from_description
from core.simulation.roofline import COEFFICIENTS, PRIOR, Roofline, Times, explain
from core.simulation.scenarios import ENGINES, PRECISIONS, from_columns


@pytest.fixture(scope="module")
def tables():
    return dataset.tables()


def times(tables, model="llama-3.1-70b", system="h200_sxm", precision="fp8", **columns) -> Times:
    models, systems = tables
    named = {
        "model": models.ids[model],
        "system": systems.ids[system],
        "engine": ENGINES.index("vllm"),
        "precision": PRECISIONS.index(precision),
    }
    defaults = {"isl": 1024, "osl": 256, "concurrency": 8, "tp": 4}
    return Roofline(models, systems, PRIOR).times(from_columns(named | defaults | columns))


def test_more_load_takes_longer(tables):
    found = times(tables, concurrency=[1, 4, 16, 64, 256])
    assert (np.diff(found.tpot_ms) > 0).all()
    assert (np.diff(found.ttft_ms) > 0).all()


def test_longer_prompts_take_longer_and_cached_ones_less(tables):
    found = times(tables, isl=[512, 2048, 8192, 32768])
    assert (np.diff(found.prefill_ms) > 0).all()
    cached = times(tables, isl=8192, prefix_hit_share=[0.0, 0.5, 0.9])
    assert (np.diff(cached.ttft_ms) < 0).all()


def test_a_lone_decode_step_is_bound_by_reading_the_weights(tables):
    wide, narrow = (times(tables, precision=name, concurrency=1) for name in ("bf16", "fp8"))
    assert wide.weights_ms[0] > 1.7 * narrow.weights_ms[0]
    assert narrow.weights_ms[0] > 10 * narrow.compute_ms[0]


def test_few_tokens_read_few_experts(tables):
    one, many = times(tables, model="deepseek-v3", concurrency=[1, 256], tp=8).weights_ms
    assert many > 5 * one


def test_tensor_parallel_devices_share_the_work_and_pay_for_talking(tables):
    two, eight = (times(tables, tp=tp) for tp in (2, 8))
    assert eight.weights_ms[0] == pytest.approx(two.weights_ms[0] / 4, rel=0.05)
    assert eight.communication_ms[0] > two.communication_ms[0]
    assert eight.prefill_ms[0] < two.prefill_ms[0]


def test_requests_that_do_not_fit_wait(tables):
    found = times(tables, isl=32768, concurrency=[8, 4096])
    assert found.wait_ms[0] == 0
    assert found.wait_ms[1] > 0
    assert found.pressure[1] > 1


def test_windows_and_linear_layers_keep_long_contexts_cheap(tables):
    growth = {}
    for model in ("gpt-oss-120b", "qwen3.5-397b-a17b", "llama-3.1-70b"):
        found = times(tables, model=model, precision="bf16", isl=[4096, 32768], tp=8)
        growth[model] = found.kv_ms[1] / found.kv_ms[0]
    assert growth["gpt-oss-120b"] < growth["llama-3.1-70b"]
    assert growth["qwen3.5-397b-a17b"] < growth["llama-3.1-70b"]


def test_speculative_decoding_and_disaggregation_shorten_tpot(tables):
    plain, drafted = times(tables, speculation=[1, 2]).tpot_ms
    assert drafted < plain
    sides = {f"{side}_{name}": 1 for side in ("prefill", "decode") for name in ("workers", "pp")}
    split = times(tables, mode=1, prefill_tp=4, decode_tp=4, isl=8192, concurrency=32, **sides)
    joint = times(tables, isl=8192, concurrency=32)
    assert split.tpot_ms[0] < joint.tpot_ms[0]


def test_pipeline_stages_pay_with_bubbles(tables):
    flat, staged = times(tables, tp=8), times(tables, tp=4, pp=2)
    assert staged.tpot_ms[0] > flat.tpot_ms[0]


def test_mixed_rows_are_answered_in_order(tables):
    sides = {"prefill_tp": 4, "decode_tp": 4, "prefill_workers": 1, "decode_workers": 1}
    mixed = times(tables, mode=[0, 1, 0], concurrency=[8, 8, 64], **sides)
    alone = [times(tables, mode=m, concurrency=c, **sides) for m, c in ((0, 8), (1, 8), (0, 64))]
    assert mixed.ttft_ms == pytest.approx([each.ttft_ms[0] for each in alone])


def test_the_parts_of_a_step_are_named_for_people(tables):
    assert list(explain(times(tables))) == [
        "weights",
        "KV cache",
        "compute",
        "communication",
        "kernels and scheduler",
    ]


def test_coefficients_survive_being_written_by_name():
    changed = PRIOR + np.linspace(-0.1, 0.1, len(PRIOR))
    assert from_description(describe(changed)) == pytest.approx(changed)
    assert len({each.name for each in COEFFICIENTS}) == len(COEFFICIENTS)
