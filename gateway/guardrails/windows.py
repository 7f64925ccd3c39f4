"""One text of an answer that comes in pieces: what of it may go on, and how it reads then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.detection.finding import Found, Scan, united
from core.detection.masking import JsonMask, as_plain_json, mark, masked, masked_json
from gateway.guardrails.rules import Rail


class Window:
    """The text at one place of one choice.

    Attributes:
        is_answer: It is what the answer says, beside calling tools.
        is_call: It is the JSON of a tool's arguments: looked at when it is whole, since nobody can
            use a part of it, and since what is written in escapes is read then.
        final: Up to where it may go on.
        length: How much has come.
    """

    __slots__ = (
        "_begun", "_call", "_json", "_marks", "_pending", "_raw", "_raw_from", "_scans", "final",
        "is_answer", "is_call", "length",
    )  # fmt: skip

    def __init__(self, rails: Sequence[Rail], *, is_answer: bool, is_call: bool) -> None:
        self.is_answer, self.is_call = is_answer, is_call
        self.final = self.length = 0
        self._scans = {rail: _scan(rail) for rail in rails}
        self._pending: list[Found] = []
        self._raw, self._raw_from = "", 0  # what is not final
        # From where to where something else is written.
        self._marks: list[tuple[int, int, str]] = []
        self._json: JsonMask | None = None
        self._begun = False
        self._call: str | None = None

    def add(self, piece: str) -> None:
        """More has come; rules are still to look at it."""
        self.length += len(piece)
        self._raw += piece
        if not self._begun and piece.strip():
            self._begun = True
            self._json = JsonMask() if piece.lstrip()[0] in "{[" else None

    def look(self, rail: Rail, piece: str, *, last: bool) -> list[Found]:
        """Let a rule look at what has come; what it is sure of.

        Args:
            rail: The rule.
            piece: What was added, or of a call all of it.
            last: Nothing comes after it for now.
        """
        scan = self._scans.get(rail)
        if scan is None:
            return []
        found = scan.feed(piece, last=last)
        self._pending += found
        return found

    def forget(self, rail: Rail) -> None:
        """A rule looks at it no more."""
        self._scans.pop(rail, None)

    def whole_call(self) -> str:
        """All of a call's arguments, without escapes that something could hide in."""
        plain = as_plain_json(self._raw)
        self._call = self._raw if plain is None else plain
        self._scans = {rail: _scan(rail) for rail in self._scans}
        return self._call

    def settle_call(self) -> None:
        """All rules have looked at all of a call."""
        if self._pending and self._call is not None:
            found = united(self._pending)
            is_json = self._call[:1] in ("{", "[")
            shown = masked_json(self._call, found) if is_json else masked(self._call, found)
            self._marks.append((self._raw_from, self.length, shown))
        self._pending, self._raw, self._raw_from = [], "", self.length
        self.final = self.length

    def advance(self) -> None:
        """All rules have looked at what came: find out up to where it may go on."""
        final = min((scan.final for scan in self._scans.values()), default=self.length)
        found = united(self._pending)
        for each in reversed(found):
            if each.start < final < each.end:
                final = each.start
        if final == self.final:
            return
        self._write([each for each in found if each.end <= final], final)
        self._pending = [each for each in self._pending if each.end > final]
        self.final = final

    def _write(self, found: Sequence[Found], final: int) -> None:
        offset, before = self._raw_from, self._raw_from
        for each in found:
            text = self._raw[each.start - offset : each.end - offset]
            shown = mark(each.entity)
            if self._json is not None:
                self._json.skip(self._raw[before - offset : each.start - offset])
                shown = self._json.replaced(text, each.entity)
            self._marks.append((each.start, each.end, shown))
            before = each.end
        if self._json is not None:
            self._json.skip(self._raw[before - offset : final - offset])
        self._raw, self._raw_from = self._raw[final - offset :], final

    def reading(self, text: str, start: int) -> str:
        """How a part that begins at `start` reads; what is written anew stands where it began."""
        end, place, parts = start + len(text), start, []
        for first, last, shown in self._marks:
            if last <= start or first >= end:
                continue
            if first >= start:
                parts += [text[place - start : first - start], shown]
            place = min(last, end)
        return "".join([*parts, text[place - start :]])


@dataclass(slots=True)
class Part:
    """What one event adds to a window: at `holder[key]`, from `start` to `end` of its text."""

    window: Window
    start: int
    end: int
    choice: dict[str, Any]
    holder: Any
    key: Any

    @property
    def is_final(self) -> bool:
        """Whether it may go on."""
        return self.end <= self.window.final

    def settle(self) -> bool:
        """Write it down as it reads now; whether that is something else than it was."""
        before = self.holder[self.key]
        self.holder[self.key] = self.window.reading(before, self.start)
        return bool(self.holder[self.key] != before)


def _scan(rail: Rail) -> Scan:
    assert rail.examiner is not None
    assert rail.examiner.finder is not None
    return Scan(rail.examiner.finder)
