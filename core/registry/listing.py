"""The files of a model's folder, told apart from what must not be followed or opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.kernel.errors import InvalidInput

_MAX_FILES = 20_000
# Folders that downloads leave behind; nothing in them is part of the model.
_NOT_THE_MODEL = frozenset({".git", ".cache"})


@dataclass(frozen=True)
class Entry:
    """A file; `name` is relative to the folder. `problem` says why it may not be read.

    `problem` is empty, `outside` (a link that leads out of the folder, to `target`), `broken`
    (a link that leads nowhere) or `special` (a device, a pipe, a socket).
    """

    path: Path
    name: str
    size_bytes: int = 0
    problem: str = ""
    target: str = ""
    is_executable: bool = False


def entries(root: Path) -> Iterator[Entry]:
    """Every file at or below `root`, by name; links are followed to files within it only.

    A folder of the Hugging Face cache may link to the blobs beside it: that is how it is made.

    Raises:
        InvalidInput: There is nothing, or there are more than 20,000 files.
    """
    if not root.exists():
        raise InvalidInput(f"There is nothing at {root}.", remedy="Check the path.")
    if not root.is_dir():
        yield _entry(root, root.name, root.resolve().parent)
        return
    allowed = _allowed(root)
    for count, path in enumerate(_walk(root)):
        if count >= _MAX_FILES:
            raise InvalidInput(
                f"{root} holds more than {_MAX_FILES:,} files.",
                remedy="Name the folder of one model.",
            )
        yield _entry(path, path.relative_to(root).as_posix(), allowed)


def safe_files(root: Path) -> list[Entry]:
    """Every file at or below `root`.

    Raises:
        InvalidInput: One of them is a link that leads out of the folder or nowhere, or is no file.
    """
    found = list(entries(root))
    for entry in found:
        if entry.problem:
            raise InvalidInput(describe_problem(entry), remedy="Remove it from the folder.")
    return found


def describe_problem(entry: Entry) -> str:
    """A sentence for what is wrong with `entry`."""
    if entry.problem == "outside":
        return f"{entry.name} is a link that leads out of the folder, to {entry.target[:200]}."
    if entry.problem == "broken":
        return f"{entry.name} is a link that leads nowhere ({entry.target[:200]})."
    return f"{entry.name} is no file but a device, a pipe or a socket."


def _allowed(root: Path) -> Path:
    resolved = root.resolve()
    in_cache = resolved.parent.name == "snapshots"
    cache = resolved.parent.parent
    return cache if in_cache and cache.name.startswith("models--") else resolved


def _walk(folder: Path) -> Iterator[Path]:
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        with os.scandir(current) as found:
            children = sorted(found, key=lambda child: child.name)
        folders = []
        for child in children:
            if child.is_dir(follow_symlinks=False):
                if child.name not in _NOT_THE_MODEL:
                    folders.append(Path(child.path))
            else:
                yield Path(child.path)
        waiting.extend(reversed(folders))


def _entry(path: Path, name: str, allowed: Path) -> Entry:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        target = str(path.readlink())
        resolved = path.resolve()
        if not resolved.is_relative_to(allowed):
            return Entry(path, name, problem="outside", target=target)
        if not resolved.exists():
            return Entry(path, name, problem="broken", target=target)
        status = resolved.stat()
        if stat.S_ISDIR(status.st_mode):
            # What is in it is listed where it lies.
            return Entry(path, name, problem="special", target=target)
    if not stat.S_ISREG(status.st_mode):
        return Entry(path, name, problem="special")
    return Entry(path, name, status.st_size, is_executable=bool(status.st_mode & 0o111))
