"""Kept answers of several hosts, in their Valkey: each with its time to live.

How much they may take is for the server's own `maxmemory` to say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from core.contracts.route_table import Cache
from core.kernel import clock
from core.kernel.crypto import Secret
from gateway.cache.entries import CacheFailed, Entry, packed, unpacked

if TYPE_CHECKING:
    from valkey.asyncio import Valkey

log = logging.getLogger(__name__)

_PREFIX = "bud:cache"
_CALL_S = 0.25
_CONNECTIONS = 16
_MAX_WAITING_BYTES = 16_000_000
# While the server is away, requests do not wait for it again and again.
_PAUSE_S = 2.0
_SCANNED_AT_ONCE = 1000
_PURGING_S = 600
_LOG_EVERY_S = 60.0


class ValkeyStore:
    """The store, as one worker uses it; the connection is made with the first question.

    Args:
        url: As `BUD_VALKEY_URL`.
    """

    def __init__(self, url: Secret) -> None:
        self.dropped = 0
        self._url = url
        self._made: Valkey | None = None
        self._waiting_bytes = 0
        self._away_until_s = 0.0
        self._logged_s = float("-inf")
        self._caches: Mapping[str, Cache] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, project_id: str, key: bytes, cache: Cache) -> Entry | None:
        """See `AnswerStore`."""
        from valkey.exceptions import ValkeyError

        if clock.monotonic_s() < self._away_until_s:
            raise CacheFailed("Valkey does not answer")
        try:
            async with asyncio.timeout(_CALL_S):
                asked = self._client().get(_name(project_id, cache, key))
                found = await cast(Awaitable[bytes | None], asked)
        except (ValkeyError, OSError, TimeoutError) as error:
            self._away_until_s = clock.monotonic_s() + _PAUSE_S
            raise CacheFailed(f"Valkey does not answer: {type(error).__name__}") from None
        if found is None:
            return None
        entry = unpacked(found)
        return entry if entry.age_s < cache.ttl_s else None

    def put(self, project_id: str, key: bytes, cache: Cache, entry: Entry) -> None:
        """See `AnswerStore`."""
        size_bytes = len(entry.body)
        if self._waiting_bytes + size_bytes > _MAX_WAITING_BYTES:
            self._drop("they come faster than Valkey takes them")
            return
        self._waiting_bytes += size_bytes
        self._start(self._put(_name(project_id, cache, key), cache, entry))

    def use(self, caches: Mapping[str, Cache]) -> None:
        """See `AnswerStore`. What is too old goes by itself."""
        before, self._caches = self._caches, dict(caches)
        for project_id, cache in before.items():
            now = caches.get(project_id)
            if now is None or now.generation != cache.generation:
                self._start(self._purge(_folder(project_id, cache)))

    async def close(self) -> None:
        """See `AnswerStore`."""
        from valkey.exceptions import ValkeyError

        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CALL_S)
        for task in self._tasks:
            task.cancel()
        if self._made is not None:
            with suppress(ValkeyError, OSError):
                await self._made.aclose()

    def _client(self) -> Valkey:
        if self._made is None:
            from valkey.asyncio import BlockingConnectionPool, Valkey

            pool = BlockingConnectionPool.from_url(
                self._url.reveal(), max_connections=_CONNECTIONS, timeout=_CALL_S,
                socket_timeout=_CALL_S, socket_connect_timeout=_CALL_S,
            )  # fmt: skip
            self._made = Valkey.from_pool(pool)
        return self._made

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _put(self, name: str, cache: Cache, entry: Entry) -> None:
        from valkey.exceptions import ValkeyError

        try:
            async with asyncio.timeout(_CALL_S):
                await self._client().set(name, packed(entry), px=max(int(cache.ttl_s * 1000), 1))
        except (ValkeyError, OSError, TimeoutError) as error:
            self._drop(f"Valkey does not answer: {type(error).__name__}")
        finally:
            self._waiting_bytes -= len(entry.body)

    async def _purge(self, folder: str) -> None:
        """Delete what nobody asks for any more; one worker of all hosts does it."""
        from valkey.exceptions import ValkeyError

        try:
            client = self._client()
            if not await client.set(f"{_PREFIX}:purging:{folder}", 1, nx=True, ex=_PURGING_S):
                return
            cursor = 0
            while True:
                cursor, names = await client.scan(cursor, f"{folder}:*", _SCANNED_AT_ONCE)
                if names:
                    await client.unlink(*names)
                if not cursor:
                    return
        except (ValkeyError, OSError, TimeoutError) as error:
            log.error("kept answers go when they are too old: %s", type(error).__name__)

    def _drop(self, why: str) -> None:
        self.dropped += 1
        now_s = clock.monotonic_s()
        if now_s - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = now_s
            log.error("%d answers could not be kept so far: %s", self.dropped, why)


def _folder(project_id: str, cache: Cache) -> str:
    return f"{_PREFIX}:{project_id}:{cache.generation}"


def _name(project_id: str, cache: Cache, key: bytes) -> str:
    return f"{_folder(project_id, cache)}:{key.hex()}"
