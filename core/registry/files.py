"""The files of models: finding their parts, copying, hashing, room on the disk."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from core.jobs import Progress
from core.kernel.errors import InvalidInput, NoCapacity, Unavailable
from core.kernel.settings import settings

_CHUNK_BYTES = 4 << 20
_RESERVE_BYTES = 1 << 30
# How llama.cpp names the parts of a split model; it finds the others from the first.
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)


def folder_of(model_id: str) -> Path:
    """Where the files of a model are kept."""
    return settings().data_dir / "models" / model_id


def remove(model_id: str) -> None:
    """Remove the files that Bud made for a model."""
    shutil.rmtree(folder_of(model_id), ignore_errors=True)


def split_of(name: str) -> tuple[str, int] | None:
    """The common name and the number of parts, when a file's name says it is one of several."""
    found = _PART.fullmatch(name)
    return (found["stem"], int(found["count"])) if found else None


def display_name(name: str) -> str:
    """A name for the model, from a file's name: `SmolLM2-135M-Instruct.Q4_1`."""
    split = split_of(name)
    return split[0] if split else re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)


def parts_at(path: Path) -> list[Path]:
    """The GGUF parts that `path` names: a file, a part of a split one, or a folder with one model.

    Raises:
        InvalidInput: Nothing there, no GGUF, several models, or a part is missing.
    """
    if not path.exists():
        raise InvalidInput(
            f"There is nothing at {path}.", remedy="Give the path of a GGUF file or its folder."
        )
    if not path.is_dir():
        return _all_parts(path)
    found = sorted(file for file in path.iterdir() if file.suffix.lower() == ".gguf")
    models = {display_name(file.name): file for file in reversed(found)}
    if not models:
        raise InvalidInput(f"{path} holds no .gguf file.", remedy="Name the folder that does.")
    if len(models) > 1:
        names = sorted(file.name for file in models.values())
        raise InvalidInput(
            f"{path} holds {len(models)} models.", remedy=f"Name one file: {', '.join(names[:5])}."
        )
    return _all_parts(found[0])


def _all_parts(path: Path) -> list[Path]:
    split = split_of(path.name)
    if split is None:
        return [path]
    stem, count = split
    names = [f"{stem}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]
    missing = next((name for name in names if not (path.parent / name).is_file()), None)
    if missing is not None or not names:
        raise InvalidInput(
            f"Of the model in {count} parts, {missing or 'every one'} is missing.",
            remedy="Put every part into one folder.",
        )
    return [path.parent / name for name in names]


def total_bytes(parts: Sequence[Path]) -> int:
    """The size of several files together."""
    return sum(part.stat().st_size for part in parts)


def check_disk(needed_bytes: int, folder: Path) -> None:
    """Raise NoCapacity, with the numbers, when `needed_bytes` do not fit beside a reserve."""
    folder.mkdir(parents=True, exist_ok=True)
    have_bytes = sum(file.stat().st_size for file in folder.iterdir())
    free_bytes = shutil.disk_usage(folder).free
    missing_bytes = needed_bytes - have_bytes + _RESERVE_BYTES - free_bytes
    if missing_bytes > 0:
        raise NoCapacity(
            f"The model needs {needed_bytes / 1e9:.2f} GB and "
            f"{_RESERVE_BYTES / 1e9:.2f} GB must stay free, "
            f"but the disk of {folder.parent} has {free_bytes / 1e9:.2f} GB free.",
            remedy=f"Free {missing_bytes / 1e9:.2f} GB, or set BUD_DATA_DIR to a larger disk.",
        )


@contextmanager
def disk_errors() -> Iterator[None]:
    """Say what a failing disk or file means; what was written stays, so that a retry goes on."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoCapacity(
                f"The disk is full{where}.", remedy="Free some room, then retry the job."
            ) from error
        raise Unavailable(
            f"A file cannot be read or written: {error.strerror}{where}.",
            remedy="Check the disk and the file's permissions, then retry the job.",
        ) from error


class Rate:
    """Reports how many bytes are done, and how fast they come."""

    def __init__(self, progress: Progress, total_bytes: int | None) -> None:
        self._progress = progress
        self._total_bytes = total_bytes
        self._done_bytes = 0
        self._earlier_bytes = 0
        self._started_s = time.monotonic()

    def already(self, count: int) -> None:
        """`count` bytes were done by an earlier run; they say nothing about the speed."""
        self._done_bytes += count
        self._earlier_bytes += count

    def add(self, count: int) -> None:
        """`count` bytes more are done. Raises JobCancelled when the job is cancelled."""
        self._done_bytes += count
        spent_s = max(time.monotonic() - self._started_s, 0.01)
        per_second = max(self._done_bytes - self._earlier_bytes, 0) / spent_s / 1e6
        total = self._total_bytes
        of = f" of {total / 1e6:.0f}" if total else ""
        fraction = self._done_bytes / total if total else None
        detail = f"{self._done_bytes / 1e6:.0f}{of} MB, {per_second:.0f} MB/s"
        self._progress.update(fraction, detail)


def copy(sources: Sequence[Path], folder: Path, on_bytes: Callable[[int], None]) -> str:
    """Copy files into `folder`, keeping what an interrupted copy left there.

    Args:
        sources: The files, in order.
        folder: An existing folder.
        on_bytes: Called with the number of bytes of each chunk that is done; may raise to stop.

    Returns:
        The SHA-256 of all bytes that were read, in order, as hex.

    Raises:
        InvalidInput: A file changed while it was copied.
    """
    digest = hashlib.sha256()
    for source in sources:
        before = source.stat()
        _copy_one(source, folder / source.name, digest.update, on_bytes)
        after = source.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise InvalidInput(
                f"{source.name} changed while it was copied.",
                remedy="Add it again when it is whole.",
            )
    return digest.hexdigest()


def _copy_one(
    source: Path, target: Path, feed: Callable[[bytes], None], on_bytes: Callable[[int], None]
) -> None:
    target.touch()
    have_bytes = target.stat().st_size
    with source.open("rb") as reading, target.open("r+b") as writing:
        while chunk := reading.read(_CHUNK_BYTES):
            at = writing.tell()
            # Comparing what is there costs a read, trusting it could keep a torn chunk.
            if at >= have_bytes or writing.read(len(chunk)) != chunk:
                writing.seek(at)
                writing.write(chunk)
            feed(chunk)
            on_bytes(len(chunk))
        writing.truncate(reading.tell())
        writing.flush()
        os.fsync(writing.fileno())


def sha256(parts: Sequence[Path], on_bytes: Callable[[int], None] = lambda _count: None) -> str:
    """The SHA-256 of the bytes of several files, in order, as hex."""
    digest = hashlib.sha256()
    for part in parts:
        with part.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                on_bytes(len(chunk))
    return digest.hexdigest()
