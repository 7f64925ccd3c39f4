"""Log files: their last lines, their new lines, and keeping them small."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

_MAX_BYTES = 10_000_000
_KEPT = 3


def follow(logs: Mapping[str, Path], *, from_start: bool = False) -> Iterator[tuple[str, str]]:
    """New lines of several log files, for ever, as (name, line)."""
    offsets = {
        name: 0 if from_start or not log.exists() else log.stat().st_size
        for name, log in logs.items()
    }
    while True:
        for name, log in logs.items():
            size = log.stat().st_size if log.exists() else 0
            if size < offsets[name]:
                offsets[name] = 0
            if size == offsets[name]:
                continue
            with log.open("rb") as file:
                file.seek(offsets[name])
                content = file.read()
            # Half a line stays for the next round.
            whole = content[: content.rfind(b"\n") + 1]
            offsets[name] += len(whole)
            for line in whole.decode(errors="replace").splitlines():
                yield name, line
        time.sleep(0.3)


def tail(log: Path, lines: int) -> str:
    """The last lines of a log file; says so when it is empty."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64_000))
            text = file.read().decode(errors="replace").rstrip()
    except FileNotFoundError:
        text = ""
    return "\n".join(text.splitlines()[-lines:]) or "(the log is empty)"


def rotate(folder: Path, *, max_bytes: int = _MAX_BYTES) -> None:
    """Keep each log of `folder` below a size, by copy and truncate: its writer keeps it open.

    A line written between the copy and the truncation is lost.
    """
    for log in folder.glob("*.log"):
        if log.stat().st_size < max_bytes:
            continue
        for number in range(_KEPT, 1, -1):
            older = log.with_suffix(f".log.{number - 1}")
            if older.exists():
                older.replace(log.with_suffix(f".log.{number}"))
        shutil.copyfile(log, log.with_suffix(".log.1"))
        os.truncate(log, 0)
