"""Every licence that is known by name: its key, identifiers, category and owner."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from typing import Any

from core.kernel.errors import NotFound
from core.registry.licences.answers import released
from core.registry.licences.schemas import Licence
from core.registry.licences.texts import DATA, archive, text_keys

_CATEGORY_UNKNOWN = "Unstated"


@cache
def licences() -> dict[str, Licence]:
    """Every known licence by its key: those of ScanCode LicenseDB, and Bud's own."""
    found = {row["key"]: _licence(row) for row in archive()["index"]}
    known = {entry["key"]: _known(entry) for entry in _names_file()["known"]}
    return found | known


def licence(key: str) -> Licence:
    """One licence.

    Raises:
        NotFound: No licence has this key; names the nearest.
    """
    found = licences().get(key)
    if found is None:
        near = get_close_matches(key, licences(), n=3)
        raise NotFound(
            f"There is no licence {key!r}.",
            remedy=f"Near to it: {', '.join(near)}." if near else "See the Licences page.",
        )
    return found


def key_of(name: str) -> str | None:
    """The licence that bears exactly this name, whatever its case and punctuation."""
    plain = _plain(name)
    return None if plain in _ambiguous() else _keys_by_name().get(plain)


def _licence(row: dict[str, str]) -> Licence:
    key = row["key"]
    return Licence(
        key=key,
        spdx=row["spdx"],
        name=row["name"],
        short_name=row["short_name"],
        category=row["category"],
        owner=row["owner"],
        url=row["url"],
        has_text=key in text_keys(),
        text_source=row["text_source"] if key in text_keys() else "",
        released=released(key),
    )


def _known(entry: dict[str, Any]) -> Licence:
    return Licence(
        key=entry["key"],
        spdx="",
        name=entry["name"],
        short_name=entry["name"],
        category=_CATEGORY_UNKNOWN,
        owner=entry["owner"],
        url="",
        has_text=False,
        text_source="",
        note=entry["note"],
        builds_on=entry.get("builds_on", ""),
    )


@cache
def _keys_by_name() -> dict[str, str]:
    found: dict[str, str] = {}
    for name, key in _all_names():
        found.setdefault(_plain(name), key)
    return found


@cache
def _ambiguous() -> frozenset[str]:
    return frozenset(map(_plain, _names_file()["ambiguous"]))


def _all_names() -> Iterator[tuple[str, str]]:
    """Names and keys, the most binding first: the first use of a name counts."""
    names = _names_file()
    yield from names["names"].items()
    for entry in names["known"]:
        for name in (entry["key"], entry["name"], *entry["names"]):
            yield name, entry["key"]
    rows = archive()["index"]
    for field in ("key", "spdx", "other_spdx", "name", "short_name"):
        for row in rows:
            values = row[field].split(" ") if field == "other_spdx" else [row[field]]
            yield from ((value, row["key"]) for value in values if value)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.+]+", "-", name.strip().lower()).strip("-.")


@cache
def _names_file() -> dict[str, Any]:
    return tomllib.loads((DATA / "names.toml").read_text(encoding="utf-8"))
