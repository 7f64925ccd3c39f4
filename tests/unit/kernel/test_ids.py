"""Identifiers sort by time and are nobody else's."""

from __future__ import annotations

import os
import re
import time

import pytest

from core.kernel import ids


def test_they_sort_by_time_and_are_all_different(monkeypatch: pytest.MonkeyPatch) -> None:
    latest = ""
    for moment_ms in (1_700_000_000_000, 1_700_000_000_001, 4_000_000_000_000):
        monkeypatch.setattr(time, "time_ns", lambda now=moment_ms: now * 1_000_000)
        made = [ids.new_id("dep") for _ in range(1000)]
        assert len(set(made)) == 1000
        assert all(re.fullmatch("dep_[0-9a-hjkmnp-tv-z]{26}", each) for each in made)
        assert min(made) > latest
        latest = max(made)


def test_a_forked_process_gives_out_its_own() -> None:
    ids.new_id("x")  # some are fetched ahead now
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, ids.new_id("x").encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reading, 100).decode()
    os.close(reading)
    os.close(writing)
    assert theirs[-16:] not in {ids.new_id("x")[-16:] for _ in range(300)}
