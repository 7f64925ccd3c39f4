"""What the leaderboards say where there is nothing to show, and what their charts draw."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from app.widgets import leaderboards_charts as charts
from app.widgets.leaderboards import what_to_change
from app.widgets.leaderboards_boards import heads
from app.widgets.leaderboards_model import why_not_deployable
from core.leaderboards.schemas import BoardTable, Query


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (Query(words=" zzzzqq "), "No model or maker of this task is called “zzzzqq”. "),
        (Query(parameters_to=0), "No model of this task fits at most 0B parameters. "),
        (Query(usd_to=0.5), "No model of this task fits at most 0.5 USD per million tokens. "),
        (
            Query(words="qwen", open_weights=True),
            "Asked for at once: “qwen”, open weights. Change one of them, or take it away.",
        ),
        (Query(weights={"bfcl": 0.0}), "Give a board of this task a weight."),
        (Query(), ""),
    ],
)
def test_only_what_is_set_is_named_where_no_model_fits(query: Query, said: str) -> None:
    assert what_to_change(query).startswith(said)
    assert bool(said) == bool(what_to_change(query))
    if "licence" not in said:
        assert "licence" not in what_to_change(query)


@pytest.mark.parametrize(
    ("is_open", "hub_id", "why"),
    [
        (True, None, ""),
        (None, "Qwen/Qwen3-8B", ""),
        (False, "Qwen/Qwen3-8B", ""),
        (False, pd.NA, "Its weights are not published"),
        (None, None, "Bud knows neither a repository nor published weights of it."),
        (pd.NA, pd.NA, "Bud knows neither a repository nor published weights of it."),
    ],
)
def test_deploy_is_offered_only_with_weights_or_a_repository(
    is_open: object, hub_id: object, why: str
) -> None:
    said = why_not_deployable(is_open, hub_id)
    assert said.startswith(why)
    assert bool(said) == bool(why)


def _ranking(**columns: Any) -> pd.DataFrame:
    rows = {
        "position": [1, 2, 3, 4],
        "name": ["a" * 40, "b", "c", "d"],
        "score": [60.0, 55.0, 50.0, 45.0],
        "low": [56.0, 50.0, 46.0, 40.0],
        "high": [64.0, 60.0, 54.0, 50.0],
        "boards": [1, 1, 1, 1],
        "open_weights": [True, True, False, True],
        "parameters": [8e9, 7e9, 8e9, 1e9],
        "release_date": ["2025-01-01", None, "2024-05-01", None],
    }
    return pd.DataFrame(rows | columns)


def test_a_trend_needs_release_dates_and_names_only_what_it_draws() -> None:
    assert charts.trend(_ranking(release_date=None)) is None
    assert charts.trend(_ranking(open_weights=None)) is None
    figure = charts.trend(_ranking(open_weights=[True, True, None, True]))
    assert figure is not None
    assert [trace.name for trace in figure.data] == ["best open weights"]


def test_the_rarest_kind_lies_on_top_and_the_names_have_room() -> None:
    figure = charts.trade_off(_ranking(), "parameters", "parameters (billions)", 1e9)
    assert figure is not None
    kinds = [trace.name for trace in figure.data if trace.name in ("open weights", "closed")]
    assert kinds == ["open weights", "closed"]
    low, high = figure.layout.xaxis.range
    assert low < -0.3
    assert high > 0.9
    assert len(figure.layout.xaxis.tickvals) <= 7


def test_names_stand_in_the_plot_of_the_bands_and_take_nothing_from_its_width() -> None:
    figure = charts.bands(_ranking())
    assert figure.layout.yaxis.showticklabels is False
    assert [note.text[:2] for note in figure.layout.annotations] == ["4.", "3.", "2.", "1."]


def test_a_model_without_a_figure_is_not_in_the_legend() -> None:
    board = {"title": "BFCL", "metric": "Overall", "share": 0.5, "score": 50.0, "unit": "%"}
    shown = pd.DataFrame([{"id": "qwen/a", **board}, {"id": "qwen/b", **board, "share": None}])
    names = {"qwen/a": "A", "qwen/b": "B", "qwen/c": "C"}
    figure = charts.parallel(shown, names)
    assert [trace.name for trace in figure.data] == ["A"]
    assert figure.layout.showlegend is True
    by_task = pd.DataFrame(
        [{"id": "qwen/a", "title": title, "score": 50.0} for title in ("Chat", "Code", "Tools")]
    )
    assert [trace.name for trace in charts.radar(by_task, names).data] == ["A"]


def test_costs_and_times_of_a_board_have_their_units_in_their_heads() -> None:
    metrics = pd.DataFrame(
        {"kind": ["score", "cost", "speed", "cost"], "unit": ["%", "USD", "s", "USD"]},
        index=["pass_rate_2", "total_cost", "seconds_per_case", "Total Cost ($)"],
    )
    board = BoardTable("Aider", "polyglot", ("polyglot",), "pass_rate_2", pd.DataFrame(), metrics)
    assert heads(board) == {
        "total_cost": "total_cost (USD)",
        "seconds_per_case": "seconds_per_case (s)",
    }
