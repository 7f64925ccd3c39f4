"""Own results as one more board: the place where evaluations join the leaderboards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd

from core.kernel.actor import Actor
from core.leaderboards.schemas import OwnBoard
from core.leaderboards.tasks import Benchmark, Task, TaskBoard

OwnSource = Callable[[Actor, str], Sequence[OwnBoard]]

_PUBLISHER = "Own results"
_METRIC = "score"


def own_task(task: Task, boards: Sequence[OwnBoard]) -> Task:
    """The task with the own boards that measure it."""
    added = tuple(
        TaskBoard(
            each.key, each.title, _PUBLISHER, each.what, (Benchmark(each.key, "own", _METRIC),)
        )
        for each in boards
        if each.task == task.key
    )
    return replace(task, boards=task.boards + added)


def own_rows(boards: Sequence[OwnBoard]) -> pd.DataFrame:
    """Own results in the columns of `scores.Scores.frame`."""
    return pd.DataFrame(
        [
            {
                "board": each.key,
                "variant": "own",
                "metric": _METRIC,
                "published_name": result.model_id,
                "organisation": "",
                "score": result.score,
                "model_id": result.model_id,
                "subject": result.model_id,
                "date": each.measured_on.isoformat(),
                "link": result.link,
                "licence_as_published": "",
                "source": f"{each.title} ({each.measured_on})",
                "is_self_reported": False,
                "is_copy": False,
                "kind": "score",
                "unit": each.unit,
                "task": each.task,
                "note": each.what,
                "higher_is_better": each.higher_is_better,
                "headline": True,
            }
            for each in boards
            for result in each.results
        ]
    )
