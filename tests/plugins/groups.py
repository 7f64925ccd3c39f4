"""Which tests share a worker: those of a file; and pages, of which only two browsers run at once.

Pages come first: the quick tests fill what is left of the other workers' time.
"""

from __future__ import annotations

from pathlib import Path

import pytest

_BROWSERS = 2


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name each test's group, and put the pages first."""
    pages = sorted({item.path for item in items if _is_page(item.path)})
    for item in items:
        is_page = item.path in pages
        group = f"pages-{pages.index(item.path) % _BROWSERS}" if is_page else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: not _is_page(item.path))


def _is_page(path: Path) -> bool:
    return path.parent.name == "pages"
