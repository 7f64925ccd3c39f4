"""Views, single boards, evidence and reports, on the shipped data."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound, PermissionDenied
from core.leaderboards import ranking, report, scores, services
from core.leaderboards.schemas import OwnBoard, OwnResult, Query
from core.leaderboards.tasks import TASKS

PROJECT = "prj_default"
TOOLS = Query(
    task="tools", open_weights=True, parameters_to=10e9, use="Commercial chat product, 10 M users"
)


@pytest.fixture(autouse=True)
def _data(data_dir: Path) -> None:
    """Services read refreshed boards from a data folder; here it is empty."""


def test_the_best_small_open_model_for_tools_that_a_business_may_use(admin: Actor) -> None:
    found = services.combined(admin, PROJECT, TOOLS)
    best = found.table.iloc[0]
    assert best["score"] == found.table["score"].max()
    assert best["licence"]
    assert found.table["parameters"].max() <= 10e9
    assert found.table["open_weights"].all()
    assert set(found.table["verdict"]) <= {"yes", "conditional"}
    assert found.left_out["size"] > 0
    assert found.table["score"].is_monotonic_decreasing
    assert (found.table["low"] < found.table["score"]).all()
    why = services.evidence(admin, PROJECT, best["id"], "tools")
    assert why[0].counts
    assert (why[0].board, why[0].metric) == ("BFCL", "Overall Acc")
    assert why[0].source.startswith("ShishirPatil/gorilla@")
    assert 1 <= why[0].rank <= why[0].of


def test_a_filtered_view_speaks_of_the_boards_of_its_rows_only(admin: Actor) -> None:
    whole = services.combined(admin, PROJECT, Query(task="tools"))
    assert {board.key for board in whole.used} == {"bfcl", "tau2"}
    only_bfcl = services.combined(admin, PROJECT, Query(task="tools", words="hammer2.1"))
    assert [board.key for board in only_bfcl.used] == ["bfcl"]
    assert only_bfcl.used[0].shown == len(only_bfcl.table) > 0
    assert "Only one board, BFCL v4," in only_bfcl.notes[0]
    assert only_bfcl.dated == only_bfcl.used[0].dated
    assert only_bfcl.dated < whole.dated
    rows = list(csv.DictReader(io.StringIO(report.csv_text(only_bfcl))))
    assert rows[0]["boards_of_these_models"] == "bfcl"
    assert "of 1 publisher, that list" in report.html(only_bfcl, {})
    nothing = services.combined(admin, PROJECT, Query(task="tools", words="no such model"))
    assert (nothing.used, nothing.notes, nothing.dated) == ((), (), None)


def test_of_several_results_of_a_model_the_best_counts(admin: Actor) -> None:
    rows = services.evidence(admin, PROJECT, "qwen/qwen3-8b", "tools")
    overall = [each for each in rows if each.metric == "Overall Acc"]
    assert len(overall) > 1
    counted = [each for each in overall if each.counts]
    assert [each.score for each in counted] == [max(each.score for each in overall)]
    others = {each.standing for each in overall if not each.counts}
    assert others == {"no, another of its results counts"}
    assert {each.standing for each in rows if each.metric != "Overall Acc"} <= {"yes", "no, a part"}


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("a-b/c.d@0123456789ab (2026-01-01) rev=1", "https://github.com/a-b/c.d/tree/0123456789ab"),
        ("x.csv: litellm 1.109.1 (PyPI, MIT)", "https://github.com/BerriAI/litellm"),
        ("Our support tickets (2026-11-01)", ""),
    ],
)
def test_a_source_has_a_page(source: str, url: str) -> None:
    assert scores.source_url(source) == url


def test_every_shipped_score_links_to_its_source(admin: Actor) -> None:
    sources = scores.load(admin.tenant_id).frame["source"].unique()
    assert all(scores.source_url(each).startswith("https://github.com/") for each in sources)


def test_each_headline_of_the_metric_catalogue_enters_one_task_once() -> None:
    known = scores.metrics()
    headlines = known[known["headline"].eq(True)]
    catalogue = set(headlines[["board", "variant", "metric"]].itertuples(index=False, name=None))
    used = [
        (each.board, each.variant, each.metric)
        for task in TASKS
        for board in task.boards
        for each in board.benchmarks
    ]
    assert len(used) == len(set(used))
    assert set(used) <= catalogue
    assert catalogue - set(used) <= {
        # A text is classified or summarised; neither is what people search embeddings for.
        each
        for each in catalogue
        if each[0] == "MTEB"
    }
    assert set(headlines["kind"]) == {"score"}
    assert headlines["copy_of"].isna().all()


def test_copies_self_reports_and_unscored_figures_never_count(admin: Actor) -> None:
    for task in TASKS:
        standing, _ = services._view(admin, PROJECT, task.key)
        entries = standing.entries
        assert not (entries["is_copy"] | entries["is_self_reported"]).any()
        assert set(entries["kind"]) == {"score"}
        assert "llm-stats" not in set(entries["board"])
        assert not entries.duplicated(["board_index", "benchmark_index", "subject"]).any()


def test_a_view_says_what_a_reader_must_know(admin: Actor) -> None:
    notes = {
        task.key: " ".join(services.combined(admin, PROJECT, Query(task=task.key)).notes)
        for task in TASKS
    }
    assert "Only one board" in notes["vision"]
    assert "published by ZeroEval" in notes["reasoning"]
    assert "Over a year old: LMArena text" in notes["chat"]
    ignored = services.combined(admin, PROJECT, Query(task="tools", weights={"bfcl": 0, "tau2": 0}))
    assert ignored.notes == ("Every board has the weight 0: nothing is ranked.",)
    assert ignored.table.empty


def test_weights_change_the_order_and_wrong_ones_are_refused(admin: Actor) -> None:
    plain = services.combined(admin, PROJECT, Query(task="code")).table
    weighed = services.combined(
        admin, PROJECT, Query(task="code", weights={"aider-polyglot": 0, "evalplus": 3})
    ).table
    assert list(plain["id"].head(5)) != list(weighed["id"].head(5))
    with pytest.raises(InvalidInput, match="no board 'bfcl'"):
        services.combined(admin, PROJECT, Query(task="code", weights={"bfcl": 1}))
    with pytest.raises(InvalidInput, match="out of range"):
        services.combined(admin, PROJECT, Query(task="code", weights={"crux": float("nan")}))
    with pytest.raises(InvalidInput, match="no use 'war'"):
        services.combined(admin, PROJECT, Query(use="war"))
    with pytest.raises(NotFound, match="no task 'cooking'"):
        services.combined(admin, PROJECT, Query(task="cooking"))


def test_filters_keep_what_fits_and_count_what_is_not_known(admin: Actor) -> None:
    query = Query(
        task="chat",
        usd_to=1.0,
        context_from=100_000,
        released_from=date(2025, 1, 1),
        words="qwen",
    )
    table = services.combined(admin, PROJECT, query).table
    assert len(table) > 0
    assert (table["usd_per_million_tokens"] <= 1.0).all()
    assert (table["context_tokens"] >= 100_000).all()
    assert (pd.to_datetime(table["release_date"], format="mixed") >= "2025-01-01").all()
    assert (table["name"] + table["organisation"]).str.lower().str.contains("qwen").all()


def test_a_board_stands_as_published_in_its_own_order(admin: Actor) -> None:
    found = services.board(admin, PROJECT, "vectara hhem")
    assert found.ordered_by == "Hallucination Rate"
    assert found.table["Hallucination Rate"].is_monotonic_increasing
    aider = services.board(admin, PROJECT, "Aider", "architect")
    assert aider.table["is_copy"].all()
    reports = services.board(admin, PROJECT, "llm-stats")
    assert reports.table["is_self_reported"].any()
    with pytest.raises(NotFound, match="no board 'BFLC'") as error:
        services.board(admin, PROJECT, "BFLC")
    assert "BFCL" in error.value.remedy
    with pytest.raises(NotFound, match="no metric"):
        services.board(admin, PROJECT, "BFCL", order_by="Luck")


def test_a_zero_that_stands_for_unknown_is_no_value(admin: Actor) -> None:
    table = services.board(admin, PROJECT, "Aider", "edit_leaderboard", "total_cost").table
    assert table["total_cost"].isna().any()
    assert table["total_cost"].min() > 0
    # The cheapest first, those of unknown cost last.
    assert table["total_cost"].iloc[0] == table["total_cost"].min()
    sonnet = table[table["published_name"] == "claude-3-5-sonnet-20241022"]
    assert sonnet["total_cost"].isna().all()
    # Elsewhere 0 is a value.
    puzzles = services.board(admin, PROJECT, "ZeroEval").table
    assert (puzzles.select_dtypes("number") == 0).any().any()


def test_boards_say_how_old_they_are_and_what_is_not_resolved(admin: Actor) -> None:
    found = {board.name: board for board in services.boards(admin, PROJECT)}
    assert len(found) == 13
    assert found["WildBench"].is_stale
    assert found["WildBench"].dated == date(2024, 8, 1)
    assert found["llm-stats"].self_reported > 2000
    assert found["Aider"].unresolved > 0
    assert all(board.can_refresh for board in found.values())


def test_models_are_compared_over_tasks_and_boards(admin: Actor) -> None:
    chosen = services.find_models(admin, PROJECT, ["QWEN/qwen3-8b", "deepseek/deepseek-r1"])
    by_task = services.by_task(admin, PROJECT, chosen)
    assert set(by_task["id"]) == set(chosen)
    assert {"code", "reasoning"} <= set(by_task.loc[by_task["id"] == chosen[1], "task"])
    shown = services.on_boards(admin, PROJECT, "code", chosen)
    assert shown["share"].between(0, 1).all()
    assert (shown["source"] != "").all()
    with pytest.raises(NotFound, match="no model 'qwen/qwen3-9b'") as error:
        services.find_models(admin, PROJECT, ["qwen/qwen3-9b"])
    assert "qwen/qwen3-8b" in error.value.remedy


def test_pareto_and_trend_leave_only_models_that_none_beats(admin: Actor) -> None:
    table = services.combined(admin, PROJECT, Query(task="code")).table
    front = ranking.pareto(table, "usd_per_million_tokens")
    assert front["score"].is_monotonic_increasing
    priced = table[table["usd_per_million_tokens"].notna()]
    for row in front.itertuples():
        cheaper = priced[priced["usd_per_million_tokens"] <= row.usd_per_million_tokens]
        assert cheaper["score"].max() == row.score
    leaders = ranking.trend(table)
    assert set(leaders) == {"open", "closed"}
    assert all(each["score"].is_monotonic_increasing for each in leaders.values())


def test_the_report_is_one_file_with_query_date_and_version(admin: Actor) -> None:
    found = services.combined(admin, PROJECT, TOOLS)
    best = found.table["id"].iloc[0]
    html = report.html(found, {best: services.evidence(admin, PROJECT, best, "tools")})
    assert html.startswith("<!doctype html>")
    assert "<script" not in html
    assert "<svg" in html
    for said in (found.version, str(found.dated), "Commercial chat product, 10 M users"):
        assert said in html
    for label, value in (("Parameters, at most", "10 B"), ("Open weights only", "yes")):
        assert f"<td>{label}</td><td>{value}</td>" in html
    assert 'href="https://github.com/ShishirPatil/gorilla/tree/' in html
    rows = list(csv.DictReader(io.StringIO(report.csv_text(found))))
    assert len(rows) == len(found.table)
    assert rows[0]["id"] == best
    assert rows[0]["data_version"] == found.version
    assert rows[0]["asked_use"] == TOOLS.use
    assert rows[0]["weight_bfcl"] == "1"


@pytest.fixture
def own_board() -> Iterator[OwnBoard]:
    board = OwnBoard(
        key="own-agents",
        title="Our support tickets",
        task="tools",
        what="closes tickets of our own",
        unit="%",
        higher_is_better=True,
        measured_on=date(2026, 11, 1),
        results=(
            OwnResult(model_id="meta/llama-3.2-1b-instruct", score=91.0),
            OwnResult(model_id="qwen/qwen3-8b", score=70.0),
            OwnResult(model_id="qwen/qwen3-1.7b", score=40.0),
        ),
    )

    def source(_actor: Actor, project_id: str) -> list[OwnBoard]:
        return [board] if project_id == PROJECT else []

    services.register_own_boards(source)
    yield board
    services._own_sources.remove(source)


def test_own_results_join_as_one_more_board_of_their_project(
    admin: Actor, own_board: OwnBoard
) -> None:
    found = services.combined(admin, PROJECT, Query(task="tools", weights={"own-agents": 3}))
    assert [board.title for board in found.boards][-1] == own_board.title
    alone = services.combined(admin, "prj_other", Query(task="tools"))
    assert len(alone.boards) == len(found.boards) - 1
    small = "meta/llama-3.2-1b-instruct"
    position = found.table.set_index("id")["position"]
    assert position[small] < alone.table.set_index("id")["position"][small]
    mine = services.evidence(admin, PROJECT, small, "tools")
    assert any(each.board == "own-agents" and each.counts for each in mine)


def test_quality_serves_other_domains(admin: Actor) -> None:
    found = services.quality(admin, PROJECT, "tools")
    best = found["qwen/qwen3-8b"]
    assert best.low < best.score < best.high
    assert 1 <= best.rank <= best.of
    assert np.isfinite([each.score for each in found.values()]).all()


def test_who_may_not_see_models_sees_no_leaderboard() -> None:
    stranger = Actor("usr_x", "x@example.org", "ten_default", "member", {})
    with pytest.raises(PermissionDenied):
        services.combined(stranger, PROJECT, Query())
    with pytest.raises(PermissionDenied):
        services.boards(stranger, PROJECT)
