"""A kept answer, and what a store of them must do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from core.contracts.route_table import Cache
from core.kernel import clock


class CacheFailed(Exception):
    """The store cannot be read, in time or at all: the request goes to a replica."""


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A kept answer: what its caller got, before any translation to another dialect.

    `body` is a whole answer, or all events of a stream. `tokens` and `cost_usd` are what it used
    and cost when it was made; None when that was not known.
    """

    created_unix_s: float
    content_type: str
    body: bytes
    tokens: int | None
    cost_usd: float | None

    @property
    def age_s(self) -> float:
        """Since it was made; 0 where the clock was set back since."""
        return max(clock.unix_s() - self.created_unix_s, 0.0)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def packed(entry: Entry) -> bytes:
    """As it is stored."""
    return _encode(entry)


def unpacked(content: bytes) -> Entry:
    """Raises CacheFailed: it is damaged."""
    try:
        return _decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CacheFailed("an answer that was kept is damaged") from None


class AnswerStore(Protocol):
    """Keeps answers of projects. What cannot be kept is dropped and counted in `dropped`."""

    dropped: int

    async def get(self, project_id: str, key: bytes, cache: Cache) -> Entry | None:
        """The answer under a key. Raises CacheFailed."""

    def put(self, project_id: str, key: bytes, cache: Cache, entry: Entry) -> None:
        """Keep an answer soon; waits for nothing."""

    def use(self, caches: Mapping[str, Cache]) -> None:
        """Delete what other settings kept, and what is too old; called about twice a minute."""

    async def close(self) -> None:
        """Write what is waiting, and end."""
