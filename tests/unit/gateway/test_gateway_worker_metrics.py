"""Metrics of several workers on one data folder, told by one of them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gateway import workers
from gateway.workers import Workers

COUNTED = """\
# HELP bud_requests_total Requests.
# TYPE bud_requests_total counter
bud_requests_total{status="200"} %d
# HELP bud_requests_in_flight Now.
# TYPE bud_requests_in_flight gauge
bud_requests_in_flight 1
"""


def worker(folder: Path, name: str, requests: int) -> Workers:
    return Workers(folder, name, lambda: COUNTED % requests, lambda: "")


async def test_what_an_ended_worker_counted_stays_and_what_it_did_ends(tmp_path: Path) -> None:
    first, second = worker(tmp_path, "gww_1", 3), worker(tmp_path, "gww_2", 4)
    first.start()
    second.start()
    await first.stop()
    for _ in ("read from its file", "taken over by the next one"):
        assert await second.living() == 1
        told = await second.metrics()
        assert 'bud_requests_total{status="200"} 7\n' in told
        assert "bud_requests_in_flight 1\n" in told
        third = worker(tmp_path, "gww_3", 0)
        third.start()
        await third.stop()
    await second.stop()


async def test_no_file_is_read_on_the_event_loop(tmp_path: Path) -> None:
    threads: list[threading.Thread] = []
    own = Workers(
        tmp_path, "gww_1", lambda: COUNTED % 1,
        lambda: threads.append(threading.current_thread()) or "",
    )  # fmt: skip
    own.start()
    assert "bud_requests_total" in await own.metrics()
    await own.stop()
    assert threads
    assert threading.main_thread() not in threads


async def test_a_full_disk_does_not_keep_a_worker_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = worker(tmp_path, "gww_1", 3)
    first.start()

    def full(path: Path, text: str) -> None:
        raise OSError("no room")

    monkeypatch.setattr(workers, "_replace", full)
    await first.stop()
    assert "no room" in caplog.text
    assert await worker(tmp_path, "gww_2", 0).living() == 1
