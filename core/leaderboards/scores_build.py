"""Makes the shipped scores from `benchmark_results.csv`: a part of `bud catalogue build`.

Every figure must stand in the curated `metrics.csv` and lie in its range. What cannot be a figure
(a marker for "not measured", a row of a board's template) is left out and listed with the reason.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from core.kernel.errors import InvalidInput
from core.leaderboards.scores import COLUMNS

DATA = Path(__file__).parent / "data"
FILE = "benchmark_results.csv"
_NAMES = {"MTEB results repo": "MTEB"}
_TEMPLATE = re.compile(r"^Example-")
_LEFT_OUT = ("board", "variant", "metric", "published_name", "score", "why")


@dataclass(frozen=True)
class Metric:
    """What the curated catalogue says of one column of a board.

    Attributes:
        board, variant, metric: As published.
        kind: `score`, `cost`, `speed` or `metadata`; only scores may be combined.
        unit: Of the figures.
        low, high: What the figures can be; None has no end.
        higher_is_better: None where neither end is better.
        task: What it tells about.
        note: What a reader should know.
        copy_of: The board whose figure it repeats, or empty.
        is_headline: Whether the board ranks by it.
    """

    board: str
    variant: str
    metric: str
    kind: str
    unit: str
    low: float | None
    high: float | None
    higher_is_better: bool | None
    task: str
    note: str
    copy_of: str
    is_headline: bool

    def allows(self, score: float) -> bool:
        """Whether the figure lies in the range."""
        above = self.low is None or score >= self.low
        return above and (self.high is None or score <= self.high)


@dataclass(frozen=True)
class BuiltScores:
    """The rows of `scores.parquet` and of `left_out.csv`."""

    scores: list[dict[str, Any]]
    left_out: list[dict[str, Any]]


@cache
def metrics() -> dict[tuple[str, str, str], Metric]:
    """The curated catalogue, by board, variant and metric."""
    with (DATA / "metrics.csv").open(encoding="utf-8", newline="") as lines:
        rows = [_metric(row) for row in csv.DictReader(lines)]
    return {(row.board, row.variant, row.metric): row for row in rows}


def _metric(row: Mapping[str, str]) -> Metric:
    return Metric(
        board=row["board"],
        variant=row["variant"],
        metric=row["metric"],
        kind=row["kind"],
        unit=row["unit"],
        low=float(row["low"]) if row["low"] else None,
        high=float(row["high"]) if row["high"] else None,
        higher_is_better={"true": True, "false": False}.get(row["higher_is_better"]),
        task=row["task"],
        note=row["note"],
        copy_of=row["copy_of"],
        is_headline=row["headline"] == "true",
    )


def build(
    rows: Iterable[Mapping[str, str]],
    names: Mapping[tuple[str, str, str], tuple[str | None, str]],
) -> BuiltScores:
    """Turn the rows of `benchmark_results.csv` into scores of models.

    Args:
        rows: Of the file.
        names: Model and setting by (published name, organisation, board's mark in the names).

    Raises:
        InvalidInput: A metric is not in the catalogue.
    """
    scores, left_out, unknown = [], [], set()
    for row in rows:
        board = _NAMES.get(row["benchmark"], row["benchmark"])
        metric = metrics().get((board, row["variant"], row["metric"]))
        if metric is None:
            unknown.add((board, row["variant"], row["metric"]))
            continue
        why = _reason_to_leave_out(row, metric)
        if why:
            left_out.append(_left_out(row, board, why))
        else:
            mark = f"{FILE}: {row['benchmark']}"
            found = names[(row["model_name"], row["organization"], mark)]
            scores.append(_score(row, board, metric, *found))
    if unknown:
        raise InvalidInput(
            f"{len(unknown)} metrics are not in the metric catalogue.",
            value=sorted(unknown)[:3],
            remedy="Add them to core/leaderboards/data/metrics.csv.",
        )
    return BuiltScores(sorted(scores, key=_order), sorted(left_out, key=lambda row: str(row)))


def _reason_to_leave_out(row: Mapping[str, str], metric: Metric) -> str:
    if _TEMPLATE.match(row["model_name"]):
        return "a row of the board's template, not a model"
    score = float(row["score"])
    if metric.allows(score):
        return ""
    if score == -1:
        return "-1 stands for not measured"
    if score == 0:
        return "0 stands for no value"
    return "out of the metric's range"


def _left_out(row: Mapping[str, str], board: str, why: str) -> dict[str, Any]:
    named = {"variant": row["variant"], "metric": row["metric"], "score": row["score"]}
    return {"board": board, "published_name": row["model_name"], "why": why} | named


def _score(
    row: Mapping[str, str], board: str, metric: Metric, model_id: str | None, setting: str
) -> dict[str, Any]:
    how = f"{setting} custom-harness".strip() if row["self_reported"] == "custom" else setting
    return {
        "board": board,
        "variant": row["variant"],
        "metric": row["metric"],
        "published_name": row["model_name"],
        "organisation": row["organization"],
        "model_id": model_id,
        "setting": how,
        "score": float(row["score"]),
        "date": _day(row["date"]),
        "link": row["model_link"],
        "licence_as_published": row["licence_of_model"],
        "is_self_reported": row["self_reported"] == "True" or "rev=external" in row["source"],
        "is_copy": bool(metric.copy_of),
        "source": row["source"],
    }


def _day(text: str) -> str | None:
    digits = text.replace("-", "")
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}" if len(digits) == 8 else None


def _order(row: Mapping[str, Any]) -> tuple[str, ...]:
    keys = ("board", "variant", "metric", "published_name", "organisation", "source", "date")
    return (*(str(row[key]) for key in keys), f"{row['score']:.9f}")


def write(built: BuiltScores, folder: Path = DATA) -> None:
    """Write `scores.parquet` and `left_out.csv`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"score": pa.float64(), "is_self_reported": pa.bool_(), "is_copy": pa.bool_()}
    schema = pa.schema([(column, kinds.get(column, pa.string())) for column in COLUMNS])
    table = pa.Table.from_pylist(built.scores, schema=schema)
    pq.write_table(table, folder / "scores.parquet", compression="zstd", compression_level=19)
    _write_csv(built.left_out, folder / "left_out.csv")


def _write_csv(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, _LEFT_OUT, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
