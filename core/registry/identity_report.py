"""How good the resolver is, from pairs of names that two people labelled without seeing its answer.

Precision is the share of sampled merges that people call the same model; recall the share of pairs
that people call the same model, among near names drawn from every stratum, that the resolver puts
together. Half of the pairs, by their id, is the test set: it is read for this report only.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.kernel.errors import InvalidInput, NotFound

LABELS = ("same", "different", "unsure")
_Z95 = 1.959964


@dataclass(frozen=True)
class Share:
    """A share with its Wilson interval of 95%.

    Attributes:
        hits: How many.
        of: Out of how many.
    """

    hits: int
    of: int

    @property
    def value(self) -> float:
        """0 to 1; NaN of nothing."""
        return self.hits / self.of if self.of else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end (Wilson 1927)."""
        if not self.of:
            return (0.0, 1.0)
        share, square = self.hits / self.of, _Z95**2 / self.of
        middle = (share + square / 2) / (1 + square)
        half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
        return (max(0.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True)
class Judged:
    """A labelled pair with the resolver's answer.

    Attributes:
        id: Of the pair.
        kind: `merge`, `hard: size` …, or `recall`.
        stratum: Group of sources, of a recall pair.
        label: What people settled on, or None where they did not.
        merged: Whether the resolver gives both names one model.
        names: Both names.
    """

    id: str
    kind: str
    stratum: str
    label: str | None
    merged: bool
    names: tuple[str, str]

    @property
    def is_test(self) -> bool:
        """Whether it belongs to the half that is read for the report only."""
        return int(self.id, 16) % 2 == 1


@dataclass(frozen=True)
class Scores:
    """The resolver's figures on some pairs.

    Attributes:
        precision: Of the sampled merges that stand, those that people call the same model.
        precision_as_drawn: The same of all sampled merges, those mended since too.
        precision_everywhere: Of all labelled pairs that it merges, whatever their kind, the same.
        hard_kept_apart: Of the hard pairs that people call different, those kept apart.
        recall: Of near names that people call the same model, those put together.
        recall_by_stratum: The same for each group of sources.
    """

    precision: Share
    precision_as_drawn: Share
    precision_everywhere: Share
    hard_kept_apart: Share
    recall: Share
    recall_by_stratum: dict[str, Share]


@dataclass(frozen=True)
class Report:
    """What `bud catalogue resolver` shows.

    Attributes:
        all, development, test: The figures on all pairs and on either half.
        kappa: Cohen's kappa of the two labellers.
        agreed: How many pairs both labelled alike, of all that both labelled.
        settled: Disagreements that were settled afterwards, with a reason in the file.
        unsettled: Pairs that count nowhere: unsure, or not settled.
        mistakes: Wrongly merged and wrongly separate pairs of the development half.
    """

    all: Scores
    development: Scores
    test: Scores
    kappa: float
    agreed: Share
    settled: int
    unsettled: int
    mistakes: tuple[Judged, ...]


def report(folder: Path, model_of: Mapping[tuple[str, str, str], str | None]) -> Report:
    """Score the resolver on the labelled pairs of a folder.

    Args:
        folder: Holds `pairs_to_label.csv`, `pairs_key.csv`, `labels_a.csv`, `labels_b.csv` and, for
            disagreements, `labels_settled.csv`.
        model_of: The resolver's answer by (name, organisation, source).

    Raises:
        NotFound: Files are missing.
        InvalidInput: A label is none of `LABELS`.
    """
    first, second = (_labels(folder / f"labels_{who}.csv") for who in "ab")
    settled_file = folder / "labels_settled.csv"
    settled = _labels(settled_file) if settled_file.is_file() else {}
    judged = _judged(folder, model_of, _final(first, second, settled))
    both = sorted(first.keys() & second.keys())
    development = [pair for pair in judged if not pair.is_test]
    return Report(
        all=scores(judged),
        development=scores(development),
        test=scores([pair for pair in judged if pair.is_test]),
        kappa=kappa([(first[pair], second[pair]) for pair in both]),
        agreed=Share(sum(first[pair] == second[pair] for pair in both), len(both)),
        settled=len(settled),
        unsettled=sum(pair.label is None for pair in judged),
        mistakes=tuple(pair for pair in development if _is_mistake(pair)),
    )


def scores(judged: Sequence[Judged]) -> Scores:
    """The figures on these pairs; what people left open counts nowhere."""
    known = [pair for pair in judged if pair.label]
    drawn = [pair for pair in known if pair.kind == "merge"]
    merges = [pair for pair in drawn if pair.merged]
    merged = [pair for pair in known if pair.merged]
    hard = [pair for pair in known if pair.kind.startswith("hard") and pair.label == "different"]
    same = [pair for pair in known if pair.kind == "recall" and pair.label == "same"]
    strata = sorted({pair.stratum for pair in same})
    return Scores(
        precision=_share(merges, lambda pair: pair.label == "same"),
        precision_as_drawn=_share(drawn, lambda pair: pair.label == "same"),
        precision_everywhere=_share(merged, lambda pair: pair.label == "same"),
        hard_kept_apart=_share(hard, lambda pair: not pair.merged),
        recall=_share(same, lambda pair: pair.merged),
        recall_by_stratum={
            stratum: _share([pair for pair in same if pair.stratum == stratum], _is_merged)
            for stratum in strata
        },
    )


def kappa(pairs: Sequence[tuple[str, str]]) -> float:
    """Cohen's kappa (1960): agreement of two labellers beyond chance; NaN of nothing."""
    if not pairs:
        return math.nan
    observed = sum(first == second for first, second in pairs) / len(pairs)
    expected = (
        sum(
            sum(first == label for first, _ in pairs) * sum(second == label for _, second in pairs)
            for label in LABELS
        )
        / len(pairs) ** 2
    )
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)


