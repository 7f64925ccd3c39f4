"""Words, phrases and patterns that somebody does not want."""

from __future__ import annotations

from collections.abc import Sequence

from core.detection.finding import Form, FormFinder

_WORD = "word"
_PATTERN = "pattern"


def finder(words: Sequence[str], patterns: Sequence[str]) -> FormFinder:
    """Finds whole words and phrases, and patterns in RE2's syntax; both in any case.

    Raises ValueError: a pattern is none, or all together are too large.
    """
    forms = [Form(_WORD, _whole_word(each)) for each in words]
    return FormFinder([*forms, *(Form(_PATTERN, each) for each in patterns)], ignore_case=True)


def _whole_word(word: str) -> str:
    import re2

    escaped = r"\s+".join(re2.escape(part) for part in word.split())
    # RE2 knows the boundaries of ASCII words only.
    before = r"\b" if _is_ascii_word(word[0]) else ""
    behind = r"\b" if _is_ascii_word(word[-1]) else ""
    return f"{before}{escaped}{behind}"


def _is_ascii_word(letter: str) -> bool:
    return letter.isascii() and (letter.isalnum() or letter == "_")
