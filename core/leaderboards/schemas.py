"""What callers see of leaderboards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

RefreshState = Literal["fetching", "found", "applied", "discarded", "failed"]


class Query(BaseModel):
    """A view of a task: which boards count how much, and which models are shown.

    Attributes:
        task: A key of `tasks.TASKS`.
        weights: Weights by board key; 1 where none is named, 0 leaves a board out.
        use: What the model is wanted for, a key of the licence domain; empty asks for nothing.
        words: Words that the name, id or organisation must hold.
        open_weights: Only models whose weights can be had.
        organisations: Only models of these; empty keeps all.
        parameters_from: At least so many parameters.
        parameters_to: At most so many parameters; models of unknown size are left out.
        usd_to: At most so many USD per million tokens (see `facts.BLEND`).
        context_from: At least so many tokens of context.
        released_from: Released on that day or later.
    """

    model_config = ConfigDict(frozen=True)

    task: str = "chat"
    weights: Mapping[str, float] = Field(default_factory=dict)
    use: str = ""
    words: str = ""
    open_weights: bool = False
    organisations: tuple[str, ...] = ()
    parameters_from: float | None = None
    parameters_to: float | None = None
    usd_to: float | None = None
    context_from: int | None = None
    released_from: date | None = None


class OwnResult(BaseModel):
    """What an own evaluation found of one model."""

    model_config = ConfigDict(frozen=True)

    model_id: str
    score: float
    link: str = ""


class OwnBoard(BaseModel):
    """A board of own results, such as an evaluation; counts like any other once it is there."""

    model_config = ConfigDict(frozen=True)

    key: str
    title: str
    task: str
    what: str
    unit: str
    higher_is_better: bool
    measured_on: date
    results: tuple[OwnResult, ...]


class BoardView(BaseModel):
    """A published board: where it is from, and how old it is."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    maintainer: str
    url: str
    licence: str
    what: str
    variants: int
    models: int
    scores: int
    self_reported: int
    copies: int
    unresolved: int
    dated: date | None
    age_days: int | None
    is_stale: bool
    is_refreshed: bool
    can_refresh: bool
    sources: tuple[str, ...]
    tasks: tuple[str, ...]


class RefreshView(BaseModel):
    """What fetching a board anew found, and what became of it."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    board: str
    state: RefreshState
    source: str
    error: str | None
    added: int
    removed: int
    changed: int
    created_at: datetime
    decided_at: datetime | None
    decided_by: str | None


@dataclass(frozen=True)
class WeighedBoard:
    """A board in a view: how much it counts, how much it agrees, how old it is.

    Attributes:
        agreement: Correlation of its order with the combined ability, 0 to 1.
        models: How many models it lists.
        shown: How many of the models that the view shows it lists.
        source_url: The page of `source`, empty where there is none.
    """

    key: str
    title: str
    publisher: str
    what: str
    weight: float
    agreement: float
    models: int
    shown: int
    dated: date | None
    is_stale: bool
    source: str
    source_url: str


@dataclass(frozen=True)
class Ranking:
    """The models of a view, best first.

    Attributes:
        query: What was asked.
        table: A row a model; see `ranking.COLUMNS`.
        boards: The boards of the task, also those that list none of the models shown.
        left_out: How many models a filter left out because the fact is not known, by fact.
        models: How many models the boards list, before any filter.
        notes: What a reader must know before trusting the order of the models shown.
        version: Of the scores.
        dated: The newest of the dates of `used`.
    """

    query: Query
    table: pd.DataFrame
    boards: tuple[WeighedBoard, ...]
    left_out: Mapping[str, int]
    models: int
    notes: tuple[str, ...]
    version: str
    dated: date | None

    @property
    def used(self) -> tuple[WeighedBoard, ...]:
        """The boards that say something of the models shown."""
        return tuple(board for board in self.boards if board.weight > 0 and board.shown > 0)


Standing = Literal[
    "yes",
    "no, a copy",
    "no, self-reported",
    "no, a part",
    "no, a harness around it",
    "no, another of its results counts",
]


@dataclass(frozen=True)
class Evidence:
    """One published figure of one model, with where it is from.

    Attributes:
        rank: Of the model on this figure, 1 is the best.
        of: How many models have the figure.
        counts: Whether it enters the combined score.
        standing: Whether it does, and why not: one figure of a model counts for each benchmark.
        link: What the board links the model to, mostly its maker's page of it.
        source_url: The page of `source`, empty where there is none.
    """

    board: str
    variant: str
    metric: str
    published_name: str
    score: float
    unit: str
    rank: int
    of: int
    counts: bool
    standing: Standing
    is_self_reported: bool
    is_copy: bool
    date: str
    link: str
    source: str
    source_url: str


@dataclass(frozen=True)
class BoardTable:
    """One board as published.

    Attributes:
        board: Its name.
        variant: Which of its tables.
        variants: All of them.
        ordered_by: The metric that orders the rows.
        table: A row a published name: `model`, `published_name`, `organisation`, one column a
            metric, `is_self_reported`, `is_copy`, `date`, `link`, `source`.
        metrics: The catalogue's facts of each metric.
    """

    board: str
    variant: str
    variants: tuple[str, ...]
    ordered_by: str
    table: pd.DataFrame
    metrics: pd.DataFrame


@dataclass(frozen=True)
class Quality:
    """How good a model is at a task."""

    score: float
    low: float
    high: float
    boards: int
    rank: int
    of: int
