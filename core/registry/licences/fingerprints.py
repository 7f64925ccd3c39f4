"""Fingerprints of licence texts: words without layout, and their sequences of three.

The words are what is left of a text without Markdown, case, punctuation, copyright lines, and the
parts that are no terms (how to apply the licence, who Creative Commons is).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

_SHINGLE_WORDS = 3
_WORD = re.compile(r"[a-z0-9]+(?:\.[0-9]+)*|[\u4e00-\u9fff]")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_ADDRESS = re.compile(r"<?https?://\S+>?", re.IGNORECASE)
# "a.", "(b)", "12." or "iv." wherever it stands: texts are wrapped anew.
_CLAUSE_MARKER = re.compile(r"(?<![\w.])\(?(?:[a-z]|[ivx]{1,4}|\d{1,2})[.)](?=\s)", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(?=[^\w\s])")
_COPYRIGHT_LINE = re.compile(
    r"\W*(?:(?:portions )?(?:copyright\s*(?:\(c\)|©|[\[<{]|\d{4}|:|by\b)|\(c\)\s*\d{4}|©).{0,160}"
    r"|all rights reserved\.?\W*)",
    re.IGNORECASE,
)


def _span(first: str, last: str) -> re.Pattern[str]:
    """A pattern for a passage by its first and last words, however it is wrapped."""
    first, last = first.replace(" ", r"\s+"), last.replace(" ", r"\s+")
    return re.compile(rf"{first}.*?{last}", re.IGNORECASE | re.DOTALL)


_NO_TERMS = (
    # A title, of licences that have none of their own.
    re.compile(
        r"^\W*(?:the )?(?:mit licen[sc]e(?: \(mit\))?|bsd [23][- ]clause licen[sc]e)\W*$",
        re.IGNORECASE | re.MULTILINE,
    ),
    _span("appendix: how to apply the apache license", r"limitations under the license\.?"),
    _span(
        "how to apply these terms to your new (?:programs|libraries)",
        r"(?:why-not-lgpl\.html>?\.|instead of this license\.|that's all there is to it!)",
    ),
    # Creative Commons about itself.
    _span(
        r"creative commons corporation \(.creative commons.\) is not a law firm",
        r"wiki\.creativecommons\.org/considerations_for_licensees",
    ),
    _span(r"creative commons is not a party to its public", r"contacted at creativecommons\.org\."),
)


@dataclass(frozen=True)
class Fingerprint:
    """The words of a text, and how often each sequence of three of them comes."""

    words: tuple[str, ...]
    shingles: Counter[tuple[str, ...]]

    @classmethod
    def of(cls, text: str) -> Fingerprint:
        """The fingerprint of a text."""
        found = words(text)
        ends = range(len(found) - _SHINGLE_WORDS + 1)
        return cls(found, Counter(found[start : start + _SHINGLE_WORDS] for start in ends))

    def shared(self, other: Fingerprint) -> int:
        """How many sequences both have."""
        return (self.shingles & other.shingles).total()

    @property
    def size(self) -> int:
        """How many sequences it has."""
        return max(0, len(self.words) - _SHINGLE_WORDS + 1)


def words(text: str) -> tuple[str, ...]:
    """The words that count, in order."""
    plain = unicodedata.normalize("NFKC", text).replace("’", "'").replace("‘", "'")
    plain = _without_copyright_lines(_ESCAPE.sub("", _LINK.sub(r"\1", plain)))
    for pattern in (*_NO_TERMS, _CLAUSE_MARKER, _ADDRESS):
        plain = pattern.sub(" ", plain)
    return tuple(_WORD.findall(plain.lower()))


def _without_copyright_lines(text: str) -> str:
    """The text without lines of copyright that begin a paragraph; inside one they are terms."""
    kept: list[str] = []
    begins = True
    for line in text.splitlines():
        if begins and _COPYRIGHT_LINE.fullmatch(line):
            continue
        kept.append(line)
        begins = not line.strip()
    return "\n".join(kept)


def differences(licence: Sequence[str], text: Sequence[str]) -> list[tuple[str, str]]:
    """Where the words of a text differ from those of a licence: what it lacks, what it has."""
    if licence == text:  # the usual case, and the slowest for the matcher
        return []
    matcher = SequenceMatcher(None, licence, text, autojunk=False)
    return [
        (" ".join(licence[start:end]), " ".join(text[text_start:text_end]))
        for tag, start, end, text_start, text_end in matcher.get_opcodes()
        if tag != "equal"
    ]
