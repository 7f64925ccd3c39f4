"""Use cases of the leaderboards: views by task, single boards, evidence, comparison."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pandas as pd

from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound
from core.leaderboards import facts as model_facts
from core.leaderboards import ranking, scores
from core.leaderboards.adapters import boards as board_adapters
from core.leaderboards.own import OwnSource, own_rows, own_task
from core.leaderboards.ranking import Subjects
from core.leaderboards.schemas import (
    BoardTable,
    BoardView,
    Evidence,
    OwnBoard,
    Quality,
    Query,
    Ranking,
    Standing,
)
from core.leaderboards.scores import UNRESOLVED, Scores
from core.leaderboards.standings import NOT_THE_MODEL, Standings, standings
from core.leaderboards.tasks import TASKS, Task, TaskBoard, find
from core.registry import ages, catalogue, licences

_own_sources: list[OwnSource] = []
_MOST_WEIGHT = 10.0
_TUNED = ("", "-instruct", "-it", "-chat")


def register_own_boards(source: OwnSource) -> None:
    """Let a higher domain add boards of own results, such as evaluations.

    `source(actor, project_id)` gives the boards of a project; they count like published ones.
    """
    if source not in _own_sources:
        _own_sources.append(source)


def tasks() -> tuple[Task, ...]:
    """The tasks there are views of."""
    return TASKS


def combined(actor: Actor, project_id: str, query: Query) -> Ranking:
    """The models of a task by their combined score, the best first.

    Raises:
        NotFound: There is no such task.
        InvalidInput: A weight is out of range or of no board, or the use is unknown.
    """
    actor.require("model:read", project_id)
    standing, known = _view(actor, project_id, query.task)
    _check(query, standing)
    version = scores.load(actor.tenant_id).version
    return ranking.rank(standing, known, query, verdict=_verdict(query.use), version=version)


def best(actor: Actor, project_id: str, query: Query, count: int = 10) -> Ranking:
    """The first `count` of `combined`."""
    found = combined(actor, project_id, query)
    table = found.table.head(count)
    return Ranking(**{**vars(found), "table": table})


def quality(actor: Actor, project_id: str, task: str) -> Mapping[str, Quality]:
    """How good each model is at a task, by canonical model id; boards weigh alike."""
    table = combined(actor, project_id, Query(task=task)).table
    known = table[table["id"].notna()]
    return {
        row.id: Quality(row.score, row.low, row.high, row.boards, row.position, len(table))
        for row in known.itertuples()
    }


def quality_by_name(
    actor: Actor, project_id: str, task: str, names: Sequence[str]
) -> list[Quality | None]:
    """How good models are at a task, by names that may leave out what they were tuned for.

    A name such as `gemma-3-27b`, which is that of an architecture, stands for the instruction-tuned
    version when the boards list only that one. None where no board of the task lists the model.
    """
    known = quality(actor, project_id, task)
    return [_of_versions(known, name) for name in names]


def _of_versions(known: Mapping[str, Quality], name: str) -> Quality | None:
    for suffix in _TUNED:
        found = known.get(catalogue.recognised(f"{name}{suffix}") or "")
        if found is not None:
            return found
    return None


def evidence(actor: Actor, project_id: str, model: str, task: str = "") -> list[Evidence]:
    """Every published figure of a model, the counted ones first.

    Args:
        actor: Who asks.
        project_id: For which project.
        model: A canonical id, or a name as published that no model is known by.
        task: Only figures of this task; empty gives all.
    """
    actor.require("model:read", project_id)
    frame = _frame(actor, project_id)
    subject = model if (frame["subject"] == model).any() else f"{UNRESOLVED}{model}"
    own = frame[(frame["subject"] == subject) & (frame["kind"] == "score")]
    if task:
        own = own[own["task"] == find(task).key]
    keys = own[["board", "variant", "metric"]].drop_duplicates()
    peers = dict(list(frame.merge(keys).groupby(["board", "variant", "metric"])))
    counted = {
        row
        for key in own["task"].dropna().unique()
        for row in _view(actor, project_id, key)[0].entries["row"]
    }
    found = [
        _evidence(row, peers[row.board, row.variant, row.metric], counts=row.Index in counted)
        for row in own.itertuples()
    ]
    return sorted(found, key=lambda each: (not each.counts, each.board, each.variant, each.metric))


def _evidence(row: object, peers: pd.DataFrame, *, counts: bool) -> Evidence:
    score = float(row.score)  # type: ignore[attr-defined]  # a row of itertuples
    better = peers["score"] > score if row.higher_is_better else peers["score"] < score  # type: ignore[attr-defined]
    return Evidence(
        rank=int(better.sum()) + 1,
        of=len(peers),
        counts=counts,
        standing="yes" if counts else _why_not(row),
        source_url=scores.source_url(row.source),  # type: ignore[attr-defined]
        **{
            name: getattr(row, name)
            for name in (
                *("board", "variant", "metric", "published_name", "score", "unit"),
                *("is_self_reported", "is_copy", "date", "link", "source"),
            )
        },
    )


def _why_not(row: Any) -> Standing:
    """Why a figure does not enter the combined score."""
    if row.is_copy:
        return "no, a copy"
    if row.is_self_reported:
        return "no, self-reported"
    if not row.headline:
        return "no, a part"
    if row.setting in NOT_THE_MODEL:
        return "no, a harness around it"
    return "no, another of its results counts"


def boards(actor: Actor, project_id: str) -> list[BoardView]:
    """Every published board, with its age and where it is from."""
    actor.require("model:read", project_id)
    loaded = scores.load(actor.tenant_id)
    return [_board_view(str(name), rows, loaded) for name, rows in loaded.frame.groupby("board")]


def _board_view(name: str, rows: pd.DataFrame, loaded: Scores) -> BoardView:
    about = scores.boards().loc[name]
    sources = tuple(sorted(rows["source"].unique()))
    dated = scores.dated(sources, rows["date"].unique().tolist())
    return BoardView(
        name=name,
        title=about["title"],
        maintainer=about["maintainer"],
        url=about["url"],
        licence=about["licence"],
        what=about["what"],
        variants=rows["variant"].nunique(),
        models=rows["subject"].nunique(),
        scores=int((rows["kind"] == "score").sum()),
        self_reported=int(rows["is_self_reported"].sum()),
        copies=int(rows["is_copy"].sum()),
        unresolved=int(rows.loc[rows["model_id"].isna(), "published_name"].nunique()),
        dated=dated,
        age_days=scores.age_days(dated),
        is_stale=scores.is_stale(dated),
        is_refreshed=name in loaded.refreshed,
        can_refresh=name in board_adapters.BOARDS,
        sources=sources,
        tasks=tuple(sorted(rows["task"].dropna().unique())),
    )


def board(
    actor: Actor, project_id: str, name: str, variant: str = "", order_by: str = ""
) -> BoardTable:
    """One board as it was published: its own names, metrics and scale, in its own order.

    Args:
        actor: Who asks.
        project_id: For which project.
        name: The board, in any case.
        variant: Which of its tables; empty takes the one it ranks by.
        order_by: The metric that orders the rows; empty takes the one it ranks by.

    Raises:
        NotFound: There is no such board, table or metric; says what there is.
    """
    actor.require("model:read", project_id)
    frame = scores.load(actor.tenant_id).frame
    name = _nearest(name, sorted(frame["board"].unique()), "board")
    rows = frame[frame["board"] == name]
    variants = _variants(rows)
    variant = _nearest(variant, variants, f"table of {name}") if variant else variants[0]
    rows = rows[rows["variant"] == variant]
    metrics = rows.drop_duplicates("metric").set_index("metric")
    metrics = metrics.sort_values("headline", ascending=False, kind="stable")
    ordered_by = _nearest(order_by, list(metrics.index), "metric") if order_by else _first(metrics)
    return BoardTable(
        board=name,
        variant=variant,
        variants=variants,
        ordered_by=ordered_by,
        table=_pivoted(rows, metrics, ordered_by),
        metrics=metrics[["kind", "unit", "low", "high", "higher_is_better", "note", "headline"]],
    )


def _variants(rows: pd.DataFrame) -> tuple[str, ...]:
    """A board's tables: those it ranks by first, then the larger first."""
    ordered = rows.groupby("variant").agg(headline=("headline", "any"), size=("score", "size"))
    return tuple(ordered.sort_values(["headline", "size"], ascending=False, kind="stable").index)


