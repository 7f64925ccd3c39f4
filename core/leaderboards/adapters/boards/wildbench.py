"""WildBench: the judge's marks, `score.json`. Its table that repeats other boards is not read."""

from __future__ import annotations

import json
from collections.abc import Iterator

from core.leaderboards.adapters.boards.rows import Read, Row, Source, figures, format_changed

_BY_TASK = "task_categorized_scores"


def _rows(read: Read) -> Iterator[Row]:
    models = json.loads(read("leaderboard/data_dir/score.json"))
    if not isinstance(models, dict):
        raise format_changed("models by name")
    for name, marks in models.items():
        yield from figures(marks, "wb-score", name, (_BY_TASK, "model"))
        by_task = {f"{_BY_TASK}/{task}": mark for task, mark in marks.get(_BY_TASK, {}).items()}
        yield from figures(by_task, "wb-score", name, ())


SOURCE = Source("allenai/WildBench", "main", _rows)
