"""Samples pairs of published names for two people to label; `identity_report` scores the resolver.

The pairs hide what the resolver says and which kind they are; `pairs_key.csv` beside them keeps
the kind.
"""

from __future__ import annotations

import csv
import hashlib
import math
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.registry.identity import Identity, parse

MERGES = 600
HARD_PAIRS = 600
NAMES_PER_STRATUM = 150
_TRIES = 40  # draws a wanted pair, before giving up
_PAIR_COLUMNS = ("id", "kind", "name_a", "org_a", "source_a", "name_b", "org_b", "source_b")
_STRATA = {
    "open_models.csv": "hub catalogues",
    "gpustack_catalog.csv": "hub catalogues",
    "embedding_models.csv": "hub catalogues",
    "helm_model_metadata.csv": "HELM",
    "models_dev.csv": "hosts, models.dev",
    "prices_litellm.csv": "hosts, LiteLLM",
    "LMArena": "chat boards",
    "AlpacaEval": "chat boards",
    "Arena-Hard": "chat boards",
    "WildBench": "chat boards",
    "Aider": "code boards",
    "EvalPlus": "code boards",
    "BFCL": "tool boards",
    "tau2-bench": "tool boards",
    "ZeroEval": "other boards",
    "Vectara HHEM": "other boards",
    "llm-stats": "other boards",
    "MTEB results repo": "embeddings and speech",
    "Open ASR": "embeddings and speech",
}


@dataclass(frozen=True)
class Name:
    """A published name and where it is from."""

    name: str
    organisation: str
    source: str


@dataclass(frozen=True)
class Pair:
    """Two names that someone is asked about, and why."""

    kind: str
    stratum: str
    first: Name
    second: Name

    @property
    def id(self) -> str:
        """The same for the same names."""
        text = "\n".join([self.kind, *_cells(self.first), *_cells(self.second)])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _cells(name: Name) -> tuple[str, str, str]:
    return name.name, name.organisation, name.source


def stratum(source: str) -> str:
    """The group of sources whose names are alike."""
    file, _, group = source.partition(": ")
    return _STRATA[group if file == "benchmark_results.csv" else file]


def sample(
    rows: Sequence[Mapping[str, Any]],
    seed: int,
    merges: int = MERGES,
    hard_pairs: int = HARD_PAIRS,
    names_per_stratum: int = NAMES_PER_STRATUM,
) -> list[Pair]:
    """Pairs to label: merges of the resolver, hard pairs, and for recall a near name of a name.

    Args:
        rows: Of `names.parquet`.
        seed: Of the random choice.
        merges: How many merges.
        hard_pairs: How many pairs that differ in one respect.
        names_per_stratum: How many names of each group of sources, each with one near name.
    """
    chance = random.Random(seed)  # noqa: S311 - a sample, not a secret
    names = sorted(
        {Name(row["name"], row["organisation"], row["source"]) for row in rows}, key=_cells
    )
    pairs = [
        *_merges(rows, chance, merges),
        *_hard_pairs(names, chance, hard_pairs),
        *_recall_pairs(names, chance, names_per_stratum),
    ]
    unique = {pair.id: pair for pair in pairs}
    return [unique[key] for key in sorted(unique)]


def _differ(first: Name, second: Name) -> bool:
    return first.name.lower() != second.name.lower()


def _merges(
    rows: Sequence[Mapping[str, Any]], chance: random.Random, wanted: int
) -> Iterator[Pair]:
    """Each merge of a name into its model is as likely as any other."""
    members: dict[str, list[Name]] = defaultdict(list)
    for row in rows:
        if row["model_id"]:
            members[row["model_id"]].append(Name(row["name"], row["organisation"], row["source"]))
    groups = [sorted(group, key=_cells) for _, group in sorted(members.items())]
    groups = [group for group in groups if len({name.name.lower() for name in group}) > 1]
    weights = [len({name.name.lower() for name in group}) - 1 for group in groups]
    seen: set[frozenset[str]] = set()
    for _ in range(wanted * _TRIES):
        if len(seen) == wanted:
            return
        first, second = chance.sample(chance.choices(groups, weights)[0], 2)
        both = frozenset((first.name.lower(), second.name.lower()))
        if _differ(first, second) and both not in seen:
            seen.add(both)
            yield Pair("merge", "", first, second)


