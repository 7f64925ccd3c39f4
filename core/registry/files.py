"""The files of models: which belong to one, copying, hashing, room on the disk."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from core.jobs import Progress
from core.kernel.errors import InvalidInput, NoCapacity, Unavailable
from core.kernel.settings import settings
from core.registry.listing import safe_files
from core.registry.schemas import FileView

_CHUNK_BYTES = 4 << 20
_RESERVE_BYTES = 1 << 30
# How llama.cpp names the parts of a split model; it finds the others from the first.
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)


# A repository holds the same weights several times; one form of them is enough.
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_OTHER_FORMS = (
    *(".gguf", ".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".tflite", ".mlmodel", ".npz"),
    *(".pdparams", ".nemo"),
)
_DOCUMENTS = ("readme", "license", "licence", "notice", "use_policy", "usage_policy")
_OTHER_FOLDERS = frozenset({"original", "onnx", "openvino", "coreml", "runs"})


def folder_of(version_id: str) -> Path:
    """Where the files of a version are kept on this machine."""
    return settings().data_dir / "models" / version_id


def remove(version_id: str) -> None:
    """Remove the files that Bud keeps of a version on this machine."""
    shutil.rmtree(folder_of(version_id), ignore_errors=True)


def keep_only(names: Sequence[str], folder: Path) -> None:
    """Remove what an earlier try left in `folder` that is not among `names`."""
    for file in folder.rglob("*"):
        if file.is_file() and file.relative_to(folder).as_posix() not in names:
            file.unlink()


def checked_name(name: str) -> str:
    """A file's name inside a model's folder. InvalidInput when it leads out of it."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise InvalidInput(
            f"The file name {name[:80]!r} leads out of the model's folder.",
            remedy="Do not use this model: names like this are made to overwrite other files.",
        )
    return name


def of_one_model(names: Sequence[str], where: str) -> list[str]:
    """Of the files of a repository without GGUF, those that make the model, sorted.

    Safetensors are preferred to pickles; weights in other forms, and hidden files, are left out.

    Raises:
        InvalidInput: There are no weights; names what there is.
    """
    shown = [name for name in sorted(names) if not _is_beside(name)]
    safe = [name for name in shown if name.endswith(".safetensors")]
    weights = safe or [name for name in shown if name.lower().endswith(_PICKLES)]
    if not weights:
        there = ", ".join(sorted(names)[:12]) or "no files"
        raise InvalidInput(
            f"{where} holds no weights (.gguf, .safetensors or .bin).",
            remedy=f"Name a model's own repository or folder. It has: {there}.",
        )
    if any(PurePosixPath(name).name.startswith("model") for name in safe):
        # Mistral's own form beside the usual one: the same weights again.
        weights = [name for name in weights if not name.startswith("consolidated")]
    kept = {name for name in shown if not name.lower().endswith((".safetensors", *_PICKLES))}
    return sorted(kept | set(weights))


def is_document(name: str) -> bool:
    """Whether a file tells about the model and is no part of it: its card, its licence."""
    stem, _, suffix = name.lower().partition(".")
    return suffix in ("", "md", "txt", "pdf") and stem.startswith(_DOCUMENTS)


def _is_beside(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "checkpoint-")) for part in path.parts)
    other = path.suffix.lower() in _OTHER_FORMS or bool(_OTHER_FOLDERS & set(path.parts[:-1]))
    return hidden or other


def split_of(name: str) -> tuple[str, int] | None:
    """The common name and the number of parts, when a file's name says it is one of several."""
    found = _PART.fullmatch(name)
    return (found["stem"], int(found["count"])) if found else None


def display_name(name: str) -> str:
    """A name for the model, from a file's name: `SmolLM2-135M-Instruct.Q4_1`."""
    split = split_of(name)
    return split[0] if split else re.sub(r"\.gguf$", "", name, flags=re.IGNORECASE)


