"""Leaderboards at 100,000 models and 1,000,000 scores, on one core: `bud bench leaderboards`."""

from __future__ import annotations

import json as json_module
import time
from typing import Any

import numpy as np
import pandas as pd

from core.leaderboards import ranking
from core.leaderboards.facts import cheapest
from core.leaderboards.schemas import Query
from core.leaderboards.standings import standings
from core.leaderboards.tasks import Benchmark, Task, TaskBoard
from core.registry import licences

_MODELS, _SCORES = 100_000, 1_000_000
_REPEATS = 9
_USE = licences.USES["Commercial chat product, 10 M users"]


def main() -> None:
    """Run alone: `python -m tests.benchmarks.leaderboards`."""
    run()


def run(json: bool = False) -> dict[str, Any]:
    """Measure; prints the figures and gives them back."""
    found = figures()
    if json:
        print(json_module.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:44} {value:>12,}")
    return found


def figures() -> dict[str, Any]:
    """Seconds to link the boards once, and milliseconds of every weighing after that."""
    # Imported here: that module runs this one.
    from tests.benchmarks.registry import synthetic, synthetic_models

    models, scores = synthetic(_MODELS, _SCORES)
    _, _, prices = synthetic_models(_MODELS)
    facts = models.set_index("id")
    facts["usd_per_million_tokens"] = cheapest(prices).reindex(facts.index)
    frame, task = _frame(scores)
    started_s = time.perf_counter()
    standing = standings(frame, task)
    known = ranking.subjects(standing, facts)
    linked_s = time.perf_counter() - started_s
    return {
        "leaderboard_models": len(standing.subjects),
        "leaderboard_scores": len(standing.entries),
        "leaderboard_boards": len(standing.boards),
        "leaderboard_link_once_s": round(linked_s, 1),
        **_weighed(standing, known, "reweigh", Query()),
        **_weighed(
            standing,
            known,
            "reweigh_filtered",
            Query(
                open_weights=True,
                parameters_to=10e9,
                use="Commercial chat product, 10 M users",
                words="qwen",
            ),
        ),
    }


def _weighed(standing: Any, known: Any, name: str, query: Query) -> dict[str, float]:
    chance = np.random.default_rng(0)
    times_ms = []
    for _ in range(_REPEATS):
        weights = {board.key: float(chance.uniform(0, 3)) for board in standing.boards}
        asked = query.model_copy(update={"weights": weights})
        started_s = time.perf_counter()
        ranking.rank(standing, known, asked, verdict=_verdict, version="synthetic")
        times_ms.append((time.perf_counter() - started_s) * 1e3)
    return {
        f"leaderboard_{name}_median_ms": round(float(np.median(times_ms)), 1),
        f"leaderboard_{name}_slowest_ms": round(max(times_ms), 1),
    }


def _verdict(key: str) -> str:
    return licences.verdict(key, _USE).outcome


def _frame(scores: pd.DataFrame) -> tuple[pd.DataFrame, Task]:
    keys = sorted(scores["board"].unique())
    frame = scores.assign(
        variant="all",
        metric="score",
        subject=scores["model_id"],
        published_name=scores["model_id"],
        organisation="",
        setting="",
        kind="score",
        higher_is_better=True,
        is_copy=False,
        is_self_reported=False,
        date="2026-11-01",
        source="synthetic (2026-11-01)",
    )
    boards = tuple(
        TaskBoard(key, key, key, "made up", (Benchmark(key, "all", "score"),)) for key in keys
    )
    return frame, Task("synthetic", "Synthetic", boards)


if __name__ == "__main__":
    main()
