"""AWS's binary event stream: messages of headers and a payload, each with two checksums.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html and
https://smithy.io/2.0/aws/amazon-eventstream.html (November 2026).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.upstream import Broken

_PRELUDE = struct.Struct(">III")
_CRC_BYTES = 4
_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_STRING = 7
# Bytes of a header's value by its type; types 6 and 7 bear their length.
_SIZES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}


@dataclass(frozen=True, slots=True)
class Message:
    """One message; of its headers those that are texts."""

    headers: dict[str, str]
    payload: bytes


class Reader:
    """Feed it reads; it gives the messages that are whole."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, read: bytes) -> Iterator[Message]:
        """The messages that are whole now. Raises Broken: a checksum or a length is wrong."""
        self._pending += read
        while len(self._pending) >= _PRELUDE.size:
            total, headers_bytes, crc = _PRELUDE.unpack_from(self._pending)
            if zlib.crc32(self._pending[:8]) != crc:
                raise Broken("a message's head of the event stream is damaged")
            least = _PRELUDE.size + headers_bytes + _CRC_BYTES
            if not least <= total <= _MAX_MESSAGE_BYTES:
                raise Broken("a message of the event stream has no possible length")
            if len(self._pending) < total:
                return
            message, self._pending = self._pending[:total], self._pending[total:]
            yield _message(message, headers_bytes)


def _message(message: bytes, headers_bytes: int) -> Message:
    body, crc = message[:-_CRC_BYTES], message[-_CRC_BYTES:]
    if zlib.crc32(body) != int.from_bytes(crc, "big"):
        raise Broken("a message of the event stream is damaged")
    end = _PRELUDE.size + headers_bytes
    return Message(_headers(body[_PRELUDE.size : end]), body[end:])


def _headers(raw: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(raw):
            name = raw[at + 1 : at + 1 + raw[at]].decode()
            at += 1 + raw[at]
            kind = raw[at]
            at += 1
            size = _SIZES.get(kind, 0)
            if kind in (6, _STRING):
                size = int.from_bytes(raw[at : at + 2], "big")
                at += 2
            if kind == _STRING:
                found[name] = raw[at : at + size].decode()
            at += size
    except (IndexError, UnicodeDecodeError):
        raise Broken("a header of the event stream cannot be read") from None
    return found
