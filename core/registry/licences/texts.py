"""The texts of licences: one compressed file, written by `core.registry.licences.build`."""

from __future__ import annotations

import json
import lzma
import re
from functools import cache
from pathlib import Path
from typing import Any

from core.kernel.errors import NotFound

DATA = Path(__file__).resolve().parents[1] / "data" / "licences"
ARCHIVE = DATA / "licences.json.xz"


@cache
def archive() -> dict[str, Any]:
    """`index`: a row for every licence known by name; `texts`: texts by key."""
    found: dict[str, Any] = json.loads(lzma.decompress(ARCHIVE.read_bytes()))
    return found


def text_keys() -> frozenset[str]:
    """The keys of the licences whose text Bud has."""
    return frozenset(archive()["texts"])


def text(key: str) -> str:
    """The full text of a licence.

    Raises:
        NotFound: Bud does not have it.
    """
    found: str | None = archive()["texts"].get(key)
    if found is None:
        raise NotFound(
            f"Bud does not have the text of {key}.",
            remedy="Paste the text that came with the model: it is compared with those it has.",
        )
    return found


def passage(key: str, quotation: str, around_letters: int = 400) -> tuple[str, str, str]:
    """A quotation where it stands in a licence: what comes before, itself, what comes after.

    Raises:
        NotFound: Bud does not have the text, or the quotation is not in it.
    """
    whole = text(key)
    found = _pattern(quotation).search(whole)
    if found is None:
        raise NotFound(f"The text of {key} does not hold these words.", value=quotation)
    start, end = found.span()
    return (
        whole[max(0, start - around_letters) : start],
        whole[start:end],
        whole[end : end + around_letters],
    )


def _pattern(quotation: str) -> re.Pattern[str]:
    """The quotation however it is wrapped, and with either form of quotation marks."""
    words = [
        re.escape(word).replace('"', '["“”]').replace("'", "['’‘]") for word in quotation.split()
    ]
    return re.compile(r"\s+".join(words))
