"""The job that works on a batch: check the input, ask, put the answers where they are read."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from core.batches import lines
from core.batches.asking import Asking
from core.batches.lines import Answers
from core.contracts.batch import (
    ENDED,
    ERRORS,
    RESULTS,
    Batch,
    BatchError,
    BatchState,
    Folder,
    Status,
    StoredFile,
    used_bytes,
)
from core.jobs import Progress, Run, Step, workflow
from core.kernel import clock, ids
from core.kernel.errors import BudError, Conflict, InvalidInput, NoCapacity, NotFound
from core.kernel.settings import settings

_ROOM_S = 10.0


def _cancelled(project_id: str, batch_id: str) -> None:
    """What was answered until then stays."""
    folder = Folder(settings().data_dir, project_id)
    batch = folder.batch(batch_id)
    if batch is not None and batch.state.status not in ENDED:
        _conclude(folder, batch, "cancelled")


@workflow(
    "batch.run",
    steps=(
        Step("check", "Check the input", typical_s=1),
        Step("ask", "Ask line by line", typical_s=60),
        Step("finish", "Put the answers into files", typical_s=1),
    ),
    on_cancel=_cancelled,
)
def run_batch(run: Run, project_id: str, batch_id: str) -> None:
    """Work on a batch until every line has an answer, or it expires."""
    try:
        run.step("check", _check, project_id, batch_id)
        in_time = run.step("ask", _ask, project_id, batch_id)
        run.step("finish", _finish, project_id, batch_id, in_time)
    except BudError as error:
        fail(project_id, batch_id, error)
        raise


def _check(progress: Progress, project_id: str, batch_id: str) -> None:
    folder, batch = _found(project_id, batch_id)
    if batch.state.status in ENDED:
        raise Conflict(
            f"Batch {batch_id} has ended ({batch.state.status}).",
            remedy="Make a new one of the same input file.",
        )
    request = batch.request
    content = folder.content(request.input_file_id)
    if not content.is_file():
        raise NotFound(
            f"The input file {request.input_file_id} was deleted.", remedy="Upload it again."
        )
    longest_bytes = settings().max_body_mb * 1_000_000
    total, models, errors = lines.check(content, request.endpoint, longest_bytes)
    if errors:
        _put(folder, batch, status="failed", errors=errors, ended_unix_s=_now())
        first = errors[0]
        where = f"Line {first.line}: " if first.line else ""
        raise InvalidInput(
            f"{where}{first.message}", remedy="Correct the input file, and make a new batch."
        )
    progress.log(f"{batch_id} has {total:,} lines for {', '.join(sorted(models))}")
    _put(
        folder,
        batch,
        status="in_progress",
        total=total,
        model=next(iter(models)) if len(models) == 1 else None,
        in_progress_unix_s=batch.state.in_progress_unix_s or _now(),
    )


def _ask(progress: Progress, project_id: str, batch_id: str) -> bool:
    folder, batch = _found(project_id, batch_id)
    answers = Answers(folder.of_batch(batch_id))
    if answers.done:
        progress.log(f"{len(answers.done):,} lines were answered before; it goes on behind them")

    def report(asked: int) -> None:
        _count(folder, batch, answers)
        room.check()
        done, total = len(answers.done), batch.state.total
        failed = f", {answers.failed:,} with an error" if answers.failed else ""
        waits = "" if asked or done == total else "; it waits for a free slot"
        progress.update(done / total, f"{done:,} of {total:,} lines{failed}{waits}")

    room = _Room(settings().data_dir, settings().files_max_mb)
    asking = Asking(folder, batch.request, answers, progress.check, report)
    try:
        in_time = asyncio.run(asking.run())
    except FileNotFoundError:
        raise NotFound(
            f"The input file {batch.request.input_file_id} was deleted.",
            remedy="Upload what is left, and make a new batch of it.",
        ) from None
    except OSError as error:
        raise BudError(
            f"The answers cannot be written: {error.strerror}.",
            remedy="Make room on the disk of the data folder, and a new batch of what is left.",
        ) from error
    finally:
        answers.close()
        _count(folder, batch, answers)
    report(0)
    return in_time


class _Room:
    """What all files may take together; asked now and then, since it takes a look at each."""

    def __init__(self, data_dir: Path, most_mb: int) -> None:
        self._data_dir, self._most_mb = data_dir, most_mb
        self._asked_s = clock.monotonic_s()

    def check(self) -> None:
        """Raises NoCapacity: no more answers may be kept."""
        if clock.monotonic_s() - self._asked_s < _ROOM_S:
            return
        self._asked_s = clock.monotonic_s()
        if used_bytes(self._data_dir) > self._most_mb * 1_000_000:
            raise NoCapacity(
                f"All files together have reached the limit of {self._most_mb:,} MB.",
                remedy="Delete what is not needed any more, or raise BUD_FILES_MAX_MB.",
            )


def _finish(progress: Progress, project_id: str, batch_id: str, in_time: bool) -> None:
    folder, batch = _found(project_id, batch_id)
    if batch.state.status not in ENDED:
        state = _conclude(folder, batch, "completed" if in_time else "expired")
        progress.log(
            f"{state.completed:,} lines answered, {state.failed:,} with an error, "
            f"{state.input_tokens + state.output_tokens:,} tokens"
        )
        progress.log(
            f"answers: {state.output_file_id or 'none'}, errors: {state.error_file_id or 'none'}; "
            f"see: bud batches show {batch_id}"
        )


def _conclude(folder: Folder, batch: Batch, status: Status) -> BatchState:
    """Turn what was answered into files, then say that it has ended. May run twice."""
    state = batch.state
    batch = msgspec.structs.replace(
        batch,
        state=_put(
            folder,
            batch,
            status="finalizing",
            finalizing_unix_s=state.finalizing_unix_s or _now(),
            output_file_id=state.output_file_id or ids.new_id("file"),
            error_file_id=state.error_file_id or ids.new_id("file"),
        ),
    )
    state = batch.state
    of_batch = folder.of_batch(batch.request.id)
    return _put(
        folder,
        batch,
        status=status,
        output_file_id=_filed(folder, batch, state.output_file_id, of_batch / RESULTS),
        error_file_id=_filed(folder, batch, state.error_file_id, of_batch / ERRORS),
        ended_unix_s=_now(),
    )


def _filed(folder: Folder, batch: Batch, file_id: str | None, lines_of: Path) -> str | None:
    """Make a file of lines; its id, None when there are no lines."""
    assert file_id is not None
    content = folder.content(file_id)
    if lines_of.is_file() and lines_of.stat().st_size:
        content.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lines_of.replace(content)
    lines_of.unlink(missing_ok=True)
    if not content.is_file():
        return None
    ttl_s, now_s = batch.request.output_ttl_s, _now()
    folder.add_file(
        StoredFile(
            id=file_id,
            filename=f"{batch.request.id}_{lines_of.stem}.jsonl",
            purpose="batch_output",
            size_bytes=content.stat().st_size,
            created_unix_s=now_s,
            expires_unix_s=None if ttl_s is None else now_s + ttl_s,
        )
    )
    return file_id


def fail(project_id: str, batch_id: str, error: BudError) -> None:
    """A batch whose job cannot go on has failed, with what was answered until then."""
    folder = Folder(settings().data_dir, project_id)
    batch = folder.batch(batch_id)
    if batch is None or batch.state.status in ENDED:
        return
    state = batch.state
    errors = [*state.errors, BatchError(code="batch_failed", message=str(error))]
    state = msgspec.structs.replace(state, errors=errors)
    _conclude(folder, msgspec.structs.replace(batch, state=state), "failed")


def _found(project_id: str, batch_id: str) -> tuple[Folder, Batch]:
    folder = Folder(settings().data_dir, project_id)
    batch = folder.batch(batch_id)
    if batch is None:
        raise NotFound(f"There is no batch {batch_id}.", remedy="It was deleted; make a new one.")
    return folder, batch


def _count(folder: Folder, batch: Batch, answers: Answers) -> None:
    _put(
        folder,
        batch,
        completed=answers.completed,
        failed=answers.failed,
        input_tokens=answers.input_tokens,
        output_tokens=answers.output_tokens,
        cached_tokens=answers.cached_tokens,
    )


def _put(folder: Folder, batch: Batch, **changes: Any) -> BatchState:
    state = msgspec.structs.replace(batch.state, **changes)
    folder.put_state(batch.request.id, state)
    return state


def _now() -> int:
    return int(clock.unix_s())
