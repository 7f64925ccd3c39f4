"""What a caller uploads: held in memory up to a bound, beyond it in a file without a name.

A route is known when the field `model` has come, which many clients send behind the file; and a
replica that fails is followed by another one, which needs the whole upload again. So an upload is
taken in before any of it is sent on. The file goes with the process, however that ends.
"""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from gateway.errors import GatewayError

FOLDER_NAME = "uploads"
IN_MEMORY_BYTES = 256 * 1024
_PIECE_BYTES = 256 * 1024
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Spool:
    """Bytes that are written once and read as often as needed.

    Args:
        folder: Where the file is, when there is one.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.size_bytes = 0
        # Closed by `close`: it lives as long as the request.
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES, dir=str(folder))  # noqa: SIM115
        self._unwritten: list[bytes] = []
        self._unwritten_bytes = 0

    async def write(self, piece: bytes) -> None:
        """Add to the end. Raises GatewayError: the disk is full."""
        self.size_bytes += len(piece)
        self._unwritten.append(piece)
        self._unwritten_bytes += len(piece)
        if self._unwritten_bytes >= _PIECE_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write what waits. Raises GatewayError: the disk is full."""
        pieces, self._unwritten, self._unwritten_bytes = b"".join(self._unwritten), [], 0
        try:
            if self.size_bytes <= IN_MEMORY_BYTES:
                self._file.write(pieces)
            else:
                await asyncio.to_thread(self._file.write, pieces)
        except OSError as error:
            raise no_room(error) from error

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it, from the beginning."""
        self._file.seek(0)
        while piece := await asyncio.to_thread(self._file.read, _PIECE_BYTES):
            yield piece

    def close(self) -> None:
        """Free memory and disk."""
        self._file.close()


def no_room(error: OSError) -> GatewayError:
    """What a caller is told whose upload cannot be kept, or whose file cannot be read."""
    if error.errno not in _FULL:
        return GatewayError("internal", f"The gateway's disk fails ({error.strerror}).")
    return GatewayError(
        "internal",
        f"The gateway has no room for this upload now ({error.strerror}). Try again later.",
        status=507,
        code="storage_full",
    )
