"""`bud batches`, what is taken up and what is forgotten."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from app import cli
from app.commands import context
from core import jobs
from core.accounts import services as accounts
from core.batches import services as batches
from core.batches import workflows
from core.contracts import batch as contract
from core.contracts.batch import BatchRequest, BatchState, Folder, StoredFile
from core.kernel import clock, ids
from core.kernel.actor import Actor
from core.kernel.errors import NoCapacity, NotFound, PermissionDenied
from core.projects import services as projects

PROJECT = "prj_default"


@pytest.fixture
def folder(data_dir: Path) -> Folder:
    accounts.bootstrap("admin@example.org", None)
    projects.bootstrap()
    return Folder(data_dir, PROJECT)


@pytest.fixture
def bud(
    folder: Folder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Run a command with `--json`; what it printed, decoded."""
    context.operator.cache_clear()
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: PTH123, SIM115

    def _run(*arguments: str, status: int = 0) -> Any:
        found = cli.main([*arguments, "--json"])
        printed = capsys.readouterr()
        assert found == status, printed.err
        return json.loads(printed.out if status == 0 else printed.err)

    yield _run
    context.operator.cache_clear()


def asked(folder: Folder, project_id: str = PROJECT, *, days_old: int = 0) -> str:
    """A batch that a caller asked for."""
    now_s = int(clock.unix_s()) - days_old * 86_400
    request = BatchRequest(
        id=ids.new_id("batch"),
        project_id=project_id,
        key_id="key_a",
        user_id="usr_a",
        endpoint="/v1/embeddings",
        input_file_id=ids.new_id("file"),
        created_unix_s=now_s,
        expires_unix_s=now_s + 86_400,
    )
    folder.add_batch(request)
    return request.id


def test_commands(bud: Callable[..., Any], folder: Folder) -> None:
    first, second = sorted((asked(folder), asked(folder)))
    folder.put_state(first, BatchState(status="in_progress", total=9, completed=3, failed=1))
    assert [each["id"] for each in bud("batches", "list")] == [second, first]
    shown = bud("batches", "show", first)
    assert (shown["status"], shown["total"], shown["completed"]) == ("in_progress", 9, 3)
    assert bud("batches", "cancel", first, "--yes")["status"] == "cancelling"
    folder.put_state(first, BatchState(status="cancelled", ended_unix_s=int(clock.unix_s())))
    assert "already ended" in bud("batches", "cancel", first, "--yes", status=5)["error"]["what"]
    assert "bud batches list" in bud("batches", "show", "batch_x", status=4)["error"]["remedy"]


def test_two_run_at_once_and_projects_take_turns(folder: Folder, admin: Actor) -> None:
    other = Folder(folder.root.parent, projects.create_project(admin, "other").id)
    # Ids of one millisecond are in no order.
    mine = sorted(asked(folder) for _ in range(3))
    theirs = asked(other, other.own.name)
    assert batches.take_up() == 2
    running = {job.subject for job in jobs.list_jobs(admin, None, active_only=True)}
    assert running == {f"batch:{mine[0]}", f"batch:{theirs}"}
    # As if it had been killed between the job and the note that there is one.
    note = folder.root / contract.NEW / mine[0]
    note.write_text(PROJECT)
    job = jobs.find_active(admin, PROJECT, f"batch:{mine[0]}")
    assert job is not None
    jobs.cancel(admin, job.id)
    assert batches.take_up() == 1
    running = {job.subject for job in jobs.list_jobs(admin, None, active_only=True)}
    assert running == {f"batch:{mine[1]}", f"batch:{theirs}"}
    assert [batch_id for _, batch_id in contract.new(folder.root.parent)] == [mine[2]]
    # One that is cancelled before it began needs no job.
    batches.cancel_batch(admin, PROJECT, mine[2])
    folder.cancel(mine[1])
    batches.take_up()
    assert batches.get_batch(admin, PROJECT, mine[2]).status == "cancelled"
    assert jobs.find_active(admin, PROJECT, f"batch:{mine[1]}") is None


def test_a_batch_fails_when_its_input_goes_or_there_is_no_room(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*_: object) -> None:
        pass

    progress: Any = SimpleNamespace(log=nothing, update=nothing, check=nothing)
    batch_id = asked(folder)
    with pytest.raises(NotFound, match="was deleted"):
        workflows._ask(progress, PROJECT, batch_id)
    (folder.of_batch(batch_id) / contract.RESULTS).write_bytes(bytes(2_000_000))
    monkeypatch.setattr(workflows, "_ROOM_S", 0.0)
    with pytest.raises(NoCapacity, match="limit of 1 MB"):
        workflows._Room(folder.root.parent, 1).check()


def test_one_torn_batch_does_not_stop_the_others(folder: Folder) -> None:
    torn, whole = sorted((asked(folder), asked(folder)))
    (folder.of_batch(torn) / contract.REQUEST).write_bytes(b"")
    assert batches.take_up() == 1
    assert [each.id for each in batches.list_batches(Actor.system(), PROJECT)] == [whole]
    # Its request may be about to come, for a minute.
    note = folder.root / contract.NEW / torn
    assert note.exists()
    os.utime(note, (clock.unix_s() - 61,) * 2)
    batches.take_up()
    assert not note.exists()


def test_what_is_old_is_forgotten(folder: Folder, admin: Actor) -> None:
    now_s = int(clock.unix_s())

    def keep(**fields: Any) -> str:
        file_id = ids.new_id("file")
        path = folder.content(file_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}\n")
        known = {"filename": "a", "purpose": "batch", "size_bytes": 3, "created_unix_s": now_s}
        folder.add_file(msgspec.convert({"id": file_id, **known, **fields}, StoredFile))
        return file_id

    stays = keep()
    keep(created_unix_s=now_s - 31 * 86_400)
    keep(expires_unix_s=now_s - 1)
    torn = folder.content(ids.new_id("file")).with_suffix(".content.partial")
    torn.write_bytes(b"torn")
    os.utime(torn, (now_s - 100_000,) * 2)
    lost = asked(folder)
    folder.put_state(lost, BatchState(status="in_progress", total=3))
    contract.taken_up(folder.root.parent, lost)
    old, new = asked(folder, days_old=40), asked(folder)
    for each, days_old in ((old, 39), (new, 0)):
        ended_s = now_s - days_old * 86_400
        folder.put_state(each, BatchState(status="completed", ended_unix_s=ended_s))
    broken = folder.of_batch(asked(folder, days_old=40))
    (broken / contract.REQUEST).write_bytes(b"")
    os.utime(broken, (now_s - 40 * 86_400,) * 2)
    gone = Folder(folder.root.parent, "prj_gone")
    asked(gone, "prj_gone")
    assert batches.prune(admin) == 5
    assert (folder.file_ids(), folder.batch_ids()) == ([stays], sorted([lost, new]))
    view = batches.get_batch(admin, PROJECT, lost)
    assert (view.status, view.error) == (
        "failed", "Its job ended without an outcome. Make a new batch.",
    )  # fmt: skip
    assert not torn.exists()
    assert not gone.own.exists()
    stranger = Actor("usr_x", "X", admin.tenant_id)
    with pytest.raises(PermissionDenied):
        batches.list_batches(stranger, PROJECT)
    with pytest.raises(NotFound):
        batches.get_batch(admin, PROJECT, "../../etc")
    batches.forget_project(admin, PROJECT)
    assert not folder.own.exists()
