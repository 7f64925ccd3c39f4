"""Why repeats of one configuration differ: the rules on rows made by hand, and the shipped rows."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from app import repeats_report
from core.simulation import cleaning, repeats

_RUN = {
    **dict.fromkeys(cleaning.COLUMNS, 0),
    "source": cleaning.SILICON,
    "source_id": "2026_03_25_c8_1",
    "model": "deepseek-v3",
    "system": "b200_sxm",
    "engine": "trtllm",
    "engine_version": "1.2.0",
    "precision": "fp8",
    "mode": "agg",
    "spec_decoding": "",
    "measured_on": "2026-02-05",
    "lengths": "random",
    "concurrency": 8,
    "tpot_ms": 10.0,
    "ttft_ms": 200.0,
    "ttft_p50_ms": float("nan"),
}
_DATABASE = {"source_id": "c8_cfg75"}


def _rows(*rows: dict[str, Any]) -> pd.DataFrame:
    table = pd.DataFrame([_RUN | row for row in rows])
    texts = {name: "string" for name, value in _RUN.items() if isinstance(value, str)}
    return repeats.prepared(table.astype(texts))


def _marked(labels: pd.Series) -> list[bool]:
    return (labels != 0).tolist()


def _curve(tpot_ms: tuple[float, float], ttft_ms: float, **changes: Any) -> list[dict[str, Any]]:
    return [
        {"concurrency": concurrency, "tpot_ms": tpot, "ttft_ms": ttft_ms, **changes}
        for concurrency, tpot in zip((4, 64), tpot_ms, strict=True)
    ]


@pytest.mark.parametrize(
    ("tpot_ms", "ttft_ms", "is_speculative"),
    [
        ((5.0, 18.0), 210.0, True),  # half of the steps are saved; with 64 in flight, a tenth
        ((5.0, 18.0), 150.0, False),  # a better engine is faster to the first token as well
        ((8.5, 15.0), 210.0, False),  # drafts save the most where little is in flight
    ],
)
def test_drafts_show_in_the_steps_at_low_concurrency_and_not_in_the_prefill(
    tpot_ms, ttft_ms, is_speculative
):
    rows = _rows(*_curve(tpot_ms, ttft_ms), *_curve((10.0, 20.0), 200.0, **_DATABASE))
    assert _marked(repeats.speculative(rows)) == [is_speculative] * 2 + [False] * 2


def test_a_sweep_that_is_found_is_marked_where_it_has_no_repeats_too():
    alone = {"isl": 8192, "tpot_ms": 6.0}
    rows = _rows(*_curve((5.0, 18.0), 210.0), *_curve((10.0, 20.0), 200.0, **_DATABASE), alone)
    assert _marked(repeats.speculative(rows)) == [True, True, False, False, True]


def test_one_shared_point_is_not_enough():
    rows = _rows({"tpot_ms": 5.0}, {"tpot_ms": 10.0, **_DATABASE})
    assert _marked(repeats.speculative(rows)) == [False, False]


def test_a_copy_has_the_times_of_another_row_in_hundredths():
    exact = {"tpot_ms": 7.4232, "ttft_ms": 163.7251}
    rounded = {"tpot_ms": 7.42, "ttft_ms": 163.73}
    other = {"tpot_ms": 7.42, "ttft_ms": 163.80}
    assert _marked(repeats.copies(_rows(exact, rounded, other))) == [False, True, False]


def test_a_row_of_a_rarer_engine_version_is_compared_with_its_like():
    old = {"engine_version": "1.1.0"}
    labels = repeats.versions(_rows({}, old, {}, old, {}))
    assert _marked(labels) == [False, True, False, True, False]
    assert labels[1] == labels[3]


def test_a_disturbed_point_stands_above_the_curve_behind_it():
    curve = [{"concurrency": c, "tpot_ms": t} for c, t in ((8, 4.7), (32, 15.9), (64, 9.7))]
    other = {"concurrency": 64, "tpot_ms": 1.0, **_DATABASE}
    assert _marked(repeats.disturbed(_rows(*curve, other))) == [False, True, False, False]


def test_a_slow_start_needs_a_median_far_below_the_mean():
    rows = _rows(
        {"ttft_ms": 7500.0, "ttft_p50_ms": 640.0},
        {"ttft_ms": 900.0, "ttft_p50_ms": 640.0},
        {"ttft_ms": 90.0, "ttft_p50_ms": 30.0},
        {"ttft_ms": 7500.0},
    )
    assert _marked(repeats.slow_starts(rows)) == [True, False, False, False]


def test_disaggregated_rows_without_numbers_of_workers_are_compared_with_nothing():
    labels = repeats.unnamed_workers(_rows({"mode": "disagg"}, {"mode": "disagg"}, {}))
    assert labels.tolist() == [1, 2, 0]


def test_the_shipped_rows_give_the_documented_table():
    report = repeats.of_shipped()
    found = {
        (step.scope, step.cause): (
            *(step.marked, step.left.groups, step.left.rows),
            *(round(step.left.tpot_mean, 1), round(step.left.ttft_mean, 1)),
        )
        for step in report.steps
    }
    silicon = "aggregated, nvidia_silicon"
    assert found[silicon, ""] == (0, 259, 557, 15.5, 20.0)
    assert found[silicon, "unnamed speculative decoding"] == (82, 117, 270, 5.7, 17.0)
    assert found[silicon, "slow start"] == (0, 75, 176, 3.3, 10.4)
    assert found["aggregated", "slow start"] == (98, 291, 718, 1.7, 6.9)
    assert found["disaggregated", "slow start"] == (94, 74, 183, 1.1, 4.0)
    assert [(each.rows, each.marked) for each in report.controls] == [(61, 61), (1086, 0)]
    named, by_rule = (ratio for ratio in report.ratios if ratio.concurrency == "1 to 8")
    assert (named.points, by_rule.points) == (4, 33)
    assert named.tpot < 0.65 < 0.9 < named.ttft
    assert by_rule.tpot < 0.65 < 0.9 < by_rule.ttft
    lines = [" ".join(line.split()) for line in repeats_report.text(report).splitlines()]
    assert f"{silicon} unnamed speculative decoding 82 117 270 5.7 2.9 17.0 6.3" in lines
    assert "mtp 61 61" in lines
