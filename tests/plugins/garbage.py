"""What is imported lives to the end, so the garbage collector need not go through it."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect no garbage while all modules are imported; then leave aside what there is."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_unconfigure() -> None:
    """Let everything go at the end: extensions complain of what outlives them."""
    gc.unfreeze()
