"""Rewrites `0001_initial.py` from the models, until the first release freezes it.

Run: `python -m core.kernel.migrations.regenerate`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def main() -> None:
    """Autogenerate the first revision against an empty database."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BUD_DATA_DIR"] = folder
        from alembic import command

        from core.kernel import database

        for old in (database.MIGRATIONS / "versions").glob("*.py"):
            old.unlink()
        config = database.alembic_config()
        command.revision(config, message="initial", rev_id="0001", autogenerate=True)
        made = Path(database.MIGRATIONS / "versions" / "0001_initial.py")
        print(f"wrote {made.name}")  # noqa: T201 (a developer's command)


if __name__ == "__main__":
    main()