def _first(metrics: pd.DataFrame) -> str:
    counted = metrics[metrics["kind"] == "score"]
    return str((counted if len(counted) else metrics).index[0])


def _pivoted(rows: pd.DataFrame, metrics: pd.DataFrame, ordered_by: str) -> pd.DataFrame:
    rows = rows.copy()
    rows["score"] = rows["score"].mask(scores.stands_for_unknown(rows))
    # A name that stands twice (two runs) keeps both of its rows.
    rows["run"] = rows.groupby(["published_name", "metric"]).cumcount()
    keys = ["published_name", "run"]
    wide = rows.pivot(index=keys, columns="metric", values="score")[list(metrics.index)]
    about = ["model_id", "organisation", "is_self_reported", "is_copy", "date", "link", "source"]
    table = rows.drop_duplicates(keys).set_index(keys)[about].join(wide)
    ascending = not bool(metrics.at[ordered_by, "higher_is_better"])
    ordered = table.sort_values(ordered_by, ascending=ascending, kind="stable", na_position="last")
    return ordered.reset_index("published_name").reset_index(drop=True)


def find_models(actor: Actor, project_id: str, names: Sequence[str]) -> list[str]:
    """Canonical ids of models that some board lists, by id or name.

    Raises:
        NotFound: No board lists one of them; names the nearest.
    """
    actor.require("model:read", project_id)
    frame = _frame(actor, project_id)
    listed = sorted(set(frame["model_id"].dropna()))
    by_name = {str(name).lower(): key for key, name in _facts()["name"].items()}
    found = []
    for name in names:
        key = name.strip().lower()
        found.append(
            key if key in set(listed) else by_name.get(key) or _nearest(key, listed, "model")
        )
    return found


