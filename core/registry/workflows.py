"""Jobs of the registry: adding a model, step by step.

The files of a model that is being added lie in `<data folder>/models/<model id>`; each step can
run again, and the copy goes on after the bytes that are there.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.jobs import Progress, Run, Step, workflow
from core.kernel import database
from core.kernel.errors import BudError, Conflict, InvalidInput, NoCapacity
from core.kernel.settings import settings
from core.registry import crud, extraction
from core.registry.adapters import huggingface
from core.registry.gguf import read_header

_CHUNK_BYTES = 8 << 20
_RESERVE_BYTES = 1 << 30


def folder_of(model_id: str) -> Path:
    """Where the files of a model are kept."""
    return settings().data_dir / "models" / model_id


def parts_at(path: Path) -> list[Path]:
    """The GGUF parts that `path` names: a file, a split file's first part, or a folder.

    Raises:
        InvalidInput: Nothing there, no GGUF, several models, or a part is missing.
    """
    if not path.exists():
        raise InvalidInput(
            f"There is nothing at {path}.", remedy="Give the path of a GGUF file or its folder."
        )
    found = sorted(path.glob("*.gguf")) if path.is_dir() else [path]
    if not found:
        raise InvalidInput(f"{path} holds no .gguf file.", remedy="Name the folder that does.")
    first = found[0]
    if "-of-" not in first.name:
        if len(found) > 1:
            raise InvalidInput(
                f"{path} holds {len(found)} models.",
                remedy=f"Name one: {', '.join(part.name for part in found[:5])}.",
            )
        return found
    stem, total = first.name.rsplit("-of-", 1)
    prefix = stem[: -len("00001")]
    count = int(total.split(".")[0])
    parts = [first.parent / f"{prefix}{number:05d}-of-{total}" for number in range(1, count + 1)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise InvalidInput(
            f"Of the model in {count} parts, {missing[0]} is missing.",
            remedy="Put every part into one folder.",
        )
    return parts


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, as hex."""
    return _hash([path], lambda _count: None)


def _discard(model_id: str, **_arguments: Any) -> None:
    shutil.rmtree(folder_of(model_id), ignore_errors=True)
    with database.transaction() as tx:
        model = crud.model(tx, model_id)
        if model is not None and model.state != "ready":
            tx.delete(model)


@workflow(
    "model.add_local",
    steps=(
        Step("validate", "Check the file", typical_s=0.5),
        Step("copy", "Copy and hash", typical_s=5),
        Step("save", "Read the header and save", typical_s=0.5),
    ),
    on_cancel=_discard,
)
def add_local(run: Run, model_id: str, path: str) -> None:
    """Add a model from files of this machine."""
    with _marking_failure(model_id):
        names = run.step("validate", _validate, model_id, path)
        run.step("copy", _copy, model_id, names)
        run.step("save", _save, model_id, [Path(name).name for name in names])


@workflow(
    "model.add_from_hub",
    steps=(
        Step("choose", "Choose the file", typical_s=2),
        Step("download", "Download", typical_s=60),
        Step("verify", "Compare the checksum", typical_s=5),
        Step("save", "Read the header and save", typical_s=0.5),
    ),
    on_cancel=_discard,
)
def add_from_hub(run: Run, model_id: str, repo_id: str, file: str | None) -> None:
    """Add a model from Hugging Face."""
    with _marking_failure(model_id):
        chosen = run.step("choose", _choose, repo_id, file)
        run.step("download", _download, model_id, repo_id, chosen)
        run.step("verify", _verify, model_id, chosen)
        run.step("save", _save, model_id, [Path(chosen["name"]).name])


class _marking_failure:  # noqa: N801 (reads as a statement)
    """Write the reason into the model's row when its job fails."""

    def __init__(self, model_id: str) -> None:
        self._model_id = model_id

    def __enter__(self) -> None:
        with database.transaction() as tx:
            model = crud.model(tx, self._model_id)
            if model is not None:
                model.state, model.error = "adding", None

    def __exit__(self, kind: object, error: object, _traceback: object) -> None:
        if not isinstance(error, BudError):
            return
        with database.transaction() as tx:
            model = crud.model(tx, self._model_id)
            if model is not None:
                model.state, model.error = "failed", str(error)


def _validate(progress: Progress, model_id: str, path: str) -> list[str]:
    parts = parts_at(Path(path))
    for part in parts:
        header = read_header(part)
        progress.log(f"{part.name}: {header.tensor_count} tensors, {header.quantization}")
    extraction.describe(parts)
    _check_disk(sum(part.stat().st_size for part in parts), folder_of(model_id))
    return [str(part) for part in parts]


