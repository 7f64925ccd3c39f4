"""Work that is done again and again."""

from __future__ import annotations

import logging
import threading

import pytest

from core.kernel.periodic import Periodic


def test_what_fails_is_logged_and_tried_again_until_it_is_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[str] = []
    again = threading.Event()

    def work() -> None:
        calls.append("called")
        if len(calls) == 1:
            raise OSError("the disk is away")
        again.set()

    periodic = Periodic("upkeep", work, every_s=0.01, first_after_s=0)
    with caplog.at_level(logging.ERROR):
        periodic.start()
        assert again.wait(10)
        periodic.stop()
    assert "upkeep failed" in caplog.text
    assert "the disk is away" in caplog.text
    assert not any(thread.name == "upkeep" for thread in threading.enumerate())
