"""The files in which the gateway keeps captures: see `core.contracts.capture`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import date
from pathlib import Path

import msgspec

from core.contracts.capture import FOLDER_NAME, SUFFIX, Captured
from core.kernel.settings import settings

_decoder = msgspec.json.Decoder(Captured)


def used_bytes(project_id: str) -> int:
    """Of all the captures of a project."""
    used = 0
    for path in _files(project_id):
        with suppress(FileNotFoundError):
            used += path.stat().st_size
    return used


def newest(project_id: str) -> Iterator[Captured]:
    """The captures of a project, a day after the other; within a day by time, newest first."""
    by_day: dict[str, list[Path]] = {}
    for path in _files(project_id):
        by_day.setdefault(_day(path), []).append(path)
    for day in sorted(by_day, reverse=True):
        found = [captured for path in by_day[day] for captured in _read(path)]
        yield from sorted(found, key=lambda captured: captured.at_unix_s, reverse=True)


def delete(project_id: str, before: date | None = None) -> int:
    """Delete the files of a project, or those of the days before a day; how many there were."""
    deleted = 0
    for path in _files(project_id):
        if before is None or _day(path) < before.isoformat():
            path.unlink(missing_ok=True)
            deleted += 1
    return deleted


def _files(project_id: str) -> list[Path]:
    return sorted((settings().data_dir / FOLDER_NAME / project_id).glob(f"*{SUFFIX}"))


def _day(path: Path) -> str:
    return path.name.partition(".")[0]


def _read(path: Path) -> Iterator[Captured]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return  # deleted meanwhile, to make room
    for line in content.splitlines():
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            yield _decoder.decode(line)
