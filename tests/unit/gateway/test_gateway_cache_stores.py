"""Stores of kept answers: how much, for how long, for whom; and which requests are the same."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from core.contracts.response_cache import FILE_NAME, FOLDER_NAME
from core.contracts.route_table import Cache
from core.kernel import clock
from gateway.cache.disk_store import DiskStore
from gateway.cache.entries import AnswerStore, CacheFailed, Entry
from gateway.cache.keys import key_of
from gateway.cache.valkey_store import ValkeyStore
from tests.doubles.gateway_harness import until
from tests.doubles.valkey_server import ValkeyServer

CHAT = "/v1/chat/completions"
CACHE = Cache(ttl_s=60.0, max_bytes=10_000)


def entry(size_bytes: int = 1000, age_s: float = 0.0) -> Entry:
    return Entry(clock.unix_s() - age_s, "application/json", b"x" * size_bytes, 10, 0.5)


def key(number: int) -> bytes:
    return bytes([number]) * 32


async def has(store: AnswerStore, number: int, project_id: str = "prj_a") -> bool:
    return await store.get(project_id, key(number), CACHE) is not None


async def holds(store: AnswerStore, number: int, project_id: str = "prj_a") -> None:
    for _ in range(300):
        if await has(store, number, project_id):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{number} is not kept")


def used(folder: Path) -> dict[str, tuple[int, int]]:
    database = sqlite3.connect(folder / FOLDER_NAME / FILE_NAME)
    rows = database.execute("SELECT project_id, answers, bytes FROM used").fetchall()
    database.close()
    return {project_id: (answers, size_bytes) for project_id, answers, size_bytes in rows}


async def test_a_project_keeps_no_more_than_it_may_and_what_was_used_last(tmp_path: Path) -> None:
    store, other = DiskStore(tmp_path), DiskStore(tmp_path)
    assert not await has(store, 1)
    assert not (tmp_path / FOLDER_NAME).exists()
    for number in range(1, 9):
        store.put("prj_a", key(number), CACHE, entry())
    other.put("prj_b", key(99), CACHE, entry())
    await holds(other, 8)
    await holds(store, 99, "prj_b")
    assert not await has(store, 99)
    # As if it had been long ago that they were used.
    database = sqlite3.connect(tmp_path / FOLDER_NAME / FILE_NAME)
    with database:
        database.execute("UPDATE answers SET used_s = used_s - 100")
    database.close()
    assert await has(store, 1)
    for number in range(10, 13):
        store.put("prj_a", key(number), CACHE, entry())
    await holds(store, 12)
    assert await has(store, 1)
    answers, size_bytes = used(tmp_path)["prj_a"]
    assert 1000 * answers < size_bytes <= CACHE.max_bytes
    assert used(tmp_path)["prj_b"][0] == 1
    store.put("prj_a", key(20), CACHE, entry(20_000))
    store.put("prj_a", key(21), CACHE, entry())
    await holds(store, 21)
    assert store.dropped == 1
    assert (tmp_path / FOLDER_NAME / FILE_NAME).stat().st_mode & 0o777 == 0o600
    await store.close()
    await other.close()


async def test_what_is_too_old_or_purged_is_deleted_from_the_disk(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    store.put("prj_a", key(1), CACHE, entry(age_s=61.0))
    store.put("prj_a", key(2), CACHE, entry())
    store.put("prj_b", key(3), CACHE, entry())
    await holds(store, 2)
    assert not await has(store, 1)
    store.use({"prj_a": CACHE, "prj_b": CACHE})
    await until(lambda: used(tmp_path)["prj_a"][0] == 1)
    store.use({"prj_a": Cache(ttl_s=60.0, max_bytes=10_000, generation=1)})
    await until(lambda: list(used(tmp_path)) == ["prj_a"])
    await store.close()
    assert used(tmp_path)["prj_a"] == (0, 0)
    assert b"x" * 100 not in (tmp_path / FOLDER_NAME / FILE_NAME).read_bytes()


async def test_hosts_share_what_valkey_keeps_and_go_on_without_it(tmp_path: Path) -> None:
    server = ValkeyServer(tmp_path).start()
    one, other = ValkeyStore(server.url), ValkeyStore(server.url)
    try:
        for project_id in ("prj_a", "prj_b"):
            one.put(project_id, key(1), CACHE, entry())
            await holds(other, 1, project_id)
        assert not await has(other, 2)
        for store in (one, other):
            store.use({"prj_a": CACHE, "prj_b": CACHE})
            store.use({"prj_b": CACHE})
        for _ in range(300):
            if not await has(one, 1):
                break
            await asyncio.sleep(0.01)
        assert not await has(one, 1)
        assert await has(other, 1, "prj_b")
        server.kill()
        with pytest.raises(CacheFailed):
            await has(one, 1)
        # Nobody waits for it again.
        with pytest.raises(CacheFailed):
            await asyncio.wait_for(has(one, 1), 0.01)
    finally:
        await one.close()
        await other.close()
        server.kill()


@pytest.mark.parametrize(
    "other",
    [
        b'{"model":"m","temperature":0,"messages":[{"role":"user","content":"Hello!"}]}',
        b'{"model":"m","temperature":0,"messages":[{"content":"Hello","role":"system"}]}',
        b'{"model":"m","temperature":0,"messages":[{"role":"user","content":"Hello"}],"top_k":1}',
        b'{"model":"m","temperature":0,"messages":[{"role":"user","content":"Hello"}],"n":null}',
    ],
)
def test_every_field_counts_also_one_that_nobody_knows(other: bytes) -> None:
    one = b'{"model":"m","temperature":0,"messages":[{"role":"user","content":"Hello"}]}'
    same = (
        b'{ "stream":false, "user":"u", "messages":[{"content":"\\u0048ello","role":"user"}],'
        b'"metadata":{"a":1}, "temperature":0, "model":"m"}'
    )
    made = key_of(b"place", one, CHAT, all_requests=False)
    assert made is not None
    assert key_of(b"place", same, CHAT, all_requests=False) == made
    assert key_of(b"place", other, CHAT, all_requests=False) not in (None, made)
    assert key_of(b"plac", one, CHAT, all_requests=False) != made


@pytest.mark.parametrize(
    ("raw", "all_requests", "is_kept"),
    [
        (b'{"temperature":0.0}', False, True),
        (b'{"temperature":1,"seed":0}', False, True),
        (b'{"temperature":false}', False, False),
        (b'{"temperature":0.1}', False, False),
        (b"{}", False, False),
        (b"{}", True, True),
        (b'{"a":{"b":1,"b":2}}', True, False),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", True, False),
    ],
)
def test_which_requests_are_kept(raw: bytes, all_requests: bool, is_kept: bool) -> None:
    assert (key_of(b"", raw, CHAT, all_requests=all_requests) is not None) == is_kept
