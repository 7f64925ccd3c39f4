"""The revisions make what the models have, also of a database that an older Bud made."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from core.kernel import clock, database


def differences() -> list[object]:
    database.import_all_models()
    with database.engine().connect() as connection:
        return compare_metadata(MigrationContext.configure(connection), database.Base.metadata)


def test_the_revisions_make_the_tables_of_the_models(data_dir: Path) -> None:
    assert differences() == []


def test_an_older_database_gets_what_is_new_and_keeps_what_it_has(data_dir: Path) -> None:
    command.downgrade(database.alembic_config(), "0001")
    with database.engine().begin() as connection:
        assert "guardrails" not in sa.inspect(connection).get_table_names()
        tenants = sa.Table("tenants", sa.MetaData(), autoload_with=connection)
        connection.execute(tenants.insert().values(id="ten_a", name="Ours", created_at=clock.now()))
    database.migrate()
    assert differences() == []
    with database.engine().connect() as connection:
        assert connection.execute(sa.select(tenants.c.name)).scalars().all() == ["Ours"]
