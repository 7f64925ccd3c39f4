"""`.env.sample` and docs/settings.md say what the settings class says."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import generated_docs
from core.kernel.settings import Settings


def test_the_generated_files_are_up_to_date() -> None:
    assert generated_docs.stale() == [], "run: ./bud dev docs"


def test_a_stale_file_is_noticed(tmp_path: Path) -> None:
    generated_docs.write(tmp_path)
    assert generated_docs.stale(tmp_path) == []
    (tmp_path / ".env.sample").write_text("BUD_HOST=0.0.0.0\n")
    assert generated_docs.stale(tmp_path) == [".env.sample"]


def test_the_sample_names_every_setting_and_changes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BUD_{name.upper()}", raising=False)
    generated_docs.write(tmp_path)
    lines = (tmp_path / ".env.sample").read_text().splitlines()
    values = dict(line[1:].split("=", 1) for line in lines if line.startswith("#BUD_"))
    assert set(values) == {f"BUD_{name}".upper() for name in Settings.model_fields}
    uncommented = tmp_path / ".env"
    given = [f"{name}={value}" for name, value in values.items() if value and "DIR" not in name]
    uncommented.write_text("\n".join(given))
    assert Settings(_env_file=uncommented) == Settings(_env_file=None)
