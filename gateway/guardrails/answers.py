"""Answers as their callers may have them, and answers that are only looked at afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from core.detection.examination import Passage
from gateway.answer import Answer
from gateway.guardrails import texts

END = b"\n\n"
DATA = b"data:"
# Of a stream that is only reported on, what follows is not looked at.
_MOST_RECORDED_BYTES = 8 * 1024 * 1024


class Wrapped(Answer):
    """An answer that stands for another."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Answer) -> None:
        for name in Answer.__slots__:
            setattr(self, name, getattr(inner, name))
        self._inner = inner

    @property
    def content_type(self) -> str:
        """See `Answer`."""
        return self._inner.content_type


class Recorded(Wrapped):
    """A stream that is passed on as it comes; `recorded` is what it was."""

    __slots__ = ("_room_bytes", "recorded")

    def __init__(self, inner: Answer) -> None:
        super().__init__(inner)
        self.recorded: list[bytes] = []
        self._room_bytes = _MOST_RECORDED_BYTES
        self._keep(inner.first)

    async def next(self) -> bytes:
        """See `Answer`."""
        piece = await self._inner.next()
        self._keep(piece)
        return piece

    async def hand_on(
        self, write: Callable[[bytes], None], _write_chunk: Callable[[bytes], None] | None
    ) -> None:
        """See `Answer`."""

        def keep_and_write(piece: bytes) -> None:
            self._keep(piece)
            write(piece)

        await self._inner.hand_on(keep_and_write, None)

    def _keep(self, piece: bytes) -> None:
        if self._room_bytes > 0:
            self._room_bytes -= len(piece)
            self.recorded.append(piece)


def read_back(pieces: Sequence[bytes]) -> list[Passage]:
    """The texts that a stream came to. Raises as `document_of`."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for event in b"".join(pieces).split(END):
        for number, choice in choices(document_of(event)):
            for place, holder, key in texts.in_pieces(choice):
                found.setdefault((number, *place), []).append(holder[key])
    return [
        Passage("".join(parts), "assistant", is_answer(place[1:])) for place, parts in found.items()
    ]


def is_answer(place: tuple[Any, ...]) -> bool:
    """Whether the text at this place of a choice is what the answer says."""
    return place in (("delta", "content"), ("text",))


def document_of(event: bytes) -> dict[str, Any] | None:
    """The JSON object of one event; None when it is a comment, or the end.

    Raises msgspec.DecodeError: it holds something else.
    """
    start = 0 if event.startswith(DATA) else event.find(b"\n" + DATA) + 1
    if not event.startswith(DATA, start):
        return None
    payload = event[start + len(DATA) :].strip()
    if payload in (b"", b"[DONE]"):
        return None
    return msgspec.json.decode(payload, type=dict[str, Any])


def choices(document: dict[str, Any] | None) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The choices of an event with their numbers."""
    found = document.get("choices") if document is not None else None
    for place, choice in enumerate(found if isinstance(found, list) else ()):
        if isinstance(choice, dict):
            index = choice.get("index")
            yield index if isinstance(index, int) else place, choice
