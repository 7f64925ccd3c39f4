"""What a classifier is asked and what it answers, in the two forms that are understood."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from core.contracts.guardrails import Classifier

# What is longer is not sent: a classifier would cut it or refuse it.
LONGEST_TEXT = 1_000_000
LONGEST_ANSWER_BYTES = 1_000_000
# Of what a classifier says, only names go on into messages and facts: it may repeat the text.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_/ -]{0,39}").fullmatch
_MOST_NAMES = 8


class _Verdict(msgspec.Struct):
    flagged: bool
    categories: Any = None


class _Moderations(msgspec.Struct):
    results: list[_Verdict]


def question(check: Classifier, texts: Sequence[str]) -> bytes:
    """The body of the request."""
    if check.form == "text":
        return msgspec.json.encode({"text": "\n\n".join(texts)})
    model = {"model": check.model} if check.model else {}
    return msgspec.json.encode({"input": list(texts), **model})


def verdict(check: Classifier, answer: bytes, asked: int) -> tuple[bool, Counter[str]]:
    """Whether a text is flagged, and by which categories.

    Args:
        check: How it was asked.
        answer: What it said.
        asked: About how many texts.

    Raises ValueError: it is no answer, or says nothing of some.
    """
    try:
        if check.form == "text":
            verdicts = [msgspec.json.decode(answer, type=_Verdict)]
        else:
            verdicts = msgspec.json.decode(answer, type=_Moderations).results
            if len(verdicts) != asked:
                raise ValueError(f"its answer holds {len(verdicts)} results for {asked} texts")
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ValueError("its answer is not of the form that is expected") from None
    flagged = [each for each in verdicts if each.flagged]
    found = Counter(name for each in flagged for name in _names(each.categories))
    return bool(flagged), found or Counter({"flagged": len(flagged)})


def _names(categories: Any) -> list[str]:
    if isinstance(categories, dict):
        categories = [name for name, holds in categories.items() if holds is True]
    if not isinstance(categories, list):
        return []
    return [name for name in categories if isinstance(name, str) and _NAME(name)][:_MOST_NAMES]
