"""Finds forms in texts with RE2, in a whole text or in one that comes piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.detection.beginnings import Unreadable, beginning_of

# A match that is longer than this is cut there: so much of a stream is held back at most.
LONGEST_MATCH = 16_384
# What is held back for a pattern whose beginnings cannot be told.
_BLIND_TAIL = 256
_MAX_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """What was found: from `start` to `end` (exclusive), in characters, and what it is.

    `begin` is where what it was known by begins, such as the name of a password.
    """

    start: int
    end: int
    entity: str
    begin: int = field(default=-1, compare=False)


@dataclass(frozen=True, slots=True)
class Form:
    """What something looks like.

    Attributes:
        entity: What it is.
        pattern: In RE2's syntax. A group named `value` is the part that counts, else all of it.
        accept: Looks closer: given the text and where the value begins and ends, it gives the end
            of what counts, or 0 when nothing does. It may look one character around that.
        tail: A pattern of which every beginning of a match is one; "": it is made of `pattern`,
            which takes more memory than is worth it where there are many alike.
    """

    entity: str
    pattern: str
    accept: Callable[[str, int, int], int] | None = None
    tail: str = ""


class Finder(Protocol):
    """Finds things in a text, and tells what of it may be the beginning of one."""

    def find(self, text: str, start: int = 0) -> list[Found]:
        """What begins at `start` or later, in order, without overlap."""

    def tail(self, text: str, start: int = 0) -> int:
        """Where the longest end of the text starts in which something may have begun."""


class FormFinder:
    """Finds forms.

    Args:
        forms: What to find.
        ignore_case: Whether letters match in either case.

    Raises ValueError: a pattern is none in RE2's syntax, or all together are too large.
    """

    def __init__(self, forms: Sequence[Form], *, ignore_case: bool = False) -> None:
        self._forms = [(form, _compiled(form.pattern, ignore_case=ignore_case)) for form in forms]
        every = "|".join(f"(?:{_ungrouped(form.pattern)})" for form in forms)
        self._any = _compiled(every, ignore_case=ignore_case)
        self._tail = _tail(forms, ignore_case=ignore_case)

    def find(self, text: str, start: int = 0) -> list[Found]:
        """See `Finder`."""
        places = _Places(text)
        if self._any.search(places.encoded, places.in_bytes(start)) is None:
            return []
        return united(
            each for form, compiled in self._forms for each in _each(form, compiled, places, start)
        )

    def tail(self, text: str, start: int = 0) -> int:
        """See `Finder`."""
        if self._tail is None:
            return max(start, len(text) - _BLIND_TAIL)
        found = self._tail.search(text, start)
        return len(text) if found is None else int(found.start())


def united(found: Iterable[Found]) -> list[Found]:
    """In order; of what overlaps, one from the first start to the last end."""
    merged: list[Found] = []
    for each in sorted(found, key=lambda one: (one.start, -one.end)):
        if merged and each.start < merged[-1].end:
            last = merged[-1]
            begin = min(last.begin, each.begin)
            merged[-1] = Found(last.start, max(last.end, each.end), last.entity, begin)
        else:
            merged.append(each)
    return merged


class Scan:
    """One text that comes in pieces.

    What it finds does not depend on where the text was cut, as long as no match is longer than
    `LONGEST_MATCH`.
    """

    __slots__ = ("_behind", "_finder", "_text", "final")

    def __init__(self, finder: Finder) -> None:
        self.final = 0
        self._finder = finder
        self._text = ""
        self._behind = 0  # how much of `_text` is final: a character, for what must stand alone

    def feed(self, piece: str, *, last: bool = False) -> list[Found]:
        """What is certain now, in characters from the beginning; `final` is up to where.

        Args:
            piece: What follows.
            last: Nothing comes after it for now: what was begun counts as it is.
        """
        text, behind = self._text + piece, self._behind
        cut = len(text)
        if not last and cut - behind <= LONGEST_MATCH:
            cut = self._finder.tail(text, behind)
        found = self._finder.find(text, behind) if cut > behind else []
        for each in reversed(found):
            if each.begin < cut < each.end:
                cut = each.begin
        offset = self.final - behind
        self.final = offset + cut
        self._text, self._behind = text[max(cut - 1, 0) :], min(cut, 1)
        return [
            Found(offset + each.start, offset + each.end, each.entity)
            for each in found
            if each.end <= cut
        ]


def pieces_kept(text: str, found: Sequence[Found]) -> Iterator[str]:
    """What of a text stands between what was found: one more than there are of those."""
    ends = [0, *(each.end for each in found)]
    starts = [*(each.start for each in found), len(text)]
    return (text[end:start] for end, start in zip(ends, starts, strict=True))


class _Places:
    """A text as RE2 reads it, in UTF-8, and its places there and here.

    It is given bytes since it would encode a text anew for each search.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.encoded = text.encode()
        self._is_ascii = len(self.encoded) == len(text)

    def in_bytes(self, place: int) -> int:
        """A place in the text as one in its bytes."""
        return place if self._is_ascii else len(self.text[:place].encode())

    def in_text(self, place: int) -> int:
        """A place in the bytes as one in the text."""
        return place if self._is_ascii else len(self.encoded[:place].decode())


def _each(form: Form, compiled: Any, places: _Places, start: int) -> Iterator[Found]:
    group = compiled.groupindex.get("value", 0)
    at = places.in_bytes(start)
    while (match := compiled.search(places.encoded, at)) is not None:
        first, end = map(places.in_text, match.span(group))
        if form.accept is not None:
            end = form.accept(places.text, first, end)
        if end > first:
            yield Found(first, end, form.entity, places.in_text(match.start()))
            at = max(places.in_bytes(end), at + 1)
        else:
            # It may have hidden another one.
            at = match.start() + 1


def _compiled(pattern: str, *, ignore_case: bool) -> Any:
    # Loaded only where something is looked for.
    import re2

    options = re2.Options()
    options.max_mem = _MAX_BYTES
    options.log_errors = False
    options.case_sensitive = not ignore_case
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0]
        raise ValueError(said.decode() if isinstance(said, bytes) else str(said)) from None


def _tail(forms: Sequence[Form], *, ignore_case: bool) -> Any:
    try:
        tails = dict.fromkeys(form.tail or beginning_of(form.pattern) for form in forms)
        every = "|".join(f"(?:{tail})" for tail in tails)
        return _compiled(rf"(?:{every})\z", ignore_case=ignore_case)
    except (Unreadable, ValueError):
        return None


def _ungrouped(pattern: str) -> str:
    return pattern.replace("(?P<value>", "(?:")
