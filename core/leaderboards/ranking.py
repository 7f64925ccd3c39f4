"""A view of a task: weigh its boards, keep the models that were asked for, order them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from core.leaderboards import scores
from core.leaderboards.combining import rank_bounds
from core.leaderboards.schemas import Query, Ranking, WeighedBoard
from core.leaderboards.scores import UNRESOLVED
from core.leaderboards.standings import Standings

# The columns of `Ranking.table`; sizes in parameters, prices in USD per million tokens.
COLUMNS = (
    "position",
    "id",
    "name",
    "organisation",
    "score",
    "low",
    "high",
    "best_rank",
    "worst_rank",
    "boards",
    "licence",
    "verdict",
    "open_weights",
    "parameters",
    "active_parameters",
    "context_tokens",
    "usd_per_million_tokens",
    "release_date",
)
FACTS = (
    "name",
    "organisation",
    "licence",
    "open_weights",
    "parameters",
    "active_parameters",
    "context_tokens",
    "usd_per_million_tokens",
    "release_date",
)
NUMBERS = ("parameters", "active_parameters", "context_tokens", "usd_per_million_tokens")
MAY_USE = ("yes", "conditional")
_FEW_BOARDS = 2


@dataclass(frozen=True)
class Subjects:
    """The facts of a task's models, in the order of `Standings.subjects`.

    Attributes:
        table: `FACTS` by subject; the id of an unresolved name is None.
        text: What words are searched in.
        licence_codes: For each model the place of its licence in `licences`, -1 without one.
        licences: The licences there are.
    """

    table: pd.DataFrame
    text: NDArray[np.object_]
    licence_codes: NDArray[np.int64]
    licences: tuple[str, ...]


def subjects(standing: Standings, facts: pd.DataFrame) -> Subjects:
    """Join the models of a task with what the registry knows of them.

    Args:
        standing: The task's boards.
        facts: `FACTS` by model id.
    """
    keys = pd.Index(standing.subjects)
    table = facts.reindex(keys)[list(FACTS)]
    is_open = table["open_weights"]
    table["open_weights"] = is_open.astype(object).where(is_open.notna(), None)
    resolved = np.array([not key.startswith(UNRESOLVED) for key in standing.subjects])
    plain = pd.Series([key.removeprefix(UNRESOLVED) for key in standing.subjects], index=keys)
    table["name"] = table["name"].where(table["name"].notna(), plain)
    published = standing.entries.drop_duplicates("subject").set_index("subject")["organisation"]
    table["organisation"] = table["organisation"].fillna(published.reindex(keys)).fillna("")
    table.insert(0, "id", np.where(resolved, keys.to_numpy(object), None))
    text = plain.str.cat([table["name"].astype(str), table["organisation"].astype(str)], sep=" ")
    codes, licences = pd.factorize(table["licence"])
    for name in NUMBERS:
        table[name] = pd.to_numeric(table[name]).astype("Float64").to_numpy(float, na_value=np.nan)
    for name in ("id", "name", "organisation", "licence", "release_date"):
        # Rows are taken at every weighing; plain objects are taken five times as fast as strings.
        table[name] = table[name].astype(object).where(table[name].notna(), None)
    return Subjects(
        table.reset_index(drop=True),
        text.str.lower().to_numpy(object),
        codes.astype(np.int64),
        tuple(licences),
    )


def rank(
    standing: Standings,
    known: Subjects,
    query: Query,
    *,
    verdict: Callable[[str], str],
    version: str,
) -> Ranking:
    """Combine, filter and order.

    Args:
        standing: The task's boards.
        known: The facts of its models.
        query: What is asked.
        verdict: What a licence says of the use that is asked for.
        version: Of the scores.
    """
    weights = standing.weights(query.weights)
    if standing.combiner is None:
        empty = pd.DataFrame(columns=list(COLUMNS))
        note = "No board of this task has scores."
        return Ranking(query, empty, (), {}, 0, (note,), version, None)
    combined = standing.combiner.combine(weights)
    listed = combined.boards > 0
    outcomes = np.array([*(verdict(each) for each in known.licences), "needs review"], dtype=object)
    verdicts = outcomes[known.licence_codes]
    kept, left_out = _filtered(known, query, verdicts, listed)
    order = kept[np.argsort(-combined.score[kept])]
    table = known.table.take(order).reset_index(drop=True)
    low, high = combined.low[order], combined.high[order]
    table["position"] = np.arange(1, len(order) + 1)
    table["score"], table["low"], table["high"] = combined.score[order], low, high
    table["best_rank"], table["worst_rank"] = rank_bounds(low, high)
    table["boards"] = combined.boards[order]
    table["verdict"] = verdicts[order] if query.use else None
    boards = _boards(standing, weights, standing.combiner.listed(order))
    used = [each for each in boards if each.weight > 0 and each.shown > 0]
    return Ranking(
        query=query,
        table=table[list(COLUMNS)],
        boards=boards,
        left_out=left_out,
        models=int(listed.sum()),
        notes=tuple(_notes(standing, used, is_weighed=bool(weights.any()))),
        version=version,
        dated=max((each.dated for each in used if each.dated), default=None),
    )


def _filtered(
    known: Subjects, query: Query, verdicts: NDArray[np.object_], listed: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """The models to show, and how many were left out because a fact about them is not known."""
    table, keep, left_out = known.table, listed.copy(), {}

    def ask(name: str, fits: NDArray[np.bool_], unknown: NDArray[np.bool_]) -> None:
        missing = int((keep & unknown).sum())
        if missing:
            left_out[name] = missing
        np.logical_and(keep, fits & ~unknown, out=keep)

    for word in query.words.lower().split():
        keep &= np.fromiter((word in text for text in known.text), bool, len(keep))
    if query.organisations:
        keep &= table["organisation"].isin(query.organisations).to_numpy()
    if query.open_weights:
        is_open = table["open_weights"]
        ask("open weights", is_open.eq(True).to_numpy(), is_open.isna().to_numpy())
    for name, column, least, most in (
        ("size", "parameters", query.parameters_from, query.parameters_to),
        ("price", "usd_per_million_tokens", None, query.usd_to),
        ("context", "context_tokens", query.context_from, None),
    ):
        if least is not None or most is not None:
            value = table[column].to_numpy(float)
            ask(name, _between(value, least, most), np.isnan(value))
    if query.released_from is not None:
        released = pd.to_datetime(table["release_date"], errors="coerce")
        since = released >= pd.Timestamp(query.released_from)
        ask("release date", since.to_numpy(), released.isna().to_numpy())
    if query.use:
        ask("licence", np.isin(verdicts.astype(str), MAY_USE), verdicts == "needs review")
    return np.flatnonzero(keep), left_out


def _between(
    value: NDArray[np.float64], least: float | None, most: float | None
) -> NDArray[np.bool_]:
    low = -np.inf if least is None else least
    high = np.inf if most is None else most
    return (value >= low) & (value <= high)


def _boards(
    standing: Standings, weights: NDArray[np.float64], shown: NDArray[np.int64]
) -> tuple[WeighedBoard, ...]:
    assert standing.combiner is not None
    linked = standing.combiner.linked
    share = linked.slope**2 / (linked.slope**2 + linked.noise)
    return tuple(
        WeighedBoard(
            key=board.key,
            title=board.title,
            publisher=board.publisher,
            what=board.what,
            weight=float(weights[index]),
            agreement=float(np.sqrt(share[index])),
            models=facts.models,
            shown=int(shown[index]),
            dated=facts.dated,
            is_stale=scores.is_stale(facts.dated),
            source=facts.source,
            source_url=scores.source_url(facts.source),
        )
        for index, (board, facts) in enumerate(zip(standing.boards, standing.facts, strict=True))
    )


def _notes(standing: Standings, used: Sequence[WeighedBoard], *, is_weighed: bool) -> list[str]:
    """What to know of the boards that list the models shown."""
    notes = []
    publishers = {board.publisher for board in used}
    if not is_weighed:
        return ["Every board has the weight 0: nothing is ranked."]
    if not used:
        return []
    if len(used) < _FEW_BOARDS:
        notes.append(
            f"Only one board, {used[0].title}, lists these models: this is its order, and no "
            "second opinion on it."
        )
    elif len(publishers) < _FEW_BOARDS:
        notes.append(f"All these boards are published by {used[0].publisher}.")
    titles = {board.title for board in used}
    loose = [board.title for board in standing.loose if board.title in titles]
    if loose and len(used) > 1:
        notes.append(
            f"{' and '.join(loose)} share{'s' if len(loose) == 1 else ''} fewer than five models "
            "with the other boards, so where their models stand against the others' is all but "
            "unknown; the bands say so."
        )
    stale = [board.title for board in used if board.is_stale]
    if stale:
        notes.append(f"Over a year old: {', '.join(stale)}.")
    return notes


def pareto(table: pd.DataFrame, cost: str) -> pd.DataFrame:
    """The models of a ranking that none beats at less or equal `cost`, the cheapest first."""
    priced = table[table[cost].notna()].sort_values([cost, "score"], ascending=[True, False])
    best_before = priced["score"].cummax().shift(fill_value=-np.inf)
    return priced[priced["score"] > best_before]


def trend(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The best score by release date, of models with open weights and of the others.

    Returns:
        For "open" and "closed" the models that were the best of theirs on the day they came out,
        with `release_date`, `name` and `score`.
    """
    dated = table[table["release_date"].notna()].copy()
    dated["release_date"] = pd.to_datetime(dated["release_date"], errors="coerce")
    dated = dated.dropna(subset="release_date").sort_values(["release_date", "score"])
    found = {}
    for name, is_open in (("open", True), ("closed", False)):
        models = dated[dated["open_weights"].eq(is_open)]
        best_before = models["score"].cummax().shift(fill_value=-np.inf)
        leaders = models[models["score"] > best_before]
        found[name] = leaders[["release_date", "name", "score", "low", "high"]]
    return found


def since(day: date | None) -> str:
    """A board's date and age for people: `2026-05-22, 187 days`."""
    age = scores.age_days(day)
    return "date not known" if day is None else f"{day.isoformat()}, {age} days"
