"""Who makes models: the spellings of makers, the families that name one, and the hosts."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from pathlib import Path

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Family:
    """A family of models whose name alone says who made it."""

    name: str
    maker: str


def maker_id(text: str) -> str:
    """The maker's id of any spelling of it; one that is not known keeps its own spelling."""
    plain = re.sub(r"\s+", " ", text.strip().lower())
    return _makers().get(plain, re.sub(r"[^a-z0-9.]+", "-", plain).strip("-"))


def maker_id_in_path(folder: str) -> str:
    """The maker that a folder of a hosted name stands for, or empty for a host's own folder."""
    name = re.sub(r"^(hf:|~)| \d$", "", folder)
    return "" if is_host(name) else maker_id(name)


def is_maker(text: str) -> bool:
    """Whether it is a known spelling of a maker."""
    return text in _makers()


def is_host(text: str) -> bool:
    """Whether it is the name of a host or a folder of one, which says nothing about the maker."""
    return text in _hosts() or bool(re.fullmatch(r"[a-z]{2}(-gov)?-[a-z]+-\d|\d.*|@.*|.* .*", text))


def display_name(maker: str) -> str:
    """The maker's name as people write it."""
    return _names().get(maker, maker)


def family_of(words: Iterable[str]) -> Family | None:
    """The family that one of the words names; the table's order decides between several."""
    stems = {re.match(r"[a-z]*", word)[0] for word in words} | set(words)  # type: ignore[index]
    stems |= {re.sub(r"[\d.]+$", "", word) for word in words}
    found = [_families_by_token()[stem] for stem in stems & _families_by_token().keys()]
    return min(found, key=itemgetter(0))[1] if found else None


def family_words() -> dict[str, set[str]]:
    """Words of families by maker; what is added to it stays with the caller."""
    found: dict[str, set[str]] = defaultdict(set)
    for token, family in _families():
        found[family.maker].add(re.sub(r"[\d.]+", "", token))
    return found


@cache
def table(file: str) -> list[dict[str, str]]:
    """The rows of one of the tables beside this module."""
    with (DATA / file).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


@cache
def _makers() -> dict[str, str]:
    spelled = {}
    for row in table("makers.csv"):
        for spelling in (row["maker"], row["name"].lower(), *row["aliases"].split("|")):
            if spelling:
                spelled[spelling] = row["maker"]
    return spelled


@cache
def _names() -> dict[str, str]:
    return {row["maker"]: row["name"] for row in table("makers.csv")}


@cache
def _families() -> list[tuple[str, Family]]:
    return [(row["token"], Family(row["family"], row["maker"])) for row in table("families.csv")]


@cache
def _families_by_token() -> dict[str, tuple[int, Family]]:
    """Each with its place in the table; of a token that stands twice the first."""
    numbered = list(enumerate(_families()))
    return {token: (place, family) for place, (token, family) in reversed(numbered)}


@cache
def _hosts() -> frozenset[str]:
    return frozenset(row["host"] for row in table("hosts.csv"))