def found_at(path: Path) -> dict[str, Path]:
    """The files of the model at a path of this machine, by their name within the model.

    A GGUF or safetensors file, a part of a split GGUF, or a folder with one model. A folder's
    links may lead to the folder itself, or to the blobs of the Hugging Face cache it is in.

    Raises:
        InvalidInput: Nothing there, no model, several, a part is missing, or a link leads out.
    """
    if not path.exists():
        raise InvalidInput(
            f"There is nothing at {path}.",
            remedy="Give the path of a model's file, or of its folder.",
        )
    if path.is_dir():
        below = {entry.name: entry.path for entry in safe_files(path)}
        names = with_documents(chosen_names(list(below), str(path)), list(below))
        return {name: below[name] for name in names}
    there = {file.name for file in path.parent.iterdir()} if split_of(path.name) else {path.name}
    return {name: path.parent / name for name in _all_parts(path.name, there)}


def chosen_names(names: Sequence[str], where: str) -> list[str]:
    """Of the files of a folder, those of the one model in it, sorted.

    Raises:
        InvalidInput: There is no model, there are several, or a part is missing.
    """
    ggufs = sorted(name for name in names if "/" not in name and name.lower().endswith(".gguf"))
    if not ggufs:
        return of_one_model(names, where)
    models = {display_name(name): name for name in reversed(ggufs)}
    if len(models) > 1:
        raise InvalidInput(
            f"{where} holds {len(models)} models.",
            remedy=f"Name one file: {', '.join(sorted(models.values())[:5])}.",
        )
    return _all_parts(ggufs[0], set(ggufs))


def with_documents(chosen: Sequence[str], names: Sequence[str]) -> list[str]:
    """The chosen files, and the documents that lie beside them."""
    return [*chosen, *sorted(name for name in set(names) - set(chosen) if is_document(name))]


def _all_parts(name: str, there: set[str]) -> list[str]:
    split = split_of(name)
    if split is None:
        return [name]
    stem, count = split
    names = [f"{stem}-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)]
    missing = next((name for name in names if name not in there), None)
    if missing is not None or not names:
        raise InvalidInput(
            f"Of the model in {count} parts, {missing or 'every one'} is missing.",
            remedy="Put every part into one folder.",
        )
    return names


def total_bytes(parts: Sequence[Path]) -> int:
    """The size of several files together."""
    return sum(part.stat().st_size for part in parts)


def check_disk(needed_bytes: int, folder: Path) -> None:
    """Raise NoCapacity, with the numbers, when `needed_bytes` do not fit beside a reserve."""
    folder.mkdir(parents=True, exist_ok=True)
    have_bytes = total_bytes([file for file in folder.rglob("*") if file.is_file()])
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


def copy(source: Path, target: Path, on_bytes: Callable[[int], None]) -> str:
    """Copy a file, keeping what an interrupted copy left at `target`.

    Args:
        source: The file.
        target: Where it goes; its folder exists.
        on_bytes: Called with the number of bytes of each chunk that is done; may raise to stop.

    Returns:
        The SHA-256 of the bytes that were read, as hex.

    Raises:
        InvalidInput: The file changed while it was copied.
    """
    digest = hashlib.sha256()
    before = source.stat()
    _copy(source, target, digest.update, on_bytes)
    after = source.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise InvalidInput(
            f"{source.name} changed while it was copied.", remedy="Add it again when it is whole."
        )
    return digest.hexdigest()


def _copy(
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


def sha256(path: Path, on_bytes: Callable[[int], None] = lambda _count: None) -> str:
    """The SHA-256 of a file, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()


def model_sha256(kept: Sequence[FileView]) -> str:
    """What tells a version's files from any other: the SHA-256 of its file, as hex.

    Of several files it is that of their list, as `sha256sum` writes it, in the order of names.
    Documents do not count: a card that was reworded does not make another model.
    """
    counted = [file for file in kept if not is_document(file.name)]
    if len(counted) == 1:
        return counted[0].sha256
    counted.sort(key=lambda file: file.name)
    lines = (f"{file.sha256}  {file.name}\n" for file in counted)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