def _check_disk(needed_bytes: int, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    have_bytes = sum(file.stat().st_size for file in folder.iterdir())
    free_bytes = shutil.disk_usage(folder).free
    missing_bytes = needed_bytes - have_bytes + _RESERVE_BYTES - free_bytes
    if missing_bytes > 0:
        raise NoCapacity(
            f"The model needs {needed_bytes / 1e9:.2f} GB and 1 GB must stay free, "
            f"but the disk of {folder.parent} has {free_bytes / 1e9:.2f} GB free.",
            remedy=f"Free {missing_bytes / 1e9:.2f} GB, or set BUD_DATA_DIR to a larger disk.",
        )


def _copy(progress: Progress, model_id: str, names: list[str]) -> None:
    sources = [Path(name) for name in names]
    total = sum(source.stat().st_size for source in sources)
    report = _Rate(progress, total)
    for source in sources:
        _copy_one(source, folder_of(model_id) / source.name, report)


def _copy_one(source: Path, target: Path, report: _Rate) -> None:
    # What a killed copy left is kept only up to a whole chunk, and compared by the hash later.
    have = target.stat().st_size // _CHUNK_BYTES * _CHUNK_BYTES if target.exists() else 0
    report.add(have)
    with source.open("rb") as reading, target.open("r+b" if have else "wb") as writing:
        reading.seek(have)
        writing.seek(have)
        while chunk := reading.read(_CHUNK_BYTES):
            writing.write(chunk)
            report.add(len(chunk))
        writing.truncate()
    if file_sha256(source) != file_sha256(target):
        target.unlink()
        raise InvalidInput(
            f"{source.name} changed while it was copied.", remedy="Add it again when it is whole."
        )


class _Rate:
    """Reports a share of the bytes, and how fast they come."""

    def __init__(self, progress: Progress, total_bytes: int | None) -> None:
        self._progress = progress
        self._total = total_bytes
        self._done = 0
        self._started_s = time.monotonic()

    def add(self, count: int) -> None:
        self.reached(self._done + count, self._total)

    def reached(self, done: int, total: int | None) -> None:
        self._done, self._total = done, total
        rate = done / max(time.monotonic() - self._started_s, 0.01) / 1e6
        of = f" of {total / 1e6:.0f}" if total else ""
        fraction = done / total if total else None
        self._progress.update(fraction, f"{done / 1e6:.0f}{of} MB, {rate:.0f} MB/s")


def _hash(parts: list[Path], on_bytes: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        with part.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                on_bytes(len(chunk))
    return digest.hexdigest()


def _choose(progress: Progress, repo_id: str, file: str | None) -> dict[str, Any]:
    files = huggingface.list_gguf(repo_id)
    chosen = huggingface.pick(files, repo_id, file)
    progress.log(f"chosen: {chosen.name} of {len(files)} GGUF files")
    return {"name": chosen.name, "size_bytes": chosen.size_bytes, "sha256": chosen.sha256}


def _download(progress: Progress, model_id: str, repo_id: str, chosen: dict[str, Any]) -> None:
    _check_disk(chosen["size_bytes"] or 0, folder_of(model_id))
    target = folder_of(model_id) / Path(chosen["name"]).name
    huggingface.download(repo_id, chosen["name"], target, _Rate(progress, None).reached)


def _verify(progress: Progress, model_id: str, chosen: dict[str, Any]) -> None:
    target = folder_of(model_id) / Path(chosen["name"]).name
    report = _Rate(progress, target.stat().st_size)
    found = _hash([target], report.add)
    if chosen["sha256"] is not None and found != chosen["sha256"]:
        target.unlink()
        raise InvalidInput(
            f"{target.name} arrived damaged: its SHA-256 is {found[:12]}…, "
            f"the hub says {chosen['sha256'][:12]}….",
            remedy="Retry the job; it downloads the file again.",
        )


def _save(progress: Progress, model_id: str, names: list[str]) -> None:
    parts = [folder_of(model_id) / name for name in names]
    columns = extraction.describe(parts)
    sha256 = _hash(parts, lambda _n: progress.check())
    with database.transaction() as tx:
        model = crud.model(tx, model_id)
        if model is None:
            raise Conflict("The model was deleted while it was added.")
        twin = crud.same_file(tx, model.tenant_id, model.project_id, sha256)
        if twin is not None and twin.id != model_id:
            raise Conflict(
                f"This file is already in the registry as {twin.name!r}.",
                remedy="Use that one, or delete it first.",
            )
        for name, value in columns.items():
            setattr(model, name, value)
        model.sha256, model.path, model.state = sha256, str(parts[0]), "ready"
