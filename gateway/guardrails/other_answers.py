"""The texts in answers that are no chat: of JSON, of a transcript's events, or plain.

A transcript says the same two or three times: as `text`, by segments and by words. Only the whole
is looked at, since what is found may go over the ends of parts; where something is masked in it,
its parts are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from core.detection.examination import Passage
from gateway.guardrails import texts
from gateway.guardrails.answers import END, document_of
from gateway.guardrails.documents import LONG_BYTES
from gateway.guardrails.texts import Placed

_JSON, _EVENTS = "application/json", "text/event-stream"
_PARTS = ("segments", "words", "logprobs")
_DELTA, _DONE = "transcript.text.delta", "transcript.text.done"


@dataclass(frozen=True)
class Reading:
    """The texts of an answer, and how to write it with what was masked in them."""

    passages: list[Placed]
    masked: Callable[[], bytes]


def read(content: bytes, content_type: str) -> Reading:
    """Find the texts of a whole answer.

    Raises msgspec.DecodeError, UnicodeDecodeError or RecursionError: it is not what it says.
    """
    kind = content_type.lower()
    if kind.startswith(_JSON):
        document = msgspec.json.decode(content, type=dict[str, Any])
        return Reading(_of_document(document), partial(_masked_document, document))
    if kind.startswith(_EVENTS):
        return _of_events(content)
    holder = [content.decode()]
    return Reading(texts.of_value(holder, 0), lambda: holder[0].encode())


def is_long(content: bytes) -> bool:
    """Whether to read it holds others up."""
    return len(content) > LONG_BYTES


def read_back(content_type: str, pieces: Sequence[bytes]) -> list[Passage]:
    """The texts of an answer that was passed on. Raises as `read`."""
    return list(read(b"".join(pieces), content_type).passages)


def _of_document(document: dict[str, Any]) -> list[Placed]:
    has_whole = isinstance(document.get("text"), str)
    return [
        passage
        for name in document
        if not (has_whole and name in _PARTS)
        for passage in texts.of_value(document, name)
    ]


def _masked_document(document: dict[str, Any]) -> bytes:
    for name in _PARTS:
        document.pop(name, None)
    return msgspec.json.encode(document)


def _of_events(content: bytes) -> Reading:
    documents = [document_of(event) for event in content.replace(b"\r\n", b"\n").split(END)]
    events = [document for document in documents if document is not None]
    deltas = [str(event.get("delta", "")) for event in events if event.get("type") == _DELTA]
    said = {"type": _DELTA, "delta": "".join(deltas)}
    done = [event for event in events if event.get("type") == _DONE]
    whole = [said, *done] if deltas or done else events
    again = [event for event in done if event.get("text") == said["delta"]]

    def masked() -> bytes:
        for event in whole:
            event.pop("logprobs", None)
        for event in again:
            event["text"] = said["delta"]
        return b"".join(b"data: " + msgspec.json.encode(event) + END for event in whole)

    passages = [each for event in whole if event not in again for each in _of_document(event)]
    return Reading(passages, masked)