def _is_merged(pair: Judged) -> bool:
    return pair.merged


def _is_mistake(pair: Judged) -> bool:
    return pair.label in ("same", "different") and pair.merged != (pair.label == "same")


def _share(pairs: Sequence[Judged], hit: Callable[[Judged], bool]) -> Share:
    return Share(sum(hit(pair) for pair in pairs), len(pairs))


def _final(
    first: Mapping[str, str], second: Mapping[str, str], settled: Mapping[str, str]
) -> dict[str, str | None]:
    final: dict[str, str | None] = {}
    for pair in first.keys() | second.keys():
        agreed = first.get(pair) if first.get(pair) == second.get(pair) else None
        label = settled.get(pair, agreed)
        final[pair] = None if label == "unsure" else label
    return final


def _judged(
    folder: Path,
    model_of: Mapping[tuple[str, str, str], str | None],
    final: Mapping[str, str | None],
) -> list[Judged]:
    key = {row["id"]: row for row in _rows(folder / "pairs_key.csv")}
    judged = []
    for row in _rows(folder / "pairs_to_label.csv"):
        names = tuple((row[f"name_{who}"], row[f"org_{who}"], row[f"source_{who}"]) for who in "ab")
        first, second = (model_of.get(name) for name in names)
        judged.append(
            Judged(
                id=row["id"],
                kind=key[row["id"]]["kind"],
                stratum=key[row["id"]]["stratum"],
                label=final.get(row["id"]),
                merged=first is not None and first == second,
                names=(row["name_a"], row["name_b"]),
            )
        )
    return judged


def _labels(path: Path) -> dict[str, str]:
    labels = {row["id"]: row["label"] for row in _rows(path)}
    wrong = sorted(set(labels.values()) - set(LABELS))
    if wrong:
        raise InvalidInput(
            f"{path.name} has labels that are none.",
            value=wrong[0],
            remedy=f"A label is one of {', '.join(LABELS)}.",
        )
    return labels


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise NotFound(
            f"{path.name} is not in the folder.",
            value=path.parent,
            remedy="Make the pairs with `bud catalogue pairs`, and have two people label them.",
        )
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))
