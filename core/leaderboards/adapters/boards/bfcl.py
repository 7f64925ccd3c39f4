"""Berkeley Function-Calling Leaderboard: `data_overall.csv` of its web page."""

from __future__ import annotations

from collections.abc import Iterator

from core.leaderboards.adapters.boards.rows import Read, Row, Source, csv_rows, figures

_ABOUT = ("Rank", "Model", "Model Link", "Organization", "License")


def _rows(read: Read) -> Iterator[Row]:
    for record in csv_rows(read("data_overall.csv"), "Overall Acc"):
        yield from figures(
            record,
            "v4 overall",
            record["Model"],
            _ABOUT,
            organisation=record.get("Organization", ""),
            link=record.get("Model Link", ""),
            licence_as_published=record.get("License", ""),
        )


SOURCE = Source("ShishirPatil/gorilla", "gh-pages", _rows)
