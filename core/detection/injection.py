"""Signs of prompt injection: text that wants to be taken for instructions.

Each sign that a text shows adds to its score, as if they were independent: 1 - Π(1 - weight). What
hides (zero-width letters, letters that only look Latin, base64) is a sign, and what it hides is
read too. It is a heuristic: it stops what is copied from the web, not somebody who tries for long.
"""

from __future__ import annotations

import base64
import binascii
import re
import tomllib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

# What is looked at together; a sign that lies on the border of two such pieces is missed by none.
SLICE = 16_384
_OVERLAP = 400
_MOST_ENCODED = 32

# Sign → weight and patterns, in any case, on a text that is plain: see `_plain`.
_SIGNS = Path(__file__).with_name("injection.toml")
_HIDDEN = ("hidden_text", 0.5)
_LOOKALIKE = ("lookalike", 0.4)
_ENCODED = ("encoded", 0.4)

# Letters that do not show; those from U+E0000 on are tags, which show nothing at all.
_INVISIBLE = (
    r"[\x{ad}\x{34f}\x{61c}\x{115f}\x{1160}\x{17b4}\x{17b5}\x{180e}\x{200b}-\x{200f}"
    r"\x{202a}-\x{202e}\x{2060}-\x{206f}\x{feff}\x{fff9}-\x{fffb}\x{e0000}-\x{e007f}]"
)
_TAGS = r"[\x{e0020}-\x{e007e}]{4,}"
# Joiners belong into emoji and into scripts that need them, and turns where scripts turn.
_HIDING = (
    r"[A-Za-z][\x{ad}\x{200b}-\x{200d}\x{2060}\x{feff}]+[A-Za-z]|[\x{202a}-\x{202e}\x{2066}-\x{2069}]"
    rf"|{_TAGS}"
)
# Words of Latin with Greek or Cyrillic letters.
_GREEK = r"\x{370}-\x{52f}"
_MIXED = rf"[A-Za-z]+[{_GREEK}][A-Za-z{_GREEK}]*|[{_GREEK}]+[A-Za-z][A-Za-z{_GREEK}]*"
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{24,4096}={0,2}(?![A-Za-z0-9+/_=-])")
_SPACES = re.compile(r"[ \t]{2,}|[\t\u00a0\u2000-\u200a\u3000]+")
# A mark between all letters, as in `i-g-n-o-r-e` or `i g n o r e`.
_SPELT = re.compile(r"\b(?:[A-Za-z][ .*_-]){5,40}[A-Za-z]\b")
_LATIN = str.maketrans(
    "аеорсухіјѕԁһӏвкмнтАВЕЅІЈКМНОРСТХУԛԝɡαοερινυκητχΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "aeopcyxijsdhlbkmhtABESIJKMHOPCTXYqwgaoepivuknrxABEZHIKMNOPTYX",
)
_LEET = str.maketrans("013457@$", "oieastas")


@dataclass(frozen=True, slots=True)
class Signs:
    """What a text shows: the score, 0 to 1, and how heavy each sign is."""

    score: float
    weights: dict[str, float]


class SignReader:
    """Reads one text, or several that belong together."""

    def __init__(self) -> None:
        self._weights: dict[str, float] = {}
        self._tail = ""

    def feed(self, piece: str) -> None:
        """The next piece, of up to `SLICE` characters."""
        text = self._tail + piece
        self._tail = text[-_OVERLAP:]
        self._read(text)
        for hidden, sign in _hidden(text):
            if self._read(hidden):
                self._weights.setdefault(*sign)

    def end_of_text(self) -> None:
        """What follows is another text."""
        self._tail = ""

    @property
    def signs(self) -> Signs:
        """What was seen so far."""
        rest = 1.0
        for weight in self._weights.values():
            rest *= 1 - weight
        return Signs(1 - rest, dict(self._weights))

    def _read(self, text: str) -> bool:
        """Whether the text shows a sign that was not seen yet, disguises apart."""
        plain, disguises = _plain(text)
        self._weights.update(disguises)
        if _any_sign().search(plain) is None:
            return False
        shown = {sign: weight for sign, weight, pattern in _compiled() if pattern.search(plain)}
        is_new = not shown.keys() <= self._weights.keys()
        self._weights.update(shown)
        return is_new


def signs_of(text: str) -> Signs:
    """The signs of a whole text."""
    reader = SignReader()
    for start in range(0, len(text), SLICE):
        reader.feed(text[start : start + SLICE])
    return reader.signs


def _plain(text: str) -> tuple[str, list[tuple[str, float]]]:
    """The text without what hides in it, and the disguises that it wore."""
    if text.isascii():
        return _SPACES.sub(" ", text), []
    disguises = []
    if _re2(_INVISIBLE).search(text):
        if _re2(_HIDING).search(text):
            disguises.append(_HIDDEN)
        text = str(_re2(_INVISIBLE).sub("", text))
    if _re2(_MIXED).search(text):
        disguises.append(_LOOKALIKE)
        text = str(_re2(_MIXED).sub(lambda found: found.group().translate(_LATIN), text))
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", text)), disguises


def _hidden(text: str) -> Iterator[tuple[str, tuple[str, float]]]:
    """What a text says only to who decodes it."""
    for found in () if text.isascii() else _re2(_TAGS).finditer(text):
        yield "".join(chr(ord(each) - 0xE0000) for each in found.group()), _HIDDEN
    for number, found in enumerate(_BASE64.finditer(text)):
        if number >= _MOST_ENCODED:
            break
        decoded = _decoded(found.group())
        if decoded:
            yield decoded, _ENCODED
    spelt = _SPELT.sub(lambda found: re.sub(r"[ .*_-]", "", found.group()), text)
    if spelt != text:
        yield spelt, _ENCODED
    leet = text.translate(_LEET)
    if leet != text:
        yield leet, _ENCODED
    yield text[::-1], _ENCODED


def _decoded(text: str) -> str:
    padded = text.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        content = base64.b64decode(padded + "=" * (-len(padded) % 4))
        decoded = content.decode()
    except (binascii.Error, ValueError):
        return ""
    return decoded if decoded.isprintable() or "\n" in decoded else ""


@cache
def _compiled() -> list[tuple[str, float, Any]]:
    return [(sign, weight, _re2(pattern)) for sign, weight, pattern in _signs()]


@cache
def _any_sign() -> Any:
    return _re2("|".join(pattern for _, _, pattern in _signs()))


@cache
def _signs() -> list[tuple[str, float, str]]:
    """Name, weight and pattern of each sign in `injection.toml`."""
    known = tomllib.loads(_SIGNS.read_text())
    found = []
    for sign in known["sign"]:
        pattern = "|".join(f"(?:{each})" for each in sign["patterns"])
        for name, part in known["parts"].items():
            pattern = pattern.replace(f"{{{name}}}", part)
        found.append((str(sign["name"]), float(sign["weight"]), pattern))
    return found


@cache
def _re2(pattern: str) -> Any:
    import re2

    options = re2.Options()
    options.max_mem = 32 << 20
    options.log_errors = False
    options.case_sensitive = False
    return re2.compile(pattern, options)
