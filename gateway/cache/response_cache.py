"""Between a request and the answers that its project keeps."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from core.contracts.request_fact import RequestFact
from core.contracts.route_table import Cache, Route
from core.kernel import clock
from core.kernel.crypto import Secret
from gateway.answer import Answer
from gateway.body import Parsed
from gateway.cache import keys
from gateway.cache.disk_store import DiskStore
from gateway.cache.entries import AnswerStore, CacheFailed, Entry
from gateway.cache.valkey_store import ValkeyStore
from gateway.guardrails.answers import Wrapped
from gateway.guardrails.rules import Rails
from gateway.http_request import Headers
from gateway.sse import EventStream, as_json
from gateway.stats import Stats
from gateway.table import Target

log = logging.getLogger(__name__)

# A longer answer is not kept.
MAX_ANSWER_BYTES = 1_000_000
# To read more of a body than this, the event loop is not held up.
_SHORT_BODY_BYTES = 16_000
_SWEEP_S = 30.0
_LOG_EVERY_S = 60.0
_MAX_AGE = re.compile(r"max-age=(\d{1,9})")


class ResponseCache:
    """The cache of one worker; costs nothing while no project keeps answers.

    Args:
        data_dir: Workers on the same folder share what is kept.
        valkey_url: Hosts with the same server share it; None when there is one host.
        stats: The worker's metrics.
    """

    def __init__(self, data_dir: Path, valkey_url: Secret | None, stats: Stats) -> None:
        self._store: AnswerStore = ValkeyStore(valkey_url) if valkey_url else DiskStore(data_dir)
        self._stats = stats
        self._caches: Mapping[str, Cache] | None = None
        self._swept_s = 0.0
        self._logged_s = float("-inf")

    @property
    def dropped(self) -> int:
        """Answers that could not be kept."""
        return self._store.dropped

    def use(self, caches: Mapping[str, Cache]) -> None:
        """Take what projects keep; looks now and then for what is too old."""
        now_s = clock.monotonic_s()
        if caches is not self._caches or (caches and now_s - self._swept_s > _SWEEP_S):
            self._caches, self._swept_s = caches, now_s
            self._store.use(caches)

    async def look(
        self,
        cache: Cache,
        target: Target,
        path: str,
        body: Parsed,
        rails: Rails | None,
        headers: Headers,
        fact: RequestFact,
    ) -> Lookup:
        """What is kept for a request; writes into its fact what was found.

        Args:
            cache: What its project keeps.
            target: The route that is called.
            path: The endpoint at the replica.
            body: As a replica would get it.
            rails: The project's guardrails.
            headers: The caller's.
            fact: The request's.
        """
        began_s = clock.monotonic_s()
        lookup = Lookup(self._keep, cache, fact)
        wish = _wish(headers)
        if target.route.cached and not wish.no_store and len(body.raw) <= keys.MAX_BODY_BYTES:
            lookup.servers = servers = keys.servers_of(target)
            place = keys.place_of(target, servers, path, body, rails, cache.generation, fact.key_id)
            lookup.key = await _key(place, body.raw, path, all_requests=cache.all_requests)
        if lookup.key is not None and not wish.no_cache:
            await self._find(lookup, target.route, wish.max_age_s)
        self._stats.cache_requests.add(fact.model, fact.cache)
        self._stats.cache_seconds.observe(clock.monotonic_s() - began_s)
        return lookup

    async def _find(self, lookup: Lookup, route: Route, max_age_s: float) -> None:
        fact, cache, key = lookup.fact, lookup.cache, lookup.key
        assert key is not None
        try:
            entry = await self._store.get(fact.project_id, key, cache)
        except CacheFailed as error:
            lookup.key = None
            self._failed(error)
            return
        if entry is None or entry.age_s >= max_age_s:
            fact.cache = "miss"
            return
        fact.cache = "hit"
        # It takes no tokens of anybody; what it would have taken is told apart.
        fact.input_tokens = fact.output_tokens = 0
        fact.cost_usd = 0.0
        fact.saved_tokens, fact.saved_usd = entry.tokens, entry.cost_usd
        self._stats.cache_saved_tokens.add(fact.model, value=entry.tokens or 0)
        self._stats.cache_saved_usd.add(fact.model, value=entry.cost_usd or 0.0)
        lookup.answer, lookup.age_s = Replayed(route, entry, fact), entry.age_s

    def _keep(self, lookup: Lookup, body: bytes, content_type: str) -> None:
        fact, key = lookup.fact, lookup.key
        assert key is not None
        tokens = None
        if fact.input_tokens is not None:
            tokens = fact.input_tokens + (fact.output_tokens or 0)
        entry = Entry(clock.unix_s(), content_type, body, tokens, fact.cost_usd)
        self._store.put(fact.project_id, key, lookup.cache, entry)

    def _failed(self, error: CacheFailed) -> None:
        self._stats.cache_failures.add()
        now_s = clock.monotonic_s()
        if now_s - self._logged_s >= _LOG_EVERY_S:
            self._logged_s = now_s
            log.error("requests are answered without the response cache: %s", error)

    async def close(self) -> None:
        """Keep what is waiting, and end."""
        await self._store.close()


class Lookup:
    """One request at the cache.

    Attributes:
        answer: The answer that was kept; None when the request goes to a replica.
        key: Under which its answer is to be kept; None when it is not.
        age_s: How old the kept answer is.
        servers: Whose answers are kept under the key.
    """

    def __init__(
        self, keep: Callable[[Lookup, bytes, str], None], cache: Cache, fact: RequestFact
    ) -> None:
        self.cache = cache
        self.fact = fact
        self.key: bytes | None = None
        self.answer: Replayed | None = None
        self.age_s = 0.0
        self.servers: list[str] = []
        self._keep = keep
        self._seen: Answer | None = None
        fact.cache = "bypass"

    @property
    def headers(self) -> dict[str, str]:
        """What the caller is told."""
        told = {"X-Bud-Cache": self.fact.cache}
        return told if self.answer is None else told | {"Age": f"{self.age_s:.0f}"}

    def watch(self, answer: Answer) -> Answer:
        """A replica's answer, of which what its caller gets is noted on the way.

        That of a fallback, or of a server that took the place of another meanwhile, is given once.
        """
        if self.key is None or keys.server_of(answer.route) not in self.servers:
            return answer
        self._seen = answer if answer.events is None else _Noted(answer)
        return self._seen

    def keep(self) -> None:
        """Keep the answer, when its caller got all of it; called when it has been accounted."""
        seen, fact = self._seen, self.fact
        if seen is None or fact.error_class or fact.answered_by:
            return
        if isinstance(seen, _Noted):
            if seen.noted and seen.events is not None and seen.events.done:
                self._keep(self, b"".join(seen.noted), "")
        elif seen.is_whole and len(seen.first) <= MAX_ANSWER_BYTES and _is_json(seen.first):
            self._keep(self, seen.first, seen.content_type)


class Replayed(Answer):
    """A kept answer, in the place of one that a replica begins."""

    __slots__ = ("_content_type",)

    is_pushed = False

    def __init__(self, route: Route, entry: Entry, fact: RequestFact) -> None:
        self.route = route
        self.first = entry.body
        self.is_whole = not fact.stream
        self.events = None
        self._content_type = entry.content_type
        if fact.stream:
            self.events = EventStream(keep_usage=True, model=as_json(fact.model))
            self.first = self.events.feed(entry.body)

    @property
    def content_type(self) -> str:
        """As when it was made."""
        return self._content_type

    async def next(self) -> bytes:
        """Nothing follows."""
        return b""


class _Noted(Wrapped):
    """A stream that is passed on; `noted` is what its caller got, empty when that is too much."""

    __slots__ = ("_room_bytes", "noted")

    def __init__(self, inner: Answer) -> None:
        super().__init__(inner)
        self.noted: list[bytes] = []
        self._room_bytes = MAX_ANSWER_BYTES
        self._note(inner.first)

    @property
    def is_pushed(self) -> bool:  # type: ignore[override]
        """As the stream itself."""
        return self._inner.is_pushed

    async def next(self) -> bytes:
        """See `Answer`."""
        piece = await self._inner.next()
        self._note(piece)
        return piece

    async def hand_on(
        self, write: Callable[[bytes], None], write_chunk: Callable[[bytes], None] | None
    ) -> None:
        """See `Answer`."""

        def note_and_write(piece: bytes) -> None:
            self._note(piece)
            write(piece)

        await self._inner.hand_on(note_and_write, None)

    def _note(self, piece: bytes) -> None:
        self._room_bytes -= len(piece)
        if self._room_bytes >= 0:
            self.noted.append(piece)
        else:
            self.noted.clear()


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a caller says of the cache."""

    no_cache: bool = False
    no_store: bool = False
    max_age_s: float = float("inf")


_NO_WISH = _Wish()


def _wish(headers: Headers) -> _Wish:
    return headers.once(_read_wish) if "cache-control" in headers else _NO_WISH


def _read_wish(headers: Headers) -> _Wish:
    said = headers.get("cache-control").lower()
    age = _MAX_AGE.search(said)
    return _Wish("no-cache" in said, "no-store" in said, float(age[1]) if age else float("inf"))


async def _key(place: bytes, raw: bytes, path: str, *, all_requests: bool) -> bytes | None:
    if len(raw) <= _SHORT_BODY_BYTES:
        return keys.key_of(place, raw, path, all_requests=all_requests)
    return await asyncio.to_thread(keys.key_of, place, raw, path, all_requests=all_requests)


def _is_json(content: bytes) -> bool:
    """Whether an answer is all there: some servers end a body with the connection."""
    try:
        msgspec.json.decode(content, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True
