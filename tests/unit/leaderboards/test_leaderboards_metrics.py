"""The metric catalogue: every published figure is of a known kind, unit and range."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from core.kernel.errors import InvalidInput
from core.leaderboards import scores_build
from core.leaderboards.scores_build import DATA, metrics
from core.registry import catalogue

KINDS = {"score", "cost", "speed", "metadata"}
TASKS = {
    "chat",
    "code",
    "tools",
    "reasoning",
    "embeddings",
    "speech",
    "vision",
    "factuality",
    "image",
}


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    frame = pd.read_parquet(DATA / "scores.parquet")
    known = pd.DataFrame([vars(metric) for metric in metrics().values()])
    return frame.merge(known, on=["board", "variant", "metric"], how="left", indicator=True)


def test_every_published_figure_is_in_the_catalogue_and_in_its_range(scores: pd.DataFrame) -> None:
    assert (scores["_merge"] == "both").all()
    low, high = scores["low"].fillna(float("-inf")), scores["high"].fillna(float("inf"))
    outside = scores[(scores["score"] < low) | (scores["score"] > high)]
    assert outside.empty, outside[["board", "variant", "metric", "score"]].head()


def test_no_figure_got_lost_on_the_way(scores: pd.DataFrame) -> None:
    """27,985 figures were published; what is left out is listed with its reason."""
    with (DATA / "left_out.csv").open(encoding="utf-8") as lines:
        left_out = list(csv.DictReader(lines))
    assert len(scores) + len(left_out) == 27_985
    assert all(row["why"] for row in left_out)
    assert not any(row["why"] == "out of the metric's range" for row in left_out)


def test_kinds_units_and_ranges_are_told_apart() -> None:
    for metric in metrics().values():
        assert metric.kind in KINDS, metric
        assert metric.task in TASKS, metric
        assert metric.unit, metric
        if metric.kind == "score":
            assert metric.higher_is_better is not None, metric
        if metric.unit == "%" and metric.kind == "score":
            assert (metric.low, metric.high) == (0, 100), metric
        if metric.unit == "fraction":
            assert (metric.low, metric.high) == (0, 1), metric
        if metric.kind == "cost":
            assert (metric.unit, metric.higher_is_better) == ("USD", False), metric


@pytest.mark.parametrize(
    ("key", "kind", "unit", "higher_is_better", "task"),
    [
        (("LMArena", "text", "arena_score"), "score", "Elo", True, "chat"),
        (("LMArena", "text", "votes"), "metadata", "votes", None, "chat"),
        (("BFCL", "v4 overall", "Overall Acc"), "score", "%", True, "tools"),
        (("BFCL", "v4 overall", "Total Cost ($)"), "cost", "USD", False, "tools"),
        (("BFCL", "v4 overall", "Latency Mean (s)"), "speed", "s", False, "tools"),
        (("AlpacaEval", "AlpacaEval 1.0 (gpt4)", "standard_error"), "metadata", "%", None, "chat"),
        (("Open ASR", "en_shortform", "Avg. WER"), "score", "% WER", False, "speech"),
        (("Open ASR", "en_shortform", "RTFx"), "speed", "× real time", True, "speech"),
        (("Vectara HHEM", "leaderboard", "Hallucination Rate"), "score", "%", False, "factuality"),
        (("MTEB", "STS12/test", "main_score"), "score", "correlation", True, "embeddings"),
        (("llm-stats", "MMLU", "5-shot"), "score", "fraction", True, "reasoning"),
        (("llm-stats", "CFEval", "score"), "score", "rating", True, "code"),
        (("llm-stats", "LongFact-Objects", None), "score", "fraction", False, "factuality"),
    ],
)
def test_well_known_metrics(
    key: tuple[str, str, str | None], kind: str, unit: str, higher_is_better: bool | None, task: str
) -> None:
    found = [
        metric
        for metric in metrics().values()
        if (metric.board, metric.variant) == key[:2] and key[2] in (None, metric.metric)
    ]
    assert found
    assert {(each.kind, each.unit, each.higher_is_better, each.task) for each in found} == {
        (kind, unit, higher_is_better, task)
    }


def test_only_own_scores_are_headlines() -> None:
    for metric in metrics().values():
        if metric.is_headline:
            assert metric.kind == "score"
            assert not metric.copy_of
            assert metric.board != "llm-stats"


def test_copies_of_other_boards_are_marked(scores: pd.DataFrame) -> None:
    repeated = scores[scores["board"] == "WildBench"].groupby("metric")["is_copy"].all()
    assert repeated[["AE2.0", "AE2.0 LC", "Arena-Hard v0.1"]].all()
    assert repeated[[name for name in repeated.index if name.startswith("Arena Elo")]].all()
    assert not repeated["WB_Elo"]
    vendors = scores[scores["board"] == "llm-stats"]
    assert vendors[vendors["variant"].isin(["BFCL v3", "Aider-Polyglot", "Arena Hard"])][
        "is_copy"
    ].all()
    assert not vendors[vendors["variant"] == "GPQA"]["is_copy"].any()


def test_reports_of_vendors_are_marked(scores: pd.DataFrame) -> None:
    assert scores[scores["board"] == "llm-stats"]["is_self_reported"].sum() == 2_206
    taken_over = scores["source"].str.contains("rev=external")
    assert scores[taken_over]["is_self_reported"].all()
    assert not scores[~taken_over & (scores["board"] != "llm-stats")]["is_self_reported"].any()


def test_scores_name_models_of_the_catalogue_and_boards_are_described(scores: pd.DataFrame) -> None:
    named = set(scores["model_id"].dropna())
    assert named <= set(catalogue.models()["id"])
    assert scores["model_id"].notna().mean() > 0.98
    with (DATA / "boards.csv").open(encoding="utf-8") as lines:
        assert {row["board"] for row in csv.DictReader(lines)} == set(scores["board"])


def row(**changed: str) -> dict[str, str]:
    return {
        "benchmark": "Open ASR",
        "variant": "en_shortform",
        "metric": "RTFx",
        "model_name": "nvidia/parakeet-ctc-1.1b",
        "score": "12.5",
        "date": "20260821",
        "organization": "",
        "model_link": "",
        "licence_of_model": "",
        "self_reported": "",
        "source": "a board (2026-08-21)",
        **changed,
    }


NAMES: dict[tuple[str, str, str], tuple[str | None, str]] = {
    (name, "", "benchmark_results.csv: Open ASR"): (f"made/{name}", "")
    for name in ("nvidia/parakeet-ctc-1.1b", "Example-Model")
}


def test_build_dates_rows_and_lists_what_it_leaves_out(tmp_path: Path) -> None:
    built = scores_build.build([row(), row(score="-1"), row(model_name="Example-Model")], NAMES)
    (kept,) = built.scores
    assert (kept["score"], kept["date"], kept["model_id"]) == (
        12.5,
        "2026-08-21",
        "made/nvidia/parakeet-ctc-1.1b",
    )
    reasons: list[Any] = sorted(each["why"] for each in built.left_out)
    assert reasons == ["-1 stands for not measured", "a row of the board's template, not a model"]
    scores_build.write(built, tmp_path)
    again = tmp_path / "again"
    again.mkdir()
    scores_build.write(
        scores_build.build([row(model_name="Example-Model"), row(score="-1"), row()], NAMES), again
    )
    for file in ("scores.parquet", "left_out.csv"):
        assert (tmp_path / file).read_bytes() == (again / file).read_bytes()


def test_build_refuses_a_metric_that_nobody_described() -> None:
    with pytest.raises(InvalidInput, match="metric catalogue"):
        scores_build.build([row(metric="Vibes")], NAMES)
