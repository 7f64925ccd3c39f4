"""Use cases of batches: list, show, cancel; take up what callers asked for; forget what is old."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from core import jobs
from core.accounts import services as accounts
from core.batches.schemas import BatchView
from core.batches.workflows import fail, run_batch
from core.contracts import batch as contract
from core.contracts.batch import ENDED, FILES, Batch, BatchState, Folder
from core.jobs.schemas import JobView
from core.kernel import audit, clock, database
from core.kernel.actor import Actor
from core.kernel.errors import BudError, Conflict, NotFound
from core.kernel.settings import settings
from core.projects import services as projects

# Of the four jobs that run at once: what people wait for must not stand behind batches.
MOST_RUNNING = 2
_TORN_AFTER_S = 86_400.0


def list_batches(actor: Actor, project_id: str, limit: int = 100) -> list[BatchView]:
    """The newest batches of a project."""
    folder = _folder(actor, "batch:read", project_id)
    found = (folder.batch(batch_id) for batch_id in folder.batch_ids()[::-1][:limit])
    return [_view(batch) for batch in found if batch is not None]


def get_batch(actor: Actor, project_id: str, batch_id: str) -> BatchView:
    """A batch. Raises NotFound."""
    return _view(_found(_folder(actor, "batch:read", project_id), batch_id))


def cancel_batch(actor: Actor, project_id: str, batch_id: str) -> BatchView:
    """Stop a batch; what was answered stays. It has ended within about two seconds.

    Raises:
        NotFound: There is none.
        Conflict: It has ended.
    """
    folder = _folder(actor, "batch:cancel", project_id)
    batch = _found(folder, batch_id)
    if batch.state.status in ENDED:
        raise Conflict(f"Batch {batch_id} has already ended ({batch.state.status}).")
    folder.cancel(batch_id)
    with database.transaction() as tx:
        audit.record(tx, actor, "batch.cancelled", f"batch:{batch_id}", project_id=project_id)
    return _view(_found(folder, batch_id))


def take_up() -> int:
    """Give jobs to batches that callers asked for, and stop those that they cancelled.

    At most two run at once; a project that has one lets another project go first.

    Returns:
        How many jobs were started.
    """
    actor, data_dir = Actor.system(), settings().data_dir
    active = [
        job
        for job in jobs.list_jobs(actor, None, active_only=True, limit=1000)
        if _is_of_batch(job)
    ]
    for job in active:
        _stop_if_asked(actor, job)
    busy = [job.project_id for job in active]
    waiting = _waiting(data_dir)
    while waiting and len(busy) < MOST_RUNNING:
        batch = min(waiting, key=lambda each: (each.request.project_id in busy, each.request.id))
        waiting.remove(batch)
        _begin(batch)
        contract.taken_up(data_dir, batch.request.id)
        busy.append(batch.request.project_id)
    return len(busy) - len(active)


def prune(actor: Actor) -> int:
    """Delete files and batches that are too old, of every project; how many. Admins only.

    Batches whose job is gone without a word, such as by a full disk, are ended.
    """
    actor.require("batch:delete")
    data_dir = settings().data_dir
    oldest_unix_s = clock.unix_s() - settings().keep_files_days * 86_400
    known = {project.id for project in projects.list_projects(Actor.system())}
    pruned = 0
    for project_id in contract.projects(data_dir):
        folder = Folder(data_dir, project_id)
        if project_id not in known:
            shutil.rmtree(folder.own)
            pruned += 1
            continue
        _end_lost(folder)
        pruned += _prune_files(folder, oldest_unix_s) + _prune_batches(folder, oldest_unix_s)
    if pruned:
        with database.transaction() as tx:
            audit.record(tx, actor, "batches.pruned", "batches", files_and_batches=pruned)
    return pruned


def forget_project(actor: Actor, project_id: str) -> None:
    """Delete the files and batches of a project that goes away."""
    actor.require("batch:delete", project_id)
    folder = Folder(settings().data_dir, project_id)
    if folder.own.is_dir():
        shutil.rmtree(folder.own)


def _waiting(data_dir: Path) -> list[Batch]:
    """The batches that need a job. A kill may have left the note of one that has its job."""
    found = []
    for project_id, batch_id in contract.new(data_dir):
        batch = Folder(data_dir, project_id).batch(batch_id)
        if batch is None:
            is_done = contract.is_forsaken(data_dir, batch_id)
        else:
            is_done = _is_over(batch) or _has_job(batch)
        if is_done:
            contract.taken_up(data_dir, batch_id)
        elif batch is not None:
            found.append(batch)
    return found


def _has_job(batch: Batch) -> bool:
    project_id, subject = batch.request.project_id, _subject(batch)
    return bool(jobs.list_jobs(Actor.system(), project_id, subject=subject, limit=1))


def _subject(batch: Batch) -> str:
    return f"batch:{batch.request.id}"


def _begin(batch: Batch) -> None:
    request = batch.request
    folder = Folder(settings().data_dir, request.project_id)
    file = folder.file(request.input_file_id)
    name = file.filename if file is not None else request.id
    job_id = jobs.start(
        _owner(request.user_id, request.project_id),
        run_batch,
        project_id=request.project_id,
        title=f"Batch {name[:80]}: {request.endpoint}",
        subject=_subject(batch),
        arguments={"project_id": request.project_id, "batch_id": request.id},
    )
    folder.put_job(request.id, job_id)


def _owner(user_id: str, project_id: str) -> Actor:
    """Whose key made it, for the page and the audit log."""
    system = Actor.system()
    try:
        user = accounts.get_user(system, user_id)
    except BudError:
        return system  # gone meanwhile: its key is too, and every line will say so
    return Actor(user.id, user.email, system.tenant_id, "member", {project_id: "member"})


def _is_over(batch: Batch) -> bool:
    """Whether nobody need begin with it; one that was cancelled so early has ended by that."""
    if batch.state.status in ENDED:
        return True
    if batch.cancelling_unix_s is None:
        return False
    state = BatchState(status="cancelled", ended_unix_s=int(clock.unix_s()))
    Folder(settings().data_dir, batch.request.project_id).put_state(batch.request.id, state)
    return True


def _stop_if_asked(actor: Actor, job: JobView) -> None:
    batch_id = job.subject.partition(":")[2]
    batch = Folder(settings().data_dir, job.project_id).batch(batch_id)
    if batch is None or batch.cancelling_unix_s is None or job.cancel_requested:
        return
    with suppress(Conflict):  # it has just ended
        jobs.cancel(actor, job.id)


def _is_of_batch(job: JobView) -> bool:
    return job.kind == run_batch.kind


def _end_lost(folder: Folder) -> None:
    """End the batches that nobody works on, nor will."""
    known = folder.batch_ids()
    # Read behind them, since a note is there before its batch, and until there is a job.
    noted = {batch_id for _, batch_id in contract.new(folder.root.parent)}
    for batch_id in known:
        batch = folder.batch(batch_id)
        if batch is None or batch_id in noted or batch.state.status in ENDED:
            continue
        project_id = batch.request.project_id
        if jobs.find_active(Actor.system(), project_id, _subject(batch)) is None:
            fail(
                project_id,
                batch_id,
                BudError("Its job ended without an outcome.", remedy="Make a new batch."),
            )


def _prune_files(folder: Folder, oldest_unix_s: float) -> int:
    pruned = 0
    for file_id in folder.file_ids():
        file = folder.file(file_id)
        if file is None:
            continue
        ends_s = file.expires_unix_s
        if file.created_unix_s < oldest_unix_s or (ends_s and ends_s < clock.unix_s()):
            pruned += folder.delete_file(file_id)
    for torn in _torn(folder.own / FILES):
        torn.unlink(missing_ok=True)
    return pruned


def _torn(files: Path) -> Iterator[Path]:
    """What a gateway that was killed left of uploads, and deletes of theirs."""
    before_unix_s = clock.unix_s() - _TORN_AFTER_S
    for path in files.glob("file_*.content*"):
        is_whole = path.with_name(f"{path.name.partition('.')[0]}.json").exists()
        with suppress(FileNotFoundError):
            if not is_whole and path.stat().st_mtime < before_unix_s:
                yield path


def _prune_batches(folder: Folder, oldest_unix_s: float) -> int:
    pruned = 0
    for batch_id in folder.batch_ids():
        batch = folder.batch(batch_id)
        if batch is None:
            ended_unix_s = folder.of_batch(batch_id).stat().st_mtime  # torn
        else:
            ended_unix_s = batch.state.ended_unix_s or clock.unix_s()
        if ended_unix_s < oldest_unix_s:
            shutil.rmtree(folder.of_batch(batch_id))
            pruned += 1
    return pruned


def _folder(actor: Actor, permission: str, project_id: str) -> Folder:
    actor.require(permission, project_id)
    return Folder(settings().data_dir, projects.get_project(actor, project_id).id)


def _found(folder: Folder, batch_id: str) -> Batch:
    batch = folder.batch(batch_id)
    if batch is None:
        raise NotFound(f"There is no batch {batch_id}.", remedy="See: bud batches list")
    return batch


def _view(batch: Batch) -> BatchView:
    request, state = batch.request, batch.state
    ended = state.ended_unix_s
    first = state.errors[0] if state.errors else None
    error = None
    if first is not None:
        error = f"Line {first.line}: {first.message}" if first.line else first.message
    return BatchView(
        id=request.id,
        project_id=request.project_id,
        job_id=batch.job_id,
        key_id=request.key_id,
        endpoint=request.endpoint,
        model=state.model,
        status=batch.status,
        total=state.total,
        completed=state.completed,
        failed=state.failed,
        input_tokens=state.input_tokens,
        output_tokens=state.output_tokens,
        input_file_id=request.input_file_id,
        output_file_id=state.output_file_id if ended else None,
        error_file_id=state.error_file_id if ended else None,
        error=error,
        metadata=request.metadata or {},
        created_at=datetime.fromtimestamp(request.created_unix_s, UTC),
        expires_at=datetime.fromtimestamp(request.expires_unix_s, UTC),
        ended_at=None if ended is None else datetime.fromtimestamp(ended, UTC),
    )
