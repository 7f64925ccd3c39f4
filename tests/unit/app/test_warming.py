"""What pages need is loaded ahead of their first visit, and never beside a page."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from app.warming import Visits, Warmer, loads
from core.registry import catalogue

_SOON_S = 10.0


@pytest.fixture
def visits() -> Visits:
    return Visits(quiet_s=0.0)


def test_nothing_is_loaded_before_somebody_comes_or_while_a_page_runs(visits: Visits) -> None:
    loaded, asked = threading.Event(), threading.Event()

    def one() -> Iterator[Callable[[], None]]:
        asked.set()
        yield loaded.set

    warmer = Warmer(visits, one)
    warmer.start()
    assert not asked.wait(0.05)
    with visits.page():
        visits.seen()
        assert asked.wait(_SOON_S)
        assert not loaded.wait(0.05)
    assert loaded.wait(_SOON_S)
    warmer.stop()


def test_what_cannot_be_loaded_does_not_keep_back_the_rest(
    visits: Visits, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = threading.Event()

    def broken() -> None:
        raise OSError("no such file")

    warmer = Warmer(visits, lambda: (broken, loaded.set))
    warmer.start()
    visits.seen()
    assert loaded.wait(_SOON_S)
    warmer.stop()
    assert "no such file" in caplog.text


def test_who_is_still_logged_in_is_expected(visits: Visits) -> None:
    loaded = threading.Event()
    warmer = Warmer(visits, lambda: (loaded.set,), expected_after_s=0.05)
    warmer.start()
    assert loaded.wait(_SOON_S)
    warmer.stop()


def test_a_stop_ends_it_before_anybody_came(visits: Visits) -> None:
    loaded = threading.Event()
    warmer = Warmer(visits, lambda: (loaded.set,))
    warmer.start()
    warmer.stop()
    assert "warmer" not in {thread.name for thread in threading.enumerate()}
    assert not loaded.is_set()


@pytest.mark.usefixtures("data_dir")
def test_every_load_works_on_a_new_data_folder() -> None:
    for load in loads():
        load()
    assert "index" in vars(catalogue.tables())
