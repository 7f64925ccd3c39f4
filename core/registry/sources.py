"""Where the files of a model come from: the hub, a URL, an object store, or this machine.

A source plans first, from metadata alone, which files there are; then each file is fetched, going
on after the bytes that are there, and hashed on the way.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from core.jobs import Progress
from core.kernel.errors import InvalidInput
from core.registry import files
from core.registry.adapters import download, guarded_http, huggingface, object_store
from core.registry.gguf import read_header

SourceKind = Literal["file", "huggingface", "url", "s3"]


@dataclass(frozen=True)
class Source:
    """Where a model comes from: a path, an `owner/name`, a URL, or an `s3://` address.

    `file` names one file of a repository and `revision` its branch, tag or commit (None: the
    newest); `sha256` is what somebody says the file must have.
    """

    kind: SourceKind
    at: str
    file: str | None = None
    sha256: str | None = None
    revision: str | None = None

    @property
    def text(self) -> str:
        """What is shown; two additions with the same text are versions of one model.

        A URL's query is left out: it may be a signature or a token, and differ each time.
        """
        at = guarded_http.shown(self.at) if self.kind == "url" else self.at
        return " ".join(part for part in (self.kind, at, self.file) if part)


@dataclass(frozen=True)
class PlannedFile:
    """A file to fetch to `name`; hashes and size as the source gives them, `etag` its state."""

    name: str
    at: str
    size_bytes: int | None
    sha256: str | None = None
    git_sha1: str | None = None
    etag: str | None = None


@dataclass(frozen=True)
class Plan:
    """What will be fetched; `revision` is the source's own name for this state of it."""

    files: tuple[PlannedFile, ...]
    revision: str | None = None
    licence: str | None = None
    said: str = ""

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Plan:
        """Back from what a finished step remembers."""
        return cls(**content | {"files": tuple(PlannedFile(**each) for each in content["files"])})

    def to_json(self) -> dict[str, Any]:
        """What a step remembers."""
        return asdict(self)

    @property
    def size_bytes(self) -> int:
        """The size of all files of which it is known."""
        return sum(file.size_bytes or 0 for file in self.files)


# Fetches one file of a source to a path, going on after what is there, and gives its SHA-256.
Fetcher = Callable[[Source, Plan, PlannedFile, Path, Callable[[int], None], Progress], str]


def plan(progress: Progress, source: Source) -> Plan:
    """What `source` holds, from its metadata.

    Raises:
        BudError: It is not there, cannot be reached, or holds no model.
        TooLarge: A file is over BUD_MAX_MODEL_GB.
    """
    made = _PLANNERS[source.kind](source)
    names = [files.checked_name(file.name) for file in made.files]
    for file in made.files:
        download.check_size(file.size_bytes, file.name)
    progress.log(f"{len(names)} files, {made.size_bytes / 1e6:.0f} MB: {', '.join(names[:20])}")
    return made


def fetch(progress: Progress, source: Source, plan: Plan, folder: Path) -> list[dict[str, Any]]:
    """Fetch every file of a plan to `folder`; name, size and SHA-256 of each.

    Raises:
        InvalidInput: A file is not what its source, or the person, says it must be.
        NoCapacity: The disk is full.
        BudError: The source cannot be reached, or refuses.
    """
    files.check_disk(plan.size_bytes, folder)
    files.keep_only([file.name for file in plan.files], folder)
    rate = files.Rate(progress, plan.size_bytes or None)
    fetched = []
    for file in plan.files:
        target = folder / file.name
        with files.disk_errors():
            target.parent.mkdir(parents=True, exist_ok=True)
            rate.already(target.stat().st_size if target.exists() else 0)
            sha256 = _FETCHERS[source.kind](source, plan, file, target, rate.add, progress)
            size_bytes = target.stat().st_size
        _check_stated(source, file, target, sha256)
        fetched.append({"name": file.name, "size_bytes": size_bytes, "sha256": sha256})
    return fetched


