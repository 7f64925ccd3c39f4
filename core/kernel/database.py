"""The one place that makes database engines.

SQLite in the data folder by default, PostgreSQL by `BUD_DATABASE_URL`; the same code above.
"""

from __future__ import annotations

import importlib
import pkgutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import DateTime, Dialect, Engine, MetaData, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import TypeDecorator

from core.kernel import clock
from core.kernel.settings import ROOT, settings

MIGRATIONS = Path(__file__).parent / "migrations"
_SQLITE_WITH_SUBSECONDS = (3, 42)

_engines: dict[str, Engine] = {}
_lock = threading.Lock()


class Base(DeclarativeBase):
    """The declarative base of every table, with constraint names that Alembic can find."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UtcDateTime(TypeDecorator[datetime]):
    """A timezone-aware moment; SQLite forgets the zone, so it is put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a naive moment; store UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a moment without a timezone: {value!r}")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        """Give back a moment in UTC."""
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def database_url() -> str:
    """The SQLAlchemy URL in use."""
    return settings().database_url or f"sqlite:///{settings().data_dir / 'bud.db'}"


def jobs_database_url() -> str:
    """The URL of the job engine's own database (a file of its own under SQLite)."""
    return settings().jobs_database_url or f"sqlite:///{settings().data_dir / 'jobs.db'}"


def engine(url: str | None = None) -> Engine:
    """The engine for `url` (default: the main database), made once a process."""
    url = url or database_url()
    with _lock:
        if url not in _engines:
            _engines[url] = _make_engine(url)
        return _engines[url]


def _make_engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    made = create_engine(url, connect_args={"timeout": 30})

    @event.listens_for(made, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA busy_timeout=30000")
        cursor.close()
        if sqlite3.sqlite_version_info < _SQLITE_WITH_SUBSECONDS:
            connection.create_function("unixepoch", 1, _unixepoch)

    return made


def _unixepoch(moment: str) -> float:
    """`unixepoch('subsec')` for an older SQLite: DBOS asks for it under Python 3.12 and later.

    Whether SQLite knows it depends on SQLite alone; one that does not answers NULL.
    """
    if moment != "subsec":
        raise ValueError(moment)
    return clock.unix_s()


def dispose() -> None:
    """Close every engine; for tests and before a fork."""
    with _lock:
        for made in _engines.values():
            made.dispose()
        _engines.clear()


@contextmanager
def transaction() -> Iterator[Session]:
    """A short transaction that writes: commits at the end, rolls back on an error.

    On SQLite it takes the write lock at once, so that two writers queue instead of failing.
    """
    with Session(engine(), expire_on_commit=False) as session, session.begin():
        if session.get_bind().dialect.name == "sqlite":
            session.connection().exec_driver_sql("BEGIN IMMEDIATE")
        yield session


@contextmanager
def reading() -> Iterator[Session]:
    """A session for reading only; nothing is committed."""
    with Session(engine(), expire_on_commit=False) as session:
        yield session


def import_all_models() -> None:
    """Import `core.*.models`, so that `Base.metadata` holds every table."""
    import core
    import core.kernel.audit

    for module in pkgutil.iter_modules(core.__path__):
        if module.ispkg and (ROOT / "core" / module.name / "models.py").exists():
            importlib.import_module(f"core.{module.name}.models")


def migrate() -> None:
    """Bring the database to the newest schema (Alembic)."""
    # Imported here: Alembic costs 1.4 s of CPU, and only one process migrates.
    from alembic import command

    command.upgrade(alembic_config(), "head")


def alembic_config() -> Any:
    """Alembic's configuration, for the migrations in this package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("sqlalchemy.url", database_url().replace("%", "%%"))
    return config
