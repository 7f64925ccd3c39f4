"""Arena-Hard v0.1: its last CSV file. The tables of v2.0 stand in prose and are not read."""

from __future__ import annotations

from collections.abc import Iterator

from core.leaderboards.adapters.boards.rows import Read, Row, Source, csv_rows, figures

_DAY = "2024-07-31"


def _rows(read: Read) -> Iterator[Row]:
    path = f"leaderboard/arena_hard_leaderboard_{_DAY.replace('-', '')}.csv"
    for record in csv_rows(read(path), "score"):
        yield from figures({"score": record["score"]}, "v0.1", record["model"], (), date=_DAY)


SOURCE = Source("lmarena/arena-hard-auto", "main", _rows)
