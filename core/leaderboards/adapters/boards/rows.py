"""What every adapter makes of a board's files, and how they read numbers and tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from core.kernel.errors import UpstreamFailed


class Read(Protocol):
    """The files of a board's repository, at one commit."""

    def __call__(self, path: str) -> str:
        """A file's text."""

    def data(self, path: str) -> bytes:
        """A file as it is."""

    def paths(self, folder: str) -> list[str]:
        """Every file below a folder."""


@dataclass(frozen=True, slots=True)
class Row:
    """One published figure.

    Attributes:
        date: Empty means the day of the commit.
        revision: Of the model, where the board names it.
        is_self_reported: What a vendor says of its own model.
    """

    variant: str
    metric: str
    published_name: str
    score: float
    organisation: str = ""
    date: str = ""
    link: str = ""
    licence_as_published: str = ""
    setting: str = ""
    revision: str = ""
    is_self_reported: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """Where a board's public files are, and how they are read.

    Attributes:
        repository: `owner/name` on GitHub.
        branch: The branch that the board publishes on.
        rows: Reads the files it needs and gives their figures.
    """

    repository: str
    branch: str
    rows: Callable[[Read], Iterable[Row]]


def number(text: object) -> float | None:
    """`77.47%`, `3.7 %`, `1,234`, `85.9` or a number; None for anything else."""
    try:
        value = float(str(text).replace("%", "").replace(",", "").strip())
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def csv_rows(text: str, needed: str) -> Iterator[dict[str, str]]:
    """The lines of a CSV file as dictionaries.

    Raises:
        UpstreamFailed: The column `needed` is missing, so the format has changed.
    """
    reader = csv.DictReader(io.StringIO(text))
    if needed not in (reader.fieldnames or ()):
        raise format_changed(f"a column {needed!r}")
    yield from reader


def figures(
    record: Mapping[str, object], variant: str, name: str, skip: Iterable[str], **about: str
) -> Iterator[Row]:
    """Every number of a record as a row, but for the keys in `skip`."""
    left_out = set(skip)
    for metric, value in record.items():
        score = None if metric in left_out or isinstance(value, bool) else number(value)
        if score is not None:
            yield Row(variant, metric, name, score, **about)  # type: ignore[arg-type]


def format_changed(what: str) -> UpstreamFailed:
    """The error of a file that is not what it was."""
    return UpstreamFailed(
        f"The board's file has no {what}: its format has changed.",
        remedy="Update Bud; until then the board stays as it is.",
    )
