"""Writes the next revision: what the models have and the revisions so far do not make.

Run: `python -m core.kernel.migrations.revise "what is new"`. Revisions that are on main are never
changed: people's data folders have them.
"""

from __future__ import annotations

import os
import sys
import tempfile


def main(what: str) -> None:
    """Autogenerate a revision against a database that has all others."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BUD_DATA_DIR"] = folder
        from alembic import command

        from core.kernel import database

        number = len(list((database.MIGRATIONS / "versions").glob("*.py"))) + 1
        database.migrate()
        command.revision(
            database.alembic_config(), message=what, rev_id=f"{number:04}", autogenerate=True
        )


if __name__ == "__main__":
    main(sys.argv[1])
