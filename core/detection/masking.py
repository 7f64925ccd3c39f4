"""Takes what was found out of a text, and leaves JSON what it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from core.detection.finding import Found

# A whole number, an escape, or one character.
_PART = re.compile(r'"|-?[0-9][0-9.eE+-]*|\\u[0-9a-fA-F]{4}|\\.|[^"\\]|\\', re.DOTALL)
_SIGN = re.compile(r'"|\\.?', re.DOTALL)
_NUMBER = re.compile(r"[0-9.eE+-]*")
_LONGEST_JSON = 1_000_000


def mark(entity: str) -> str:
    """What stands in the place of something."""
    return f"[redacted: {entity}]"


def as_plain_json(text: str) -> str | None:
    """A text that is a JSON object or array, without escapes that something could hide in.

    None: it is no such text, or too large to be looked at as one.
    """
    if len(text) > _LONGEST_JSON or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return msgspec.json.encode(msgspec.json.decode(text)).decode()
    except (msgspec.DecodeError, UnicodeEncodeError, UnicodeDecodeError, RecursionError):
        return None


def masked(text: str, found: Sequence[Found]) -> str:
    """A plain text with a mark in the place of each thing that was found."""
    parts, before = [], 0
    for each in found:
        parts += [text[before : each.start], mark(each.entity)]
        before = each.end
    return "".join([*parts, text[before:]])


class JsonMask:
    """Masks a JSON text that may come in pieces; what comes out is JSON where what came in was.

    Inside of its strings the mark stands like other text; a number becomes a string with the mark.
    """

    def __init__(self) -> None:
        self.in_string = False
        self._escaped = False

    def skip(self, text: str) -> None:
        """Go over text that stays as it is."""
        if self._escaped and text:
            text, self._escaped = text[1:], False
        for sign in _SIGN.findall(text):
            if sign == '"':
                self.in_string = not self.in_string
            self._escaped = sign == "\\"

    def replaced(self, text: str, entity: str) -> str:
        """What stands in the place of `text`, all of which was found; half an escape stays."""
        parts: list[str] = []
        if self._escaped and text:
            size = 5 if text[0] == "u" else 1
            parts.append(text[:size])
            text, self._escaped = text[size:], False
        is_marked = False
        for part in _PART.findall(text):
            if part == '"':
                self.in_string = not self.in_string
                is_marked = False
                parts.append(part)
            elif part == "\\":
                self._escaped = True
                parts.append(part)
            elif self.in_string:
                parts += [] if is_marked else [mark(entity)]
                is_marked = True
            else:
                is_number = part[0].isdigit() or len(part) > 1
                parts.append(f'"{mark(entity)}"' if is_number else part)
        return "".join(parts)


def masked_json(text: str, found: Iterable[Found]) -> str:
    """A whole JSON text with marks in the place of what was found."""
    mask, parts, before = JsonMask(), [], 0
    for each in found:
        mask.skip(text[before : each.start])
        end = each.end
        if not mask.in_string:
            # All of a number, or what is left of it is none.
            end = _NUMBER.match(text, end).end()  # type: ignore[union-attr]  # matches nothing, too
        parts += [text[before : each.start], mask.replaced(text[each.start : end], each.entity)]
        before = end
    return "".join([*parts, text[before:]])
