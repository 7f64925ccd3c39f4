"""Which class of use the licence of a model belongs to, by the registry's answers.

The licence of a model of the registry is the one that its file or the hub gives; that of a shipped
shape is the one on the card of the repository that the shape was read from. Each licence is
judged once: a search looks its class up.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from core.registry import licences
from core.simulation import architectures

PERMISSIVE, CONDITIONAL, NON_COMMERCIAL, UNKNOWN = (
    "permissive",
    "with conditions",
    "non-commercial",
    "unknown",
)
UNKNOWN_LICENCE = "unknown licence"

# A model is served to be used by others, in a business; how many is not known here.
_COMMERCIAL = licences.Use(hosts_api=True)
_PERMISSIVE_CATEGORIES = ("Permissive", "Public Domain")
# Where a shape comes from: "config.json of Qwen/Qwen3-32B, as in …".
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence by its short name, and what it lets one do: one of the four classes."""

    name: str
    use: str


def of_model(model_id: str, registered: Mapping[str, str | None]) -> Licence:
    """The licence of a model by its id; `registered` holds those of the registry's models.

    A name that the registry does not know, and a licence that nobody has answered for, are of
    the class UNKNOWN.
    """
    stated = registered.get(model_id)
    if stated:
        return _named(stated)
    key = _of_shape(model_id)
    return Licence(UNKNOWN_LICENCE, UNKNOWN) if key is None else _of_key(key)


@cache
def _named(name: str) -> Licence:
    key = licences.by_id(name)
    return Licence(name, UNKNOWN if key is None else _of_key(key).use)


@cache
def _of_shape(model_id: str) -> str | None:
    shape = architectures.records().get(model_id)
    repository = _REPOSITORY.search(shape.source) if shape else None
    return licences.of_repository(repository[0]) if repository else None


@cache
def _of_key(key: str) -> Licence:
    known = licences.licence(key)
    return Licence(known.short_name, _use(key, known.category))


def _use(key: str, category: str) -> str:
    outcome = licences.verdict(key, _COMMERCIAL).outcome
    if outcome == "needs review":
        return UNKNOWN
    if outcome == "no":
        return NON_COMMERCIAL
    return PERMISSIVE if category in _PERMISSIVE_CATEGORIES else CONDITIONAL
