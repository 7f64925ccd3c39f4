"""Settings that cannot be are refused in words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core.kernel.errors import InvalidInput
from core.kernel.settings import settings


@pytest.fixture(autouse=True)
def _read_anew() -> Iterator[None]:
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_a_value_that_cannot_be_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUD_APP_PORT", "99999")
    with pytest.raises(InvalidInput, match="BUD_APP_PORT is '99999': it should be less") as refused:
        settings()
    assert "docs/settings.md" in refused.value.remedy
