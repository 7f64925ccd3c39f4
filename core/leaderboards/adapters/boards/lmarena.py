"""LMArena, from the CSV files that a third party keeps of it."""

from __future__ import annotations

from collections.abc import Iterator

from core.leaderboards.adapters.boards.rows import Read, Row, Source, csv_rows, figures

_METRICS = frozenset(("arena_score", "votes"))


def _rows(read: Read) -> Iterator[Row]:
    for variant in ("text", "vision", "image"):
        for record in csv_rows(read(f"csv/lmarena_{variant}.csv"), "arena_score"):
            yield from figures(
                record,
                variant,
                record["model"],
                set(record) - _METRICS,
                organisation=record.get("organization", ""),
                link=record.get("url", ""),
                licence_as_published=record.get("license", ""),
            )


SOURCE = Source("fboulnois/llm-leaderboard-csv", "main", _rows)
