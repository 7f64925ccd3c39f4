"""Captures of a project: turned on, published, read, deleted, too old."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from core.captures import services as captures
from core.contracts import route_table
from core.contracts.capture import FOLDER_NAME, Captured
from core.contracts.route_table import Capture
from core.kernel import audit, clock
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound, PermissionDenied
from core.projects import services as projects
from core.routing import services as routing

PROJECT = "prj_default"


@pytest.fixture
def project(data_dir: Path) -> str:
    from core.accounts import services as accounts

    accounts.bootstrap("ada@example.org", None)
    projects.bootstrap()
    return PROJECT


def keep(data_dir: Path, *request_ids: str, days_ago: int = 0) -> None:
    at = clock.now() - timedelta(days=days_ago)
    path = data_dir / FOLDER_NAME / PROJECT / f"{at.date()}.gww_1.ndjson"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        msgspec.json.encode(
            Captured(
                request_id=request_id, at_unix_s=at.timestamp() + number, endpoint="messages",
                model="smol", key_id="key_1", user_id="usr_1", status=200, request="Hello",
                response="World",
            )
        )
        for number, request_id in enumerate(request_ids)
    ]  # fmt: skip
    # A crash tore the last line.
    path.write_bytes(b"\n".join([*lines, b'{"request_id": "to']))


def test_a_project_turns_it_on_and_off_and_the_table_says_so(project: str, admin: Actor) -> None:
    routing.subscribe()

    def published() -> Capture | None:
        return route_table.decode(routing.table_path().read_bytes()).projects[0].capture

    assert captures.get_capture(admin, project) is None
    with pytest.raises(NotFound):
        captures.turn_off(admin, project)
    on = captures.turn_on(admin, project, keep_days=3, max_mb=5)
    assert (on.enabled, published()) == (True, Capture(keep_days=3, max_bytes=5_000_000))
    off = captures.turn_off(admin, project)
    assert (off.enabled, off.keep_days, published()) == (False, 3, None)
    actions = [entry.action for entry in audit.entries(admin, project)]
    assert [each for each in actions if "capture" in each] == ["capture.off", "capture.on"]
    for days, megabytes in ((0, 5), (366, 5), (3, 0), (3, 10_001)):
        with pytest.raises(InvalidInput):
            captures.turn_on(admin, project, keep_days=days, max_mb=megabytes)
    with pytest.raises(InvalidInput, match="are deleted: -1 is out of range"):
        captures.set_capture(admin, project, enabled=False, keep_days=-1, max_mb=5)
    changed = captures.set_capture(admin, project, enabled=False, keep_days=2, max_mb=4)
    assert (changed.enabled, changed.keep_days, changed.max_mb) == (False, 2, 4)


def test_only_admins_read_and_reading_is_audited(
    project: str, data_dir: Path, admin: Actor
) -> None:
    captures.turn_on(admin, project)
    keep(data_dir, "req_old", days_ago=1)
    keep(data_dir, "req_1", "req_2")
    found = captures.list_captured(admin, project)
    assert [each.request_id for each in found] == ["req_2", "req_1", "req_old"]
    assert {each.request for each in found} == {""}
    newest_two = captures.list_captured(admin, "Default", limit=2)
    assert [each.request_id for each in newest_two] == ["req_2", "req_1"]
    assert captures.show_captured(admin, project, "req_1").response == "World"
    assert audit.entries(admin, project)[0].action == "capture.read"
    with pytest.raises(NotFound):
        captures.show_captured(admin, project, "req_gone")
    member = Actor("usr_b", "Bo", admin.tenant_id, projects={project: "member"})
    for reading in (captures.list_captured, captures.get_capture, captures.turn_on):
        with pytest.raises(PermissionDenied):
            reading(member, project)
    view = captures.get_capture(admin, project)
    assert view is not None
    assert view.used_bytes > 0
    assert captures.delete_captures(admin, project) == 2
    assert captures.list_captured(admin, project) == []


def test_what_is_too_old_goes_also_when_it_is_off(
    project: str, data_dir: Path, admin: Actor
) -> None:
    captures.turn_on(admin, project, keep_days=2)
    captures.turn_off(admin, project)
    for days_ago in (0, 2, 3, 9):
        keep(data_dir, f"req_{days_ago}", days_ago=days_ago)
    assert captures.prune(admin) == 2
    assert [each.request_id for each in captures.list_captured(admin, project)] == [
        "req_0", "req_2",
    ]  # fmt: skip


def test_what_a_deleted_project_left_goes(project: str, data_dir: Path, admin: Actor) -> None:
    captures.turn_on(admin, project)
    keep(data_dir, "req_1")
    captures.forget_project(admin, project)
    keep(data_dir, "req_2")  # by a worker that had not heard of it yet
    assert captures.prune(admin) == 1
    assert captures.list_captured(admin, project) == []


def test_of_requests_with_one_id_the_newest_is_shown(
    project: str, data_dir: Path, admin: Actor
) -> None:
    captures.turn_on(admin, project)
    keep(data_dir, "req_1", "req_2", "req_1")
    (newest, _, oldest) = captures.list_captured(admin, project)
    shown = captures.show_captured(admin, project, "req_1")
    assert oldest.at < newest.at == shown.at
