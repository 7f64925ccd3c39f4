"""Reads JSON files of models: bounded in size and depth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.kernel.errors import InvalidInput

_MAX_BYTES = 16 << 20


def read_object(path: Path, max_bytes: int = _MAX_BYTES) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InvalidInput: It cannot be read, is too large, nested too deeply, or holds no object.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes > max_bytes:
            raise _unreadable(path, f"it has {size_bytes:,} bytes, over the limit of {max_bytes:,}")
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise _unreadable(path, "it is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)[:200]) from error
    if not isinstance(value, dict):
        raise _unreadable(path, "it holds no object")
    return value


def _unreadable(path: Path, why: str) -> InvalidInput:
    return InvalidInput(
        f"{path.name} cannot be read: {why}.",
        remedy="Download it again and compare it with the publisher's.",
    )
