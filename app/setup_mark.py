"""How the dashboard knows that the set-up is done, so that both can start at the same time.

The supervisor names a file in `BUD_SETUP_MARK`. It holds "done" once the set-up has succeeded and
"stopped" when there will be none.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

VARIABLE = "BUD_SETUP_MARK"
DONE = "done"
STOPPED = "stopped"
_POLL_S = 0.05


def write(path: Path, word: str) -> None:
    """Say how the set-up went, in one step."""
    partial = path.with_suffix(".partial")
    partial.write_text(word)
    partial.replace(path)


def wait() -> None:
    """Return when the set-up is done, or at once without a supervisor.

    Raises:
        SystemExit: The supervisor stops instead.
    """
    named = os.environ.get(VARIABLE)
    while named:
        word = _read(Path(named))
        if word == DONE:
            return
        if word == STOPPED:
            raise SystemExit(0)
        time.sleep(_POLL_S)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