def facts_of(models: Sequence[str]) -> pd.DataFrame:
    """`ranking.FACTS` of models, by id, in the order asked."""
    return _facts().reindex(list(models))


def prices_of(models: Sequence[str]) -> pd.DataFrame:
    """What hosts ask for models, the cheapest first, see `catalogue.prices` and `ages`."""
    prices = catalogue.prices()
    return ages.with_ages(model_facts.blended(prices[prices["model_id"].isin(models)]))


def by_task(actor: Actor, project_id: str, models: Sequence[str]) -> pd.DataFrame:
    """The combined score of models in every task: a row a model and task that lists it.

    Returns:
        Columns `id`, `task`, `title`, `score`, `low`, `high`, `boards`, `position`, `of`.
    """
    found = []
    for task in TASKS:
        table = combined(actor, project_id, Query(task=task.key)).table
        chosen = table[table["id"].isin(models)]
        found.append(chosen.assign(task=task.key, title=task.title, of=len(table)))
    columns = ["id", "task", "title", "score", "low", "high", "boards", "position", "of"]
    return pd.concat(found, ignore_index=True)[columns]


def on_boards(actor: Actor, project_id: str, task: str, models: Sequence[str]) -> pd.DataFrame:
    """What each board of a task says of models: a row a model and counted figure.

    Returns:
        Columns `id`, `key` and `title` of the board, `metric`, `unit`, `higher_is_better`,
        `score` as published, `share` (of the listed models that this one beats, 0 to 1),
        `published_name`, `date`, `link`, `source`.
    """
    actor.require("model:read", project_id)
    standing, _ = _view(actor, project_id, task)
    entries = standing.entries
    group = entries.groupby(["board_index", "benchmark_index"])["value"]
    beaten = (group.rank(method="average") - 1) / (group.transform("size") - 1).clip(lower=1)
    chosen = entries.assign(share=beaten)[entries["subject"].isin(models)].copy()
    chosen["key"] = [standing.boards[index].key for index in chosen["board_index"]]
    chosen["title"] = [standing.boards[index].title for index in chosen["board_index"]]
    columns = ["key", "title", "metric", "unit", "higher_is_better", "score", "share"]
    columns += ["published_name", "date", "link", "source"]
    chosen = chosen.sort_values(["board_index", "benchmark_index"], kind="stable")
    return chosen.rename(columns={"subject": "id"})[["id", *columns]].reset_index(drop=True)


