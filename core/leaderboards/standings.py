"""The boards of one task as they stand: who is on which, linked and ready to be weighted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd

from core.leaderboards import scores
from core.leaderboards.combining import Combiner, summed
from core.leaderboards.linking import Floats, Indices
from core.leaderboards.tasks import Task, TaskBoard

# What a board lists to show that its judge can be fooled, and what it takes as a yardstick.
_NO_MODELS = frozenset({"nullmodel", "human", "baseline"})
# A harness built around a model is not the model.
NOT_THE_MODEL = frozenset({"custom-harness"})
_FEW_SHARED = 5


@dataclass(frozen=True)
class BoardFacts:
    """How many models a board lists, when it was as it stands here, and where it is from."""

    models: int
    dated: date | None
    source: str


@dataclass(frozen=True)
class Standings:
    """The boards of a task.

    Attributes:
        task: The task.
        boards: Its boards that have scores, in the order of the columns of `combiner`.
        subjects: Its models, by id or unresolved name, in the order of the rows of `combiner`.
        entries: The scores that count, a row each: `subject_index`, `board_index`, `row` (its
            label in the frame) and the columns of `scores.Scores.frame`.
        facts: Of each board.
        combiner: The linked boards.
        loose: Boards that share fewer than five models with the others: their place on the common
            scale is all but unknown.
    """

    task: Task
    boards: tuple[TaskBoard, ...]
    subjects: Sequence[str]
    entries: pd.DataFrame
    facts: tuple[BoardFacts, ...]
    combiner: Combiner | None
    loose: tuple[TaskBoard, ...]

    def weights(self, asked: Mapping[str, float]) -> Floats:
        """One weight a board: as asked, else 1."""
        return np.array([max(0.0, asked.get(board.key, 1.0)) for board in self.boards])


def standings(frame: pd.DataFrame, task: Task) -> Standings:
    """The task's boards, from every published score.

    Of several results of one model in one benchmark (with and without function calling, several
    providers) the best counts. Copies, self-reports and what is no score are left out.
    """
    entries = _counted(frame, task)
    codes, subjects = pd.factorize(entries["subject"])
    entries["subject_index"] = codes
    present = sorted(entries["board_index"].unique())
    boards = tuple(task.boards[index] for index in present)
    entries["board_index"] = np.searchsorted(present, entries["board_index"])
    by_board = [entries[entries["board_index"] == index] for index in range(len(boards))]
    parts = [_ordered(each, len(subjects)) for each in by_board]
    combiner = _combiner(parts, len(subjects)) if parts else None
    loose = _loose(combiner, boards)
    facts = tuple(_facts(each) for each in by_board)
    return Standings(task, boards, list(subjects), entries, facts, combiner, loose)


def _counted(frame: pd.DataFrame, task: Task) -> pd.DataFrame:
    names = ["board", "variant", "metric"]
    keys = pd.DataFrame(
        [
            (each.board, each.variant, each.metric, index, number)
            for index, board in enumerate(task.boards)
            for number, each in enumerate(board.benchmarks)
        ],
        columns=[*names, "board_index", "benchmark_index"],
    )
    wanted = frame["board"].isin(set(keys["board"])) & frame["kind"].eq("score")
    wanted &= ~(frame["is_copy"] | frame["is_self_reported"]) & frame["score"].notna()
    found = frame[wanted].reset_index(names="row").merge(keys, on=names)
    found = found[~found["published_name"].str.lower().isin(_NO_MODELS)]
    found = found[~found["setting"].isin(NOT_THE_MODEL)]
    found["value"] = np.where(found["higher_is_better"], found["score"], -found["score"])
    found = found.sort_values("value", kind="stable")
    return found.drop_duplicates(["board_index", "benchmark_index", "subject"], keep="last").copy()


def _ordered(entries: pd.DataFrame, subjects: int) -> tuple[Indices, Floats, Floats]:
    """The models of one board, what orders them, and what it leaves unsaid of each."""
    model = entries["subject_index"].to_numpy(np.int64)
    value = entries["value"].to_numpy(float)
    benchmark, names = pd.factorize(entries["benchmark_index"])
    if len(names) == 1:
        return model, value, np.zeros(len(value))
    return summed(model, benchmark.astype(np.int64), value, subjects, len(names))


def _facts(entries: pd.DataFrame) -> BoardFacts:
    sources = entries["source"].unique().tolist()
    dated = scores.dated(sources, entries["date"].unique().tolist())
    return BoardFacts(entries["subject"].nunique(), dated, str(sources[0]))


def _combiner(parts: Sequence[tuple[Indices, Floats, Floats]], subjects: int) -> Combiner:
    board = np.repeat(np.arange(len(parts)), [len(model) for model, _, _ in parts])
    model, value, extra = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Combiner(model, board, value, subjects, len(parts), extra)


def _loose(combiner: Combiner | None, boards: Sequence[TaskBoard]) -> tuple[TaskBoard, ...]:
    if combiner is None or len(boards) == 1:
        return ()
    shared = combiner.linked.shared
    return tuple(board for board, count in zip(boards, shared, strict=True) if count < _FEW_SHARED)
