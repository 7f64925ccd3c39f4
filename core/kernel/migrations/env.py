"""Alembic's entry point: the engine and the tables are Bud's own."""

from alembic import context

from core.kernel import database

database.import_all_models()

with database.engine().connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=database.Base.metadata,
        render_as_batch=True,
        compare_type=False,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
