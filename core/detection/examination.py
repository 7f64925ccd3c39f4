"""Looks at the texts of one side of a request with one check of a guardrail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from core.contracts.guardrails import (
    Check,
    Classifier,
    DenyList,
    Injection,
    JsonSchema,
    MaxLength,
    Pii,
    Secrets,
)
from core.detection import injection, personal, secrets, words
from core.detection.finding import Finder, Found, Scan
from core.detection.schema import SchemaReader, TimeUp

# So much is looked at in one step: well under a millisecond, but for hostile texts.
SLICE = 8_192
_BYTES_PER_TOKEN = 4
# Who says what could be meant as an order: the rest is the developer's or the model's own.
_MAY_INJECT = frozenset({"user", "tool", "function", ""})


@dataclass(slots=True)
class Passage:
    """One text of a request or of an answer.

    Attributes:
        text: The text.
        role: Who says it: system, user, assistant, tool, or "" where nobody is named.
        is_answer: What an answer says to its caller, beside calling tools.
    """

    text: str
    role: str = ""
    is_answer: bool = False


@dataclass(slots=True)
class Examination:
    """What a check says.

    Attributes:
        found: How often it found what; of a score, the score's name at its place.
        spans: Where, by the passage's position; empty for checks that know no place.
        why: What is wrong, in words without any of the text; "" when nothing is.
    """

    found: Counter[str] = field(default_factory=Counter)
    spans: dict[int, list[Found]] = field(default_factory=dict)
    why: str = ""


Steps = Generator[None, None, Examination]


class Examiner(Protocol):
    """A check that runs here, ready.

    `finder` is there when it finds things at places, so that they can be masked. What is `heavy`
    takes its time in one step, so that it belongs into a thread.
    """

    finder: Finder | None
    heavy: bool

    def steps(self, passages: Sequence[Passage], within_s: float) -> Steps:
        """Look at texts, a step at a time; what it says is returned.

        Raises TimeUp: one step alone would take longer than `within_s`.
        """


def examiner(check: Check) -> Examiner | None:
    """What runs a check; None for a classifier, which is asked elsewhere.

    Raises ValueError: a pattern or a schema cannot be used; says why.
    """
    match check:
        case Pii():
            return _Places(personal.finder(check.entities))
        case Secrets():
            return _Places(secrets.finder(check.entities))
        case DenyList():
            return _Places(words.finder(check.words, check.patterns))
        case Injection():
            return _Signs(check.threshold)
        case MaxLength():
            return _Length(check)
        case JsonSchema():
            return _Schema(check.schema)
        case Classifier():
            return None


def told(found: Counter[str]) -> str:
    """What was found in words, such as `2 × email, card`."""
    return ", ".join(f"{n} × {what}" if n > 1 else what for what, n in found.most_common())


class _Places:
    heavy = False

    def __init__(self, finder: Finder) -> None:
        self.finder: Finder | None = finder
        self._finder = finder

    def steps(self, passages: Sequence[Passage], within_s: float) -> Steps:
        seen = Examination()
        for place, passage in enumerate(passages):
            scan, spans = Scan(self._finder), []
            for start in range(0, len(passage.text), SLICE):
                stop = start + SLICE
                spans += scan.feed(passage.text[start:stop], last=stop >= len(passage.text))
                yield
            if spans:
                seen.spans[place] = spans
                seen.found.update(each.entity for each in spans)
        seen.why = f"it holds {told(seen.found)}" if seen.found else ""
        return seen


class _Signs:
    finder: Finder | None = None
    heavy = False

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold

    def steps(self, passages: Sequence[Passage], within_s: float) -> Steps:
        reader = injection.SignReader()
        for passage in passages:
            if passage.role not in _MAY_INJECT:
                continue
            reader.end_of_text()
            for start in range(0, len(passage.text), SLICE):
                reader.feed(passage.text[start : start + SLICE])
                yield
        signs = reader.signs
        if signs.score < self._threshold:
            return Examination()
        why = (
            f"it looks like prompt injection (score {signs.score:.2f}: {', '.join(signs.weights)})"
        )
        return Examination(Counter(signs.weights.keys()), why=why)


class _Length:
    finder: Finder | None = None
    heavy = False

    def __init__(self, check: MaxLength) -> None:
        self._check = check

    def steps(self, passages: Sequence[Passage], within_s: float) -> Steps:
        yield
        return length_seen(self._check, sum(length_of(self._check, p.text) for p in passages))


def length_of(check: MaxLength, text: str) -> int:
    """The length of a text in what the check counts, but tokens in bytes."""
    return len(text) if check.unit == "characters" else len(text.encode("utf-8", "surrogatepass"))


def length_seen(check: MaxLength, length: int) -> Examination:
    """What the check says of a length."""
    if check.unit == "tokens":
        length = -(-length // _BYTES_PER_TOKEN)
    if length <= check.most:
        return Examination()
    about = "about " if check.unit == "tokens" else ""
    why = f"it has {about}{length:,} {check.unit}, {check.most:,} are allowed"
    return Examination(Counter({check.unit: 1}), why=why)


class _Schema:
    finder: Finder | None = None
    heavy = True

    def __init__(self, schema: str) -> None:
        self._reader = SchemaReader(schema)

    def steps(self, passages: Sequence[Passage], within_s: float) -> Steps:
        yield
        for passage in passages:
            problem = self._reader.problem(passage.text, within_s) if passage.is_answer else ""
            if problem:
                return Examination(Counter({"schema": 1}), why=f"as JSON, {problem}")
        return Examination()


__all__ = [
    "Examination", "Examiner", "Passage", "Steps", "TimeUp", "examiner", "length_of",
    "length_seen", "told",
]  # fmt: skip