def _hard_pairs(names: Sequence[Name], chance: random.Random, wanted: int) -> Iterator[Pair]:
    """Names of one maker and family that differ in one respect, each respect as often."""
    respects: dict[str, Callable[[Identity], object]] = {
        "size": lambda found: found.size,
        "date": lambda found: found.snapshot,
        "effort": lambda found: found.setting,
        "quantisation": lambda found: found.quantisation,
        "tuning": lambda found: found.tuning,
        "version or flavour": lambda found: found.words,
    }
    spelled = {name.name.lower(): name for name in names}
    read = [(name, parse(name.name, name.organisation)) for name in spelled.values()]
    for respect in respects:
        seen: set[frozenset[str]] = set()
        groups = _alike_but(read, respect, respects)
        for _ in range(wanted * _TRIES):
            if len(seen) == wanted // len(respects) or not groups:
                break
            (first, mine), (second, theirs) = chance.sample(chance.choice(groups), 2)
            both = frozenset((first.name, second.name))
            if respects[respect](mine) != respects[respect](theirs) and both not in seen:
                seen.add(both)
                yield Pair(f"hard: {respect}", "", first, second)


def _alike_but(
    read: Sequence[tuple[Name, Identity]],
    respect: str,
    respects: Mapping[str, Callable[[Identity], object]],
) -> list[list[tuple[Name, Identity]]]:
    groups: dict[tuple[object, ...], list[tuple[Name, Identity]]] = defaultdict(list)
    for name, found in read:
        others = [value(found) for other, value in respects.items() if other != respect]
        if found.family or respect != "version or flavour":
            groups[(found.maker, found.family, *others)].append((name, found))
    value = respects[respect]
    return [group for group in groups.values() if len({str(value(each)) for _, each in group}) > 1]


def _recall_pairs(
    names: Sequence[Name], chance: random.Random, names_per_stratum: int
) -> Iterator[Pair]:
    """For names drawn from each stratum one of the three names of other sources spelled nearest.

    Nearness is of letter triples, so that the resolver has no say in what is asked.
    """
    by_stratum: dict[str, list[Name]] = defaultdict(list)
    for name in names:
        by_stratum[stratum(name.source)].append(name)
    near = _Near(names)
    for group, members in sorted(by_stratum.items()):
        drawn = {name.name.lower(): name for name in chance.sample(members, len(members))}
        for name in list(drawn.values())[:names_per_stratum]:
            candidates = near.names(name)
            if candidates:
                yield Pair("recall", group, name, chance.choice(candidates))


class _Near:
    """Which names share the rarest letter triples with a name."""

    def __init__(self, names: Sequence[Name]) -> None:
        self._names = names
        self._holders: dict[str, list[int]] = defaultdict(list)
        for position, name in enumerate(names):
            for triple in _triples(name.name):
                self._holders[triple].append(position)
        self._weight = {
            triple: math.log(len(names) / len(holders)) for triple, holders in self._holders.items()
        }
        self._length = [sum(self._weight[each] for each in _triples(name.name)) for name in names]

    def names(self, asked: Name) -> list[Name]:
        shared: Counter[int] = Counter()
        mine = _triples(asked.name)
        for triple in mine:
            for position in self._holders[triple]:
                shared[position] += self._weight[triple]  # type: ignore[assignment]  # a sum of logs
        length = sum(self._weight[each] for each in mine)
        likeness = {
            position: weight / (length + self._length[position] - weight)
            for position, weight in shared.items()
        }
        found: dict[str, Name] = {}
        for position in sorted(likeness, key=lambda each: (-likeness[each], each)):
            other = self._names[position]
            if _differ(asked, other) and stratum(other.source) != stratum(asked.source):
                found.setdefault(other.name.lower(), other)
            if len(found) == 3:
                break
        return list(found.values())


def _triples(name: str) -> frozenset[str]:
    last = f"  {re.sub(r'[^a-z0-9]+', ' ', name.lower().rpartition('/')[2])} "
    return frozenset(last[start : start + 3] for start in range(len(last) - 2))


def write(pairs: Iterable[Pair], folder: Path) -> None:
    """Write `pairs_to_label.csv`, which tells nothing, and `pairs_key.csv` with the kinds."""
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(pairs, key=lambda pair: pair.id)
    with (folder / "pairs_to_label.csv").open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(_PAIR_COLUMNS)
        writer.writerows(
            [pair.id, "pair", *_cells(pair.first), *_cells(pair.second)] for pair in ordered
        )
    with (folder / "pairs_key.csv").open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("id", "kind", "stratum"))
        writer.writerows([pair.id, pair.kind, pair.stratum] for pair in ordered)
