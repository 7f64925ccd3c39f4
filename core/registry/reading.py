"""One read of a file, shared by everything that wants its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

CHUNK_BYTES = 1 << 20


class Sink(Protocol):
    """Takes the bytes of a file, chunk by chunk, in order."""

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk. What it raises stops the read."""


class Sha256:
    """The SHA-256 of all that was fed."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk."""
        self._digest.update(chunk)

    def hexdigest(self) -> str:
        """The hash so far, 64 hexadecimal digits."""
        return self._digest.hexdigest()


def read_once(
    path: Path, sinks: Sequence[Sink], on_bytes: Callable[[int], None] = lambda _count: None
) -> int:
    """Read `path` once, from its beginning, and give every chunk to each of `sinks`.

    Args:
        path: A regular file.
        sinks: What takes the chunks, each of at most `CHUNK_BYTES`.
        on_bytes: Called with the number of bytes of each chunk that is done; may raise to stop.

    Returns:
        How many bytes there were.

    Raises:
        OSError: The file cannot be read.
    """
    done_bytes = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            for sink in sinks:
                sink.feed(chunk)
            done_bytes += len(chunk)
            on_bytes(len(chunk))
    return done_bytes
