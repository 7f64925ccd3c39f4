"""ZeroEval: one summary a task, a JSON list of models."""

from __future__ import annotations

import json
from collections.abc import Iterator

from core.leaderboards.adapters.boards.rows import Read, Row, Source, figures, format_changed

_TASKS = ("zebra-grid", "mmlu-redux", "gsm", "math-l5", "crux", "numersense-v2")


def _rows(read: Read) -> Iterator[Row]:
    for task in _TASKS:
        models = json.loads(read(f"result_dirs/{task}.summary.json"))
        if not isinstance(models, list):
            raise format_changed("list of models")
        for record in models:
            yield from figures(record, task, str(record["Model"]), ("Model", "Mode"))


SOURCE = Source("WildEval/ZeroEval", "main", _rows)
