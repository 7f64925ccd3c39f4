"""Regular expressions in RE2's syntax, compiled alike where they are set and where they are used.

RE2 takes time in proportion to the text, whatever the pattern is: Python's own can take for ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_MAX_BYTES = 1 << 20


def compiled(patterns: Iterable[str]) -> Any:
    """An expression that finds any of the patterns, in any case.

    Raises ValueError: one of them is no pattern, or together they take too much memory.
    """
    # Loaded only where there is a pattern.
    import re2

    options = re2.Options()
    options.max_mem = _MAX_BYTES
    options.log_errors = False
    options.case_sensitive = False
    try:
        return re2.compile("|".join(f"(?:{pattern})" for pattern in patterns), options)
    except re2.error as error:
        said = error.args[0]
        raise ValueError(said.decode() if isinstance(said, bytes) else str(said)) from None
