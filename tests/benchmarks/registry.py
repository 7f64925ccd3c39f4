"""Catalogue and leaderboards at 100,000 models, on one core: `bud bench registry [--json]`."""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from core.registry import catalogue
from core.registry.catalogue_index import FACETS, Index
from tests.benchmarks import leaderboards

_MODELS = 100_000
_SEED = 1
_REPEATS = 5
# So many more scores are drawn than wanted: a model that a board has drawn twice counts once.
_DRAWN_FOR_EACH = 1.15
# Texts of one common word, of two words, with a typing mistake, part of a word, and none.
_TEXTS = ("", "qwen3 8b", "antropic sonet", "llama", "embed", "mistral large instruct")
_NARROWED: dict[str, list[str]] = {"open_weights": ["yes"], "size": ["4B to 10B"], "tools": ["yes"]}


def main() -> None:
    """Run alone: `python -m tests.benchmarks.registry`."""
    run()


def run(json: bool = False) -> dict[str, Any]:
    """Measure; prints the figures and gives them back."""
    figures = catalogue_figures() | leaderboards.figures()
    if json:
        print(json_module.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:44} {value:>12,}")
    return figures


def synthetic_models(models: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The shipped catalogue, repeated under new names and makers: models, names, prices."""
    shipped = catalogue.models()
    copies = -(-models // len(shipped))
    frames = [(copy, f"-{_coined(copy)}") for copy in range(copies)]
    rows = pd.concat([_renamed(shipped, end) for _, end in frames], ignore_index=True)[:models]
    kept = set(rows["id"])
    others = []
    for frame, column in ((catalogue.names(), "name"), (catalogue.prices(), "published_name")):
        repeated = pd.concat(
            [
                frame.assign(**{"model_id": frame["model_id"] + end, column: frame[column] + end})
                for _, end in frames
            ],
            ignore_index=True,
        )
        others.append(repeated[repeated["model_id"].isin(kept)])
    return rows, others[0], others[1]


def synthetic(models: int, scores: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Models, and scores of them on 60 made-up boards, spread as abilities and noise are.

    Args:
        models: How many models.
        scores: How many scores; up to a sixth of what 60 boards could hold.

    Returns:
        The models, and a row a score: `model_id`, `board` (`board-00` …), `score`.
    """
    chance = np.random.default_rng(_SEED)
    rows, _, _ = synthetic_models(models)
    ability = chance.normal(size=models)
    drawn = int(_DRAWN_FOR_EACH * scores)
    who = chance.integers(0, models, drawn)
    board = chance.integers(0, 60, drawn)
    score = 50 + 10 * (ability[who] + 0.5 * chance.normal(size=drawn))
    frame = pd.DataFrame({"model_id": rows["id"].to_numpy()[who], "board": board, "score": score})
    frame = frame.drop_duplicates(["model_id", "board"], ignore_index=True).head(scores)
    return rows, frame.assign(board=[f"board-{each:02d}" for each in frame["board"]])


def _coined(number: int) -> str:
    """A word of its own for each copy, so that the vocabulary grows with the models."""
    letters = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
    word = letters[number % len(letters)]
    return word if number < len(letters) else _coined(number // len(letters)) + word


def _renamed(frame: pd.DataFrame, end: str) -> pd.DataFrame:
    return frame.assign(id=frame["id"] + end, name=frame["name"] + end)


def catalogue_figures() -> dict[str, Any]:
    """Milliseconds of a search with the counts of all facets, at the text that takes longest."""
    models, names, prices = synthetic_models(_MODELS)
    started_s = time.perf_counter()
    index = Index(models, names, prices)
    built_s = time.perf_counter() - started_s
    connection = duckdb.connect()
    connection.register("models", _flat(index.models))
    connection.execute("CREATE TABLE found AS SELECT * FROM models")
    connection.execute("SET threads = 1")
    return {
        "catalogue_models": len(models),
        "catalogue_names": len(names),
        "catalogue_index_s": round(built_s, 1),
        **_timed("catalogue_search", index.search),
        **_timed(
            "catalogue_search_narrowed",
            lambda text: index.search(text, facets=_NARROWED, sort="release_date"),
        ),
        **_timed("catalogue_search_duckdb", lambda text: _search_in_duckdb(connection, text)),
    }


def _timed(name: str, search: Callable[[str], object]) -> dict[str, float]:
    """The median at the text that takes longest, and the slowest search of all."""
    times_ms = np.array([_times_ms(search, text) for text in _TEXTS])
    return {
        f"{name}_median_ms": round(float(np.median(times_ms, axis=1).max()), 1),
        f"{name}_slowest_ms": round(float(times_ms.max()), 1),
    }


def _times_ms(search: Callable[[str], object], text: str) -> list[float]:
    found = []
    for _ in range(_REPEATS):
        started_s = time.perf_counter()
        search(text)
        found.append((time.perf_counter() - started_s) * 1e3)
    return found


def _flat(models: pd.DataFrame) -> pd.DataFrame:
    text = (models["name"] + " " + models["id"] + " " + models["organisation"]).str.lower()
    return models.drop(columns=["sources", "fact_sources", "disagreements"]).assign(
        text=text, release_date=models["release_date"].astype("string")
    )


def _search_in_duckdb(connection: duckdb.DuckDBPyConnection, text: str) -> object:
    """The same question without typing mistakes: one scan for the rows, one for each facet."""
    words = text.split() or [""]
    where = " AND ".join("contains(text, ?)" for _ in words)
    rows = connection.execute(
        f"SELECT id FROM found WHERE {where} ORDER BY names DESC LIMIT 50",
        words,
    ).fetchall()
    plain = [name for name in FACETS if name in ("organisation", "family", "licence", "tools")]
    for facet in (*plain, "open_weights", "reasoning", "vision", "release_date[:4]", "hosts > 0"):
        connection.execute(
            f"SELECT {facet}, count(*) FROM found WHERE {where} GROUP BY ALL",
            words,
        ).fetchall()
    return rows


if __name__ == "__main__":
    main()
