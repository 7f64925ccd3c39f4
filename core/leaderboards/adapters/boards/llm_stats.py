"""llm-stats: one `benchmarks.json` a model, in folders by organisation.

The repository was given up in October 2025 for an interface that wants a key: what is read here
grows no more. Most rows are what vendors report, and say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from core.leaderboards.adapters.boards.rows import Read, Row, Source, format_changed, number

_FOLDER = "data/organizations"
_FILE = "benchmarks.json"


def _rows(read: Read) -> Iterator[Row]:
    paths = [path for path in read.paths(_FOLDER) if path.endswith(f"/{_FILE}")]
    if not paths:
        raise format_changed(f"{_FILE} below {_FOLDER}/")
    for path in paths:
        # data/organizations/<organisation>/models/<model>/benchmarks.json
        _, _, organisation, _, model, _ = path.split("/")
        results = json.loads(read(path))
        if not isinstance(results, list):
            raise format_changed("list of results")
        for result in results:
            score = number(result.get("score"))
            if score is not None:
                yield Row(
                    str(result["benchmark_name"]),
                    str(result.get("analysis_method") or "score"),
                    model,
                    score,
                    organisation=organisation,
                    date=str(result.get("created_at") or "")[:10],
                    link=str(result.get("self_reported_source_link") or ""),
                    is_self_reported=bool(result.get("is_self_reported")),
                )


SOURCE = Source("JonathanChavezTamales/llm-leaderboard", "main", _rows)
