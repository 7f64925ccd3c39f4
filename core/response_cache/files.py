"""The file in which this host's gateway keeps answers: see `core.contracts.response_cache`."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from core.contracts.response_cache import FILE_NAME, FOLDER_NAME
from core.kernel.settings import settings


def used(project_id: str) -> tuple[int, int]:
    """How many answers of a project are kept, and how many bytes they take."""
    path = settings().data_dir / FOLDER_NAME / FILE_NAME
    if not path.exists():
        return 0, 0
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as file:
            asked = "SELECT answers, bytes FROM used WHERE project_id = ?"
            row = file.execute(asked, (project_id,)).fetchone()
    except sqlite3.Error:  # a worker is just making it, or it is damaged: the gateway's log says so
        return 0, 0
    return row or (0, 0)
