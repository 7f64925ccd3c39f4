"""What the set-up tells the person who starts Bud for the first time."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import setup
from core.kernel.settings import settings


@pytest.mark.parametrize("given", ["correct-horse-battery", ""])
def test_the_first_start_says_how_to_log_in_and_later_ones_do_not(
    given: str,
    data_dir: Path,
    quick_passwords: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BUD_ADMIN_PASSWORD", given)
    monkeypatch.setenv("BUD_ADMIN_EMAIL", "ada@example.org")
    monkeypatch.setattr("sys.argv", ["app.setup"])
    settings.cache_clear()
    assert setup.main() == 0
    told = capsys.readouterr().out
    assert "ada@example.org" in told
    assert ("BUD_ADMIN_PASSWORD" in told) == bool(given)
    assert ("one-time password" in told) == (not given)
    assert "correct-horse-battery" not in told
    assert setup.main() == 0
    assert capsys.readouterr().out == ""
