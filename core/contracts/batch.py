"""Files and batches: what callers ask of the gateway, and what the app makes of it.

Everything lies in `<data folder>/batches/<project id>`, each file with one writer, and whole or not
there at all but for the results, which are appended to:

    files/<file id>.content        by who made the file: the gateway for uploads, else the app
    files/<file id>.json           the same; a `StoredFile`, written last
    <batch id>/request.json        by the gateway, once: a `BatchRequest`
    <batch id>/cancel              by who cancels: empty
    <batch id>/job                 by the app, once: the id of its job
    <batch id>/state.json          by the app: a `BatchState`
    <batch id>/results.ndjson      by the app, a line for each answer; errors.ndjson likewise

and beside the projects `new/<batch id>`, with the project's id in it: made by the gateway before
the request, taken away by the app when it has a job, or when no request has come for a minute. The
gateway never waits for the app: a batch that nobody has taken up is one that is being validated.

The app sends each line through the gateway, in the name of the key that made the batch: with a
`Ticket` that is sealed by the keys of both (`SECRET_PREFIX`, then the sealed ticket).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from core.kernel import clock

FOLDER_NAME = "batches"
FILES, NEW = "files", "new"
REQUEST, STATE, CANCEL, JOB = "request.json", "state.json", "cancel", "job"
RESULTS, ERRORS = "results.ndjson", "errors.ndjson"
SECRET_PREFIX = "bud-batch-"  # noqa: S105 (what follows it is secret)
TICKET_CONTEXT = "batch"
WINDOW_S = 24 * 3600.0
_FORSAKEN_S = 60.0
MOST_LINES = 50_000
# What a line may ask, and the scope that its key needs for it.
ENDPOINTS = {
    "/v1/chat/completions": "chat.completions",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "responses",
    "/v1/moderations": "moderations",
    "/v1/rerank": "rerank",
    "/v1/images/generations": "images",
}
Status = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling",
    "cancelled",
]  # fmt: skip
ENDED = frozenset({"failed", "completed", "expired", "cancelled"})

_is_id = re.compile(r"(?:file|batch)_[0-9a-z]{26}").fullmatch
_Struct = TypeVar("_Struct", bound=msgspec.Struct)


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file; `expires_unix_s` None means that it stays until it is deleted."""

    id: str
    filename: str
    purpose: Literal["batch", "batch_output"]
    size_bytes: int
    created_unix_s: int
    expires_unix_s: int | None = None


class BatchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asked for; `output_ttl_s` is how long its files of answers are kept."""

    id: str
    project_id: str
    key_id: str
    user_id: str
    endpoint: str
    input_file_id: str
    created_unix_s: int
    expires_unix_s: int
    metadata: dict[str, str] | None = None
    output_ttl_s: int | None = None


class BatchError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a batch was not begun; `line` counts from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a batch stands. Times are in Unix seconds, None until then."""

    status: Status = "validating"
    total: int = 0
    completed: int = 0
    failed: int = 0
    model: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    errors: list[BatchError] = []
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_unix_s: int | None = None
    finalizing_unix_s: int | None = None
    ended_unix_s: int | None = None


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """Lets the app ask in the name of a key, for one batch and until it ends."""

    batch_id: str
    project_id: str
    key_id: str
    ends_unix_s: float


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as it stands.

    `cancelling_unix_s` is when somebody cancelled it, None: nobody; `job_id` is "" until there is
    one.
    """

    request: BatchRequest
    state: BatchState
    cancelling_unix_s: int | None = None
    job_id: str = ""

    @property
    def status(self) -> Status:
        """As callers are told."""
        if self.state.status in ENDED or self.cancelling_unix_s is None:
            return self.state.status
        return "cancelling"


class Folder:
    """The files and batches of one project.

    Args:
        data_dir: The data folder.
        project_id: The project.
    """

    def __init__(self, data_dir: Path, project_id: str) -> None:
        self.root = data_dir / FOLDER_NAME
        self.own = self.root / project_id
        self._project_id = project_id

    def content(self, file_id: str) -> Path:
        """Where a file's content is."""
        return self.own / FILES / f"{file_id}.content"

    def of_batch(self, batch_id: str) -> Path:
        """Where a batch is."""
        return self.own / batch_id

    def file(self, file_id: str) -> StoredFile | None:
        """A file; None when there is none."""
        return _read(self._meta(file_id), StoredFile) if _is_id(file_id) else None

    def add_file(self, file: StoredFile) -> None:
        """Tell of a file whose content is there."""
        replace(self._meta(file.id), msgspec.json.encode(file))

    def delete_file(self, file_id: str) -> bool:
        """Delete a file; whether there was one."""
        if self.file(file_id) is None:
            return False
        self._meta(file_id).unlink(missing_ok=True)
        self.content(file_id).unlink(missing_ok=True)
        return True

    def file_ids(self) -> list[str]:
        """Every file, the oldest first."""
        return sorted(path.stem for path in (self.own / FILES).glob("file_*.json"))

    def batch(self, batch_id: str) -> Batch | None:
        """A batch; None when there is none."""
        if not _is_id(batch_id):
            return None
        folder = self.of_batch(batch_id)
        request = _read(folder / REQUEST, BatchRequest)
        if request is None:
            return None
        state = _read(folder / STATE, BatchState) or BatchState()
        asked = None
        with suppress(FileNotFoundError):
            asked = int((folder / CANCEL).stat().st_mtime)
        job_id = ""
        with suppress(FileNotFoundError):
            job_id = (folder / JOB).read_text()
        return Batch(request=request, state=state, cancelling_unix_s=asked, job_id=job_id)

    def batch_ids(self) -> list[str]:
        """Every batch, the oldest first."""
        return sorted(path.parent.name for path in self.own.glob(f"batch_*/{REQUEST}"))

    def add_batch(self, request: BatchRequest) -> None:
        """Ask for a batch."""
        # The note first: a gateway that is killed in between leaves no batch that nobody takes up.
        replace(self.root / NEW / request.id, self._project_id.encode())
        replace(self.of_batch(request.id) / REQUEST, msgspec.json.encode(request))

    def cancel(self, batch_id: str) -> None:
        """Ask that a batch be cancelled."""
        (self.of_batch(batch_id) / CANCEL).touch()

    def put_job(self, batch_id: str, job_id: str) -> None:
        """Say which job works on a batch."""
        replace(self.of_batch(batch_id) / JOB, job_id.encode())

    def put_state(self, batch_id: str, state: BatchState) -> None:
        """Say where a batch stands."""
        replace(self.of_batch(batch_id) / STATE, msgspec.json.encode(state))

    def _meta(self, file_id: str) -> Path:
        return self.own / FILES / f"{file_id}.json"


def replace(path: Path, content: bytes) -> None:
    """Write a small file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def is_forsaken(data_dir: Path, batch_id: str) -> bool:
    """Whether no request comes any more for a note."""
    try:
        noted_unix_s = (data_dir / FOLDER_NAME / NEW / batch_id).stat().st_mtime
    except FileNotFoundError:
        return True
    return clock.unix_s() - noted_unix_s > _FORSAKEN_S


def taken_up(data_dir: Path, batch_id: str) -> None:
    """A batch has its job."""
    (data_dir / FOLDER_NAME / NEW / batch_id).unlink(missing_ok=True)


def new(data_dir: Path) -> Iterator[tuple[str, str]]:
    """Project and id of each batch that nobody has taken up, the oldest first."""
    folder = data_dir / FOLDER_NAME / NEW
    for path in sorted(folder.glob("batch_*")):
        if path.name.endswith(".partial"):
            continue
        try:
            project_id = path.read_text()
        except FileNotFoundError:
            continue  # taken up just now
        yield project_id, path.name


def projects(data_dir: Path) -> list[str]:
    """The projects that have files or batches."""
    folder = data_dir / FOLDER_NAME
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.name != NEW)


def used_bytes(data_dir: Path) -> int:
    """Of the content of all files and results."""
    root = data_dir / FOLDER_NAME
    used = 0
    for pattern in (f"*/{FILES}/*.content*", "*/*/*.ndjson"):
        for path in root.glob(pattern):
            with suppress(FileNotFoundError):
                used += path.stat().st_size
    return used


def _read(path: Path, kind: type[_Struct]) -> _Struct | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        # What a power cut tore is lost; it must not stop what is whole.
        return None
