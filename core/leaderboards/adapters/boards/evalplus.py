"""EvalPlus: `results.json`, a model's name with its link and its pass@1."""

from __future__ import annotations

import json
from collections.abc import Iterator

from core.leaderboards.adapters.boards.rows import Read, Row, Source, figures, format_changed


def _rows(read: Read) -> Iterator[Row]:
    for name, about in json.loads(read("results.json")).items():
        if not isinstance(about, dict) or "pass@1" not in about:
            raise format_changed("'pass@1' of a model")
        yield from figures(about["pass@1"], "pass@1", name, (), link=str(about.get("link") or ""))


SOURCE = Source("evalplus/evalplus.github.io", "main", _rows)
