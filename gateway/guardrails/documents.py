"""Reads the JSON of requests and answers for rules, also when there is much of it.

On the event loop 25 MB of messages take half a second, and 3 MB of small arrays two; and to decode
is one call that holds up other threads, too. So a long document is decoded in parts, in a thread,
and one that has too many of them is not read at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

from gateway.guardrails import texts
from gateway.guardrails.texts import Placed

LONG_BYTES = 64 * 1024
_MOST_PARTS = 500_000  # objects and arrays
# Each level of parts is looked through once more.
_DEEPEST = 8

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode

Read = Callable[[dict[str, Any]], list[Placed]]


class TooManyParts(Exception):
    """A document cannot be read without holding everybody up."""

    def __init__(self) -> None:
        super().__init__(f"it has over {_MOST_PARTS:,} objects and arrays")


async def read(raw: bytes, find: Read = texts.of_request) -> tuple[dict[str, Any], list[Placed]]:
    """A document, and the texts that `find` sees in it.

    Raises msgspec.DecodeError, UnicodeDecodeError, RecursionError or TooManyParts.
    """
    if len(raw) > LONG_BYTES:
        return await asyncio.to_thread(_read_long, raw, find)
    document = msgspec.json.decode(raw, type=dict[str, Any])
    return document, find(document)


async def written(document: dict[str, Any], about_bytes: int) -> bytes:
    """It as JSON again."""
    if about_bytes > LONG_BYTES:
        return await asyncio.to_thread(msgspec.json.encode, document)
    return msgspec.json.encode(document)


def _read_long(raw: bytes, find: Read) -> tuple[dict[str, Any], list[Placed]]:
    if raw.count(b"{") + raw.count(b"[") > _MOST_PARTS:
        raise TooManyParts
    document = {name: _in_parts(part, 1) for name, part in _decode_object(raw).items()}
    return document, find(document)


def _in_parts(raw: msgspec.Raw, depth: int) -> Any:
    size_bytes = len(memoryview(raw))
    if size_bytes > LONG_BYTES and depth < _DEEPEST:
        match bytes(memoryview(raw)[:1]):
            case b"{":
                return {name: _in_parts(it, depth + 1) for name, it in _decode_object(raw).items()}
            case b"[":
                return [_in_parts(it, depth + 1) for it in _decode_array(raw)]
    return msgspec.json.decode(raw)
