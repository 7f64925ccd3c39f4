"""Which tests share a worker: those of a file; and pages, of which only two browsers run at once.

What takes long comes first: the quick tests fill what is left of the workers' time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

_PAGES = Path(__file__).parents[1] / "pages"
_BROWSERS = 2
# Folders whose files take longest, in order; all others follow.
_LONG = ("pages", "e2e", "integration", "simulation")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first."""
    items.sort(key=lambda item: _rank(item.path.parent.name))


def _rank(folder: str) -> int:
    return _LONG.index(folder) if folder in _LONG else len(_LONG)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Hand out whole groups."""
    return _Scheduling(config, log)


class _Scheduling(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        if file.parent.name != _PAGES.name:
            return str(file)
        pages = sorted(page.name for page in _PAGES.glob("test_*.py"))
        return f"pages {pages.index(file.name) % _BROWSERS}"
