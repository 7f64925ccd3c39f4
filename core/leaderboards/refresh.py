"""A board fetched anew: its rows with their models, and what differs from what is there."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from core.leaderboards import scores
from core.leaderboards.adapters.boards import Row
from core.registry import catalogue

_KEY = ["variant", "metric", "published_name"]
_SAME = 1e-9


def frame(board: str, rows: Iterable[Row], source: str, day: str) -> pd.DataFrame:
    """`scores.COLUMNS` of a board, from what its adapter read.

    Figures that the metric catalogue does not know are left out: nobody has said what they are.
    """
    made = pd.DataFrame([{name: getattr(row, name) for name in Row.__slots__} for row in rows])
    known = scores.metrics()
    known = known[known["board"] == board]
    made = made.merge(known[["variant", "metric", "copy_of"]], on=["variant", "metric"])
    made["board"] = board
    noted = " rev=" + made["revision"]
    made["source"] = source + noted.where(made["revision"] != "", "")
    made["date"] = made["date"].where(made["date"] != "", day)
    made["is_copy"] = made["copy_of"].notna()
    pairs = made[["published_name", "organisation"]].drop_duplicates()
    models = {
        pair: catalogue.recognised(*pair) for pair in pairs.itertuples(index=False, name=None)
    }
    names = zip(made["published_name"], made["organisation"], strict=True)
    made["model_id"] = [models[pair] for pair in names]
    return made[list(scores.COLUMNS)]


def with_kept(fetched: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """The fetched rows, and those of the board's tables that its adapter does not read."""
    kept = now[~now["variant"].isin(fetched["variant"].unique())]
    return pd.concat([fetched, kept[list(scores.COLUMNS)]], ignore_index=True)


def difference(now: pd.DataFrame, fetched: pd.DataFrame) -> pd.DataFrame:
    """What a refresh would change.

    Returns:
        A row a figure that differs: `change` (added, removed, changed), `variant`, `metric`,
        `published_name`, `model_id`, `score_now` and `score_then`.
    """
    old, new = (_numbered(each) for each in (now, fetched))
    key, suffixes = [*_KEY, "run"], ("_now", "_then")
    both = old.merge(new, on=key, how="outer", suffixes=suffixes, indicator=True)
    both["change"] = (
        both["_merge"]
        .astype(str)
        .map({"left_only": "removed", "right_only": "added", "both": "changed"})
    )
    same = (both["score_now"] - both["score_then"]).abs() <= _SAME
    both["model_id"] = both["model_id_then"].where(
        both["model_id_then"].notna(), both["model_id_now"]
    )
    columns = ["change", *_KEY, "model_id", "score_now", "score_then"]
    return both.loc[~same, columns].sort_values(["change", *_KEY]).reset_index(drop=True)


def _numbered(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs of one model in one benchmark, numbered from the best, so that each finds its like."""
    ordered = rows.sort_values("score", ascending=False, kind="stable")
    return ordered.assign(run=ordered.groupby(_KEY).cumcount())[[*_KEY, "run", "model_id", "score"]]


def save(rows: pd.DataFrame, path: Path) -> None:
    """Write a Parquet file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    rows.to_parquet(partial, index=False)
    partial.replace(path)