def boards_of(actor: Actor, project_id: str, task: str) -> tuple[TaskBoard, ...]:
    """The boards that a task combines, own ones last."""
    actor.require("model:read", project_id)
    return _view(actor, project_id, task)[0].boards


def organisations(actor: Actor, project_id: str, task: str) -> list[str]:
    """The makers of a task's models."""
    actor.require("model:read", project_id)
    found = _view(actor, project_id, task)[1].table["organisation"]
    return sorted({str(each) for each in found if each})


def listed_models(actor: Actor, project_id: str) -> dict[str, str]:
    """The names of all models on boards, by id."""
    actor.require("model:read", project_id)
    listed = sorted(set(_frame(actor, project_id)["model_id"].dropna()))
    names = _facts()["name"].reindex(listed)
    return {key: name if isinstance(name, str) else key for key, name in names.items()}


def verdict(licence: object, use: str) -> str:
    """What a licence says of a use, in a word; `needs review` where none is known."""
    return _verdict(use)(licence) if isinstance(licence, str) else "needs review"


def uses() -> tuple[str, ...]:
    """What a model can be wanted for, as licences are judged by."""
    return tuple(licences.USES)


def _frame(actor: Actor, project_id: str) -> pd.DataFrame:
    frame = scores.load(actor.tenant_id).frame
    own = _own_boards(actor, project_id)
    return pd.concat([frame, own_rows(own)], ignore_index=True) if own else frame


def _own_boards(actor: Actor, project_id: str) -> tuple[OwnBoard, ...]:
    return tuple(board for source in _own_sources for board in source(actor, project_id))


def _view(actor: Actor, project_id: str, task: str) -> tuple[Standings, Subjects]:
    loaded = scores.load(actor.tenant_id)
    own = _own_boards(actor, project_id)
    version = f"{loaded.version} {catalogue.version()}"
    return _linked(_Held(version, own, loaded.frame), find(task).key)


@dataclass(frozen=True)
class _Held:
    """Scores and own boards as the key of a cache: alike when versions and boards are."""

    version: str
    own: tuple[OwnBoard, ...]
    frame: pd.DataFrame = field(compare=False)


@lru_cache(maxsize=32)
def _linked(held: _Held, task: str) -> tuple[Standings, Subjects]:
    frame, wanted = held.frame, find(task)
    if held.own:
        frame = pd.concat([frame, own_rows(held.own)], ignore_index=True)
        wanted = own_task(wanted, held.own)
    standing = standings(frame, wanted)
    return standing, ranking.subjects(standing, _facts())


def _facts() -> pd.DataFrame:
    return model_facts.facts()


def _check(query: Query, standing: Standings) -> None:
    keys = [board.key for board in standing.boards]
    for key, weight in query.weights.items():
        if key not in keys:
            raise InvalidInput(
                f"The task {query.task} has no board {key!r}.",
                remedy=f"There are: {', '.join(keys)}.",
            )
        if not (np.isfinite(weight) and 0 <= weight <= _MOST_WEIGHT):
            raise InvalidInput(
                f"The weight of {key} is out of range.",
                value=weight,
                remedy=f"Use 0 to {_MOST_WEIGHT:g}.",
            )


def _verdict(use: str) -> Callable[[str], str]:
    if not use:
        return lambda _: ""
    licences.find_use(use)
    return lambda key: _outcome(key, use)


@cache
def _outcome(key: str, use: str) -> str:
    try:
        return licences.verdict(key, licences.USES[use]).outcome
    except NotFound:
        return "needs review"  # a name that is no licence Bud knows


def _nearest(name: str, known: Sequence[str], what: str) -> str:
    """The one of `known` that is called so, in any case. NotFound with the nearest."""
    by_lower = {each.lower(): each for each in known}
    found = by_lower.get(name.strip().lower())
    if found is not None:
        return found
    near = difflib.get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.4)
    nearest = [by_lower[each] for each in near] or list(known[:8])
    raise NotFound(f"There is no {what} {name!r}.", remedy=f"The nearest: {', '.join(nearest)}.")
