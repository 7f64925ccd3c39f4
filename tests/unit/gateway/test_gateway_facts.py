"""Segments of facts: whole lines, sealed once, bounded, and honest about what is dropped."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.contracts.request_fact import RequestFact
from core.metrics import segments
from gateway.facts import FactWriter, seal_orphans
from tests.doubles.gateway_harness import facts_on_disk


def fact(number: int = 0, **fields: Any) -> RequestFact:
    fields = {"error_message": "x" * 400, **fields}
    return RequestFact(
        request_id=f"req_{number}", started_unix_s=1.0, endpoint="chat.completions", **fields
    )


def writer(data_dir: Path, max_bytes: int = 1_000_000) -> FactWriter:
    """One that is flushed by hand."""
    made = FactWriter(data_dir, max_bytes, seal_s=0.0)
    (data_dir / "facts").mkdir(exist_ok=True)
    return made


def test_facts_are_written_and_sealed_by_the_thread(tmp_path: Path) -> None:
    running = FactWriter(tmp_path, 1_000_000)
    running.start()
    for number in range(100):
        running.add(fact(number))
    deadline = time.monotonic() + 5
    while len(facts_on_disk(tmp_path)) < 100:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    running.add(fact(100))
    running.stop()
    assert [one.request_id for one in facts_on_disk(tmp_path)] == [f"req_{n}" for n in range(101)]
    assert not list(tmp_path.glob("facts/*.open"))


def test_metrics_reads_what_the_gateway_writes(tmp_path: Path) -> None:
    made = writer(tmp_path)
    made.add(fact(1, input_tokens=3, error_message="a\nb"))
    made.flush()
    (sealed,) = segments.sealed(tmp_path)
    read = segments.read(sealed)
    assert read.damaged_lines == 0
    assert read.facts[0].input_tokens == 3


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.integers(0, 5), st.binary(max_size=40).filter(lambda torn: b"\n" not in torn))
def test_orphan_is_sealed_without_its_torn_line(
    tmp_path_factory: pytest.TempPathFactory, lines: int, torn: bytes
) -> None:
    data_dir = tmp_path_factory.mktemp("orphan")
    (data_dir / "facts").mkdir()
    orphan = data_dir / "facts" / "seg_1.open"
    whole = b"".join(msgspec.json.encode(fact(number)) + b"\n" for number in range(lines))
    orphan.write_bytes(whole + torn)
    assert seal_orphans(data_dir / "facts") == (1 if lines else 0)
    assert not orphan.exists()
    assert len(facts_on_disk(data_dir)) == lines
    assert seal_orphans(data_dir / "facts") == 0


def test_segment_of_a_live_worker_is_not_sealed_by_another(tmp_path: Path) -> None:
    live = writer(tmp_path)
    live.seal_s = 60
    live.add(fact())
    live.flush()
    (open_one,) = tmp_path.glob("facts/*.open")
    assert seal_orphans(tmp_path / "facts") == 0
    # The lock is the worker's: a second one cannot have it.
    with open_one.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    live.seal_s = 0
    live.flush()
    assert len(facts_on_disk(tmp_path)) == 1


def test_limit_drops_and_counts(tmp_path: Path) -> None:
    made = writer(tmp_path, max_bytes=2_000)
    for number in range(20):
        made.add(fact(number))
        made.flush()
    kept = len(facts_on_disk(tmp_path))
    assert 0 < kept < 20
    assert made.dropped == 20 - kept
    assert segments.dropped_facts(tmp_path) == made.dropped
    # When metrics has ingested what waited, there is room again.
    for path in tmp_path.glob("facts/*.ndjson"):
        path.unlink()
    made.add(fact(99))
    made.flush()
    assert [one.request_id for one in facts_on_disk(tmp_path)] == ["req_99"]


def test_dropped_facts_add_up_over_workers_and_restarts(tmp_path: Path) -> None:
    for _ in range(3):
        made = writer(tmp_path, max_bytes=1)
        for number in range(7):
            made.add(fact(number))
        made.flush()
        assert made.dropped == 7
    assert segments.dropped_facts(tmp_path) == 21


def test_full_disk_drops_the_batch_and_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = writer(tmp_path)
    made.seal_s = 60
    made.add(fact(1))
    made.flush()
    real_write = os.write
    room = 150

    def full(descriptor: int, content: Any) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real_write(descriptor, bytes(content)[:room])
        room -= written
        return written

    monkeypatch.setattr(os, "write", full)
    made.add(fact(2))
    made.add(fact(3))
    made.flush()
    assert made.dropped == 2
    monkeypatch.setattr(os, "write", real_write)
    made.add(fact(4))
    made.flush()
    made.seal_s = 0
    made.flush()
    assert [one.request_id for one in facts_on_disk(tmp_path)] == ["req_1", "req_4"]
    assert segments.dropped_facts(tmp_path) == 2


def test_kernel_that_refuses_bytes_tears_no_line(tmp_path: Path) -> None:
    made = writer(tmp_path)
    made.seal_s = 60
    made.add(fact(1))
    made.flush()
    (segment,) = tmp_path.glob("facts/*.open")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As on a full disk, a part of the batch is written before the error.
    resource.setrlimit(resource.RLIMIT_FSIZE, (segment.stat().st_size + 100, hard))
    try:
        made.add(fact(2))
        made._write_or_drop([made._queue.popleft()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    made.seal_s = 0
    made.flush()
    assert made.dropped == 1
    assert [one.request_id for one in facts_on_disk(tmp_path)] == ["req_1"]


def test_overflowing_queue_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.facts._MAX_QUEUED", 3)
    made = writer(tmp_path)
    for number in range(5):
        made.add(fact(number))
    assert made.dropped == 2
    made.flush()
    assert len(facts_on_disk(tmp_path)) == 3
    assert segments.dropped_facts(tmp_path) == 2


def test_damaged_count_starts_anew(tmp_path: Path) -> None:
    made = writer(tmp_path, max_bytes=1)
    (tmp_path / "facts" / "dropped.json").write_bytes(b"{")
    made.add(fact())
    made.flush()
    assert segments.dropped_facts(tmp_path) == 1