def _check_stated(source: Source, file: PlannedFile, target: Path, sha256: str) -> None:
    if source.sha256 in (None, sha256):
        return
    target.unlink()
    raise InvalidInput(
        f"{file.name} is not the file that was meant: its SHA-256 is {sha256[:12]}…, "
        f"not {str(source.sha256)[:12]}….",
        remedy="Check the checksum where you found it; the download was thrown away.",
    )


def _plan_hub(source: Source) -> Plan:
    repository = huggingface.look_up(source.at, source.revision)
    chosen = huggingface.pick(repository, source.file)
    by_name = {file.name: file for file in repository.files}
    wanted = files.with_documents([part.name for part in chosen], list(by_name))
    planned = tuple(
        PlannedFile(
            # Parts of a split GGUF may lie in a folder of their own; an engine wants them here.
            Path(name).name if name.lower().endswith(".gguf") else name,
            name,
            by_name[name].size_bytes,
            by_name[name].sha256,
            by_name[name].git_sha1,
        )
        for name in wanted
    )
    said = ", ".join(part.name for part in chosen) if source.file is None else ""
    return Plan(planned, repository.revision, repository.licence, said[:200])


def _fetch_hub(
    source: Source,
    plan: Plan,
    file: PlannedFile,
    target: Path,
    on_bytes: Callable[[int], None],
    progress: Progress,
) -> str:
    wanted = huggingface.HubFile(file.at, file.size_bytes, file.sha256, file.git_sha1)
    revision = plan.revision or "main"
    return huggingface.download(source.at, revision, wanted, target, on_bytes, progress.sleep)


def _plan_local(source: Source) -> Plan:
    path = Path(source.at)
    found = files.found_at(path)
    for part in found.values():
        if part.suffix.lower() == ".gguf":
            read_header(part)
    sizes = {name: part.stat().st_size for name, part in found.items()}
    planned = (PlannedFile(name, str(part), sizes[name]) for name, part in found.items())
    return Plan(tuple(planned))


def _fetch_local(
    _source: Source,
    _plan: Plan,
    file: PlannedFile,
    target: Path,
    on_bytes: Callable[[int], None],
    _progress: Progress,
) -> str:
    return files.copy(Path(file.at), target, on_bytes)


def _plan_url(source: Source) -> Plan:
    found = download.look_up(source.at)
    planned = PlannedFile(found.name, source.at, found.size_bytes, source.sha256, etag=found.etag)
    return Plan((planned,), revision=found.etag)


def _fetch_url(
    source: Source,
    _plan: Plan,
    file: PlannedFile,
    target: Path,
    on_bytes: Callable[[int], None],
    progress: Progress,
) -> str:
    wanted = download.RemoteFile(file.name, file.size_bytes, file.etag)
    return download.fetch(source.at, wanted, target, on_bytes, progress.sleep)


def _plan_s3(source: Source) -> Plan:
    found = {each.name: each for each in object_store.list_objects(object_store.parse(source.at))}
    names = files.with_documents(files.chosen_names(list(found), source.at), list(found))
    planned = (
        PlannedFile(name, found[name].key, found[name].size_bytes, etag=found[name].etag)
        for name in names
    )
    states = "".join(f"{name} {found[name].etag}\n" for name in names)
    return Plan(tuple(planned), revision=hashlib.sha256(states.encode()).hexdigest()[:16])


def _fetch_s3(
    source: Source,
    _plan: Plan,
    file: PlannedFile,
    target: Path,
    on_bytes: Callable[[int], None],
    progress: Progress,
) -> str:
    location = object_store.parse(source.at)
    listed = object_store.StoredObject(file.at, file.name, file.size_bytes or 0, file.etag or "")
    return object_store.download(location, listed, target, on_bytes, progress.sleep)


_PLANNERS: dict[SourceKind, Callable[[Source], Plan]] = {
    "file": _plan_local,
    "huggingface": _plan_hub,
    "url": _plan_url,
    "s3": _plan_s3,
}
_FETCHERS: dict[SourceKind, Fetcher] = {
    "file": _fetch_local,
    "huggingface": _fetch_hub,
    "url": _fetch_url,
    "s3": _fetch_s3,
}
