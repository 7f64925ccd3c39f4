"""From a pattern, the pattern of every beginning of what it matches.

A stream shows a text piece by piece. What of it may be shown is what no match can still begin in:
the tail of the text that is the beginning of some match is held back, and nothing else.

    beginning_of("ab+c") == "(?:a(?:b*(?:c)?)?)?"    # about: see `_Sequence`

The grammar is that part of RE2's syntax that has no named or captured groups in it that matter;
groups are taken apart, everything smaller (characters, classes, escapes, assertions) is kept as it
is written. What it makes may match too much, never too little: then more is held back.
"""

from __future__ import annotations

from dataclasses import dataclass

_ASSERTIONS = frozenset({"^", "$", r"\b", r"\B", r"\A", r"\z"})


class Unreadable(ValueError):
    """The pattern is in a part of the syntax that is not read here."""


@dataclass(frozen=True, slots=True)
class _Item:
    """One part of a sequence: its text, the text of its beginnings, and how often it may come.

    `most` None is without end. An assertion comes once and takes no room.
    """

    whole: str
    beginning: str = ""
    least: int = 1
    most: int | None = 1

    @property
    def repeated(self) -> str:
        return self.whole + _counted(self.least, self.most)

    @property
    def not_all(self) -> str:
        """What may have come of it when it is not finished: "" for a single character."""
        if self.most == 1:
            return self.beginning
        before = f"{self.whole}{_counted(0, None if self.most is None else self.most - 1)}"
        return before + self.beginning


def beginning_of(pattern: str) -> str:
    """A pattern of all beginnings, the empty one and the whole match among them.

    Raises Unreadable.
    """
    reader = _Reader(pattern)
    _, beginning = reader.alternatives()
    if not reader.at_end:
        raise Unreadable(f"an unmatched ) at {reader.place}")
    return beginning


def _counted(least: int, most: int | None) -> str:
    if (least, most) == (1, 1):
        return ""
    return f"{{{least},}}" if most is None else f"{{{least},{most}}}"


def _of_sequence(items: list[_Item]) -> str:
    made = ""
    for item in reversed(items):
        rest = item.repeated + made
        made = f"(?:{rest}|{item.not_all})?" if item.not_all else f"(?:{rest})?"
    return made


class _Reader:
    """Reads a pattern once, from left to right."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self.place = 0

    @property
    def at_end(self) -> bool:
        return self.place >= len(self._pattern)

    def alternatives(self) -> tuple[str, str]:
        """Up to a closing bracket or the end: the whole, and its beginnings."""
        wholes, beginnings = [], []
        while True:
            items = self._sequence()
            wholes.append("".join(item.repeated for item in items))
            beginnings.append(_of_sequence(items))
            if not self._take("|"):
                break
        return "|".join(wholes), "|".join(each for each in beginnings if each)

    def _sequence(self) -> list[_Item]:
        items: list[_Item] = []
        while not self.at_end and self._pattern[self.place] not in "|)":
            whole, beginning = self._atom()
            least, most = self._count(whole)
            items.append(_Item(whole, beginning, least, most))
        return items

    def _atom(self) -> tuple[str, str]:
        if self._pattern[self.place] == "(":
            return self._group()
        if self._pattern[self.place] == "[":
            return self._class(), ""
        if self._pattern[self.place] == "\\":
            return self._escape(), ""
        if self._pattern[self.place] in "*+?{":
            raise Unreadable(f"nothing to repeat at {self.place}")
        self.place += 1
        return self._pattern[self.place - 1], ""

    def _group(self) -> tuple[str, str]:
        start = self.place
        self.place += 1
        flags = ""
        if self._take("?"):
            end = next(
                (at for at in range(self.place, len(self._pattern)) if self._pattern[at] in ":)>"),
                -1,
            )
            if end < 0 or self._pattern[end] == ")":
                raise Unreadable(f"flags without a group at {start}")
            head, self.place = self._pattern[self.place : end], end + 1
            flags = "" if self._pattern[end] == ">" else head
        whole, beginning = self.alternatives()
        if not self._take(")"):
            raise Unreadable(f"the group at {start} is not closed")
        beginning = f"(?{flags}:{beginning})" if beginning else ""
        return f"(?{flags}:{whole})", beginning

    def _class(self) -> str:
        start = self.place
        self.place += 1
        self._take("^")
        self._take("]")  # first of all it is a character
        while not self.at_end and self._pattern[self.place] != "]":
            if self._pattern.startswith("[:", self.place):
                self.place = self._pattern.find(":]", self.place) + 2
                if self.place < 2:
                    break
            else:
                self.place += 2 if self._pattern[self.place] == "\\" else 1
        if not self._take("]"):
            raise Unreadable(f"the class at {start} is not closed")
        return self._pattern[start : self.place]

    def _escape(self) -> str:
        start = self.place
        kind = self._pattern[start + 1 : start + 2]
        if not kind or kind in "QEC":
            raise Unreadable(f"an escape that is not read here at {start}")
        self.place += 2
        if kind in "pP":
            self._braced() if self._pattern[self.place : self.place + 1] == "{" else self._skip(1)
        elif kind == "x":
            self._braced() if self._pattern[self.place : self.place + 1] == "{" else self._skip(2)
        elif kind in "01234567":
            while self._pattern[self.place : self.place + 1] in tuple("01234567"):
                self.place += 1
        return self._pattern[start : self.place]

    def _braced(self) -> None:
        self.place = self._pattern.find("}", self.place) + 1
        if not self.place:
            raise Unreadable("a brace is not closed")

    def _skip(self, count: int) -> None:
        self.place += count

    def _count(self, whole: str) -> tuple[int, int | None]:
        least, most = self._quantifier()
        if (least, most) == (1, 1):
            return 1, 1
        self._take("?")  # lazy or not, it matches the same
        if whole in _ASSERTIONS:
            raise Unreadable(f"an assertion is repeated at {self.place}")
        return least, most

    def _quantifier(self) -> tuple[int, int | None]:
        for sign, counts in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(sign):
                return counts
        end = self._pattern.find("}", self.place)
        if self._pattern[self.place : self.place + 1] != "{" or end < 0:
            return 1, 1
        least, comma, most = self._pattern[self.place + 1 : end].partition(",")
        if not least.isdigit() or (most and not most.isdigit()):
            raise Unreadable(f"a brace at {self.place}")
        self.place = end + 1
        if not comma:
            return int(least), int(least)
        return int(least), int(most) if most else None

    def _take(self, sign: str) -> bool:
        if self._pattern.startswith(sign, self.place):
            self.place += len(sign)
            return True
        return False
