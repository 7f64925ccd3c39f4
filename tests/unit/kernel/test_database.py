"""The engines: what they promise whichever SQLite the Python here was built with."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from core.kernel import clock, database


def test_a_default_in_milliseconds_is_known_to_every_sqlite(data_dir: Path) -> None:
    """DBOS makes tables with this default under Python 3.12 and later, also on an old SQLite."""
    engine = database.engine(f"sqlite:///{data_dir / 'other.db'}")
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE t (id INTEGER, at INTEGER NOT NULL DEFAULT (unixepoch('subsec') * 1000))"
        )
        connection.exec_driver_sql("INSERT INTO t (id) VALUES (1)")
        at_ms = connection.exec_driver_sql("SELECT at FROM t").scalar_one()
    assert at_ms == pytest.approx(clock.unix_s() * 1000, abs=5000)


def test_the_stand_in_refuses_what_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_SQLITE_WITH_SUBSECONDS", (999,))
    with database.engine("sqlite://").connect() as connection:
        assert connection.exec_driver_sql("SELECT unixepoch('subsec')").scalar_one() > 1e9
        with pytest.raises(OperationalError):
            connection.exec_driver_sql("SELECT unixepoch('now')")
    database.dispose()
