"""Vectara's hallucination leaderboard: the table of its README."""

from __future__ import annotations

from collections.abc import Iterator

from core.leaderboards.adapters.boards.rows import Read, Row, Source, figures, format_changed


def _rows(read: Read) -> Iterator[Row]:
    lines = [line.strip() for line in read("README.md").splitlines()]
    starts = [at for at, line in enumerate(lines) if line.startswith("|Model|")]
    if not starts:
        raise format_changed("table that begins with |Model|")
    header = _cells(lines[starts[0]])
    for line in lines[starts[0] + 2 :]:
        if not line.startswith("|"):
            return
        record = dict(zip(header, _cells(line), strict=False))
        yield from figures(record, "leaderboard", record["Model"], ("Model",))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


SOURCE = Source("vectara/hallucination-leaderboard", "main", _rows)
