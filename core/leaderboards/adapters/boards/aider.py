"""Aider's leaderboards: one YAML list of runs a page."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from core.leaderboards.adapters.boards.rows import Read, Row, Source, format_changed, number

_PAGES = (
    "polyglot_leaderboard",
    "edit_leaderboard",
    "refactor_leaderboard",
    "architect",
    "o1_polyglot_leaderboard",
    "quant",
    "qwen3_leaderboard",
    "r1_architect",
)
_METRICS = (
    "pass_rate_1",
    "pass_rate_2",
    "percent_cases_well_formed",
    "seconds_per_case",
    "test_cases",
    "total_cost",
)


def _rows(read: Read) -> Iterator[Row]:
    for page in _PAGES:
        runs = yaml.safe_load(read(f"aider/website/_data/{page}.yml"))
        if not isinstance(runs, list):
            raise format_changed("list of runs")
        for run in runs:
            day = str(run.get("date", ""))
            for metric in _METRICS:
                score = number(run.get(metric))
                if score is not None:
                    yield Row(page, metric, str(run["model"]), score, date=day)


SOURCE = Source("Aider-AI/aider", "main", _rows)
