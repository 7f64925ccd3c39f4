"""Open ASR leaderboard: one CSV file a table; -1 stands for a speed that nobody measured."""

from __future__ import annotations

from collections.abc import Iterator

from core.leaderboards.adapters.boards.rows import Read, Row, Source, csv_rows, figures

# Table → the column with the model, and the one that it ranks by.
_TABLES = {
    "en_shortform": ("model", "Avg. WER"),
    "en_longform": ("model_id", "Average"),
    "multilingual": ("model", "Avg"),
}


def _rows(read: Read) -> Iterator[Row]:
    for variant, (model, ranked_by) in _TABLES.items():
        for record in csv_rows(read(f"scripts/data/{variant}.csv"), ranked_by):
            rows = figures(record, variant, record[model], (model,))
            yield from (row for row in rows if row.score >= 0)


SOURCE = Source("huggingface/open_asr_leaderboard", "main", _rows)
