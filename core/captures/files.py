"""The files in which the gateway keeps captures: see `core.contracts.capture`."""

from __future__ import annotations

import heapq
import itertools
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


def newest(project_id: str, number: int) -> list[Captured]:
    """The newest captures of a project without their texts, which may be far more than memory."""
    found: list[Captured] = []
    for paths in _days(project_id):
        lacking = number - len(found)
        if lacking <= 0:
            break
        heads = (
            msgspec.structs.replace(captured, request="", response="")
            for path in paths
            for captured in _read(path)
        )
        found += heapq.nlargest(lacking, heads, key=_at)
    return found


def find(project_id: str, request_id: str) -> Captured | None:
    """The capture of a request; the newest one when callers gave the same id to several."""
    for paths in _days(project_id):
        found = (captured for path in paths for captured in _read(path))
        same = (captured for captured in found if captured.request_id == request_id)
        if (captured := max(same, key=_at, default=None)) is not None:
            return captured
    return None


def projects() -> list[str]:
    """The projects of which something may be kept."""
    folder = settings().data_dir / FOLDER_NAME
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


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


def _days(project_id: str) -> list[list[Path]]:
    """The files of each day, the newest day first."""
    newest_first = sorted(_files(project_id), key=_day, reverse=True)
    return [list(paths) for _, paths in itertools.groupby(newest_first, key=_day)]


def _day(path: Path) -> str:
    return path.name.partition(".")[0]


def _at(captured: Captured) -> float:
    return captured.at_unix_s


def _read(path: Path) -> Iterator[Captured]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return  # deleted meanwhile, to make room
    with file:
        for line in file:
            with suppress(msgspec.DecodeError, UnicodeDecodeError):
                yield _decoder.decode(line)
