"""How old what the catalogue says is: the date of each source, and which are too old."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from functools import lru_cache

import pandas as pd

from core.kernel import clock
from core.kernel.settings import settings
from core.registry import makers

_DATE = re.compile(r"\b20\d\d-\d\d(?:-\d\d)?\b")
_OWN = "of the source"


@dataclass(frozen=True)
class Dated:
    """When a source was as the catalogue has it.

    Attributes:
        text: `2026-05-22` or `2026-05`; empty where nothing says.
        basis: What that date is.
    """

    text: str
    basis: str

    @property
    def day(self) -> date | None:
        """The day, or the first one of the month."""
        text = f"{self.text}-01" if len(self.text) == len("2026-05") else self.text
        try:
            return date.fromisoformat(text)
        except ValueError:
            return None

    @property
    def age_days(self) -> int | None:
        """Days since then."""
        return None if self.day is None else (clock.now().date() - self.day).days

    def is_older_than(self, days: int) -> bool:
        """Whether it is, or of an unknown age."""
        return self.age_days is None or self.age_days > days


@lru_cache(maxsize=4096)
def of_source(source: str) -> Dated:
    """When a source was so: by its own words, else by `sources.csv`, which says what it is."""
    found = _DATE.search(source)
    if found is not None:
        return Dated(found[0], _OWN)
    for row in makers.table("sources.csv"):
        if row["source"] in source:
            return Dated(row["date"], row["basis"])
    return Dated("", "nobody says")


def is_old_fact(source: str) -> bool:
    """Whether what a source says is over `BUD_STALE_FACTS_DAYS` old, or of an unknown age."""
    return of_source(source).is_older_than(settings().stale_facts_days)


def with_ages(prices: pd.DataFrame) -> pd.DataFrame:
    """Prices with `date`, what it is (`date_is`), `age_days`, and `is_old`.

    Old is over `BUD_STALE_PRICES_DAYS`, or of an unknown age.
    """
    dated = [of_source(source) for source in prices["source"]]
    oldest = settings().stale_prices_days
    return prices.assign(
        date=[each.text or None for each in dated],
        date_is=[each.basis for each in dated],
        age_days=pd.array([each.age_days for each in dated], dtype="Int64"),
        is_old=[each.is_older_than(oldest) for each in dated],
    )


def newest(sources: list[str]) -> Dated:
    """The date of the newest of several sources."""
    dated = [of_source(source) for source in sources]
    return max(dated, key=lambda each: each.day or date.min, default=Dated("", "nobody says"))
