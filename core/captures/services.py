"""Use cases of captures: turn on, turn off, list, show, delete. docs/observability.md."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from core.captures import files
from core.captures.models import CaptureRow
from core.captures.schemas import CapturedRequest, CaptureView
from core.contracts.capture import Captured
from core.contracts.route_table import Capture
from core.kernel import audit, clock, database, events, ranges
from core.kernel.actor import Actor
from core.kernel.errors import NotFound
from core.projects import services as projects

__all__ = [
    "active_captures",
    "delete_captures",
    "forget_project",
    "get_capture",
    "list_captured",
    "prune",
    "set_capture",
    "show_captured",
    "turn_off",
    "turn_on",
]

MOST_DAYS = 365
MOST_MB = 10_000
DEFAULT_DAYS = 7
DEFAULT_MB = 100


def turn_on(
    actor: Actor, project_id: str, *, keep_days: int = DEFAULT_DAYS, max_mb: int = DEFAULT_MB
) -> CaptureView:
    """Keep the prompts and answers of a project from now on, redacted.

    Args:
        actor: An admin of the project.
        project_id: The project.
        keep_days: Days after which they are deleted.
        max_mb: What they may take on each gateway host; the oldest go first.

    Raises:
        InvalidInput: Out of range.
    """
    return set_capture(actor, project_id, enabled=True, keep_days=keep_days, max_mb=max_mb)


def set_capture(
    actor: Actor, project_id: str, *, enabled: bool, keep_days: int, max_mb: int
) -> CaptureView:
    """Turn it on or off, with how long and how much is kept: see `turn_on`.

    The days hold for what was kept before, too; off, they are what it begins with again.
    """
    ranges.require_within("Days until they are deleted", keep_days, 1, MOST_DAYS)
    ranges.require_within("What they may take, in MB", max_mb, 1, MOST_MB)
    return _set(actor, project_id, enabled=enabled, keep_days=keep_days, max_mb=max_mb)


def turn_off(actor: Actor, project_id: str) -> CaptureView:
    """Keep no more; what was kept stays until its days are over. NotFound when it never was on."""
    before = get_capture(actor, project_id)
    if before is None:
        raise NotFound("This project never kept prompts.", remedy="There is nothing to turn off.")
    return _set(actor, project_id, enabled=False, keep_days=before.keep_days, max_mb=before.max_mb)


def get_capture(actor: Actor, project_id: str) -> CaptureView | None:
    """What a project keeps; None when it never did."""
    project_id = _allowed(actor, "capture:read", project_id)
    with database.reading() as session:
        row = session.get(CaptureRow, project_id)
    if row is None:
        return None
    used_bytes = files.used_bytes(project_id)
    return CaptureView.model_validate(row).model_copy(update={"used_bytes": used_bytes})


def list_captured(actor: Actor, project_id: str, limit: int = 100) -> list[CapturedRequest]:
    """The newest captures, without their texts."""
    project_id = _allowed(actor, "capture:read", project_id)
    return [_view(captured) for captured in files.newest(project_id, limit)]


def show_captured(actor: Actor, project_id: str, request_id: str) -> CapturedRequest:
    """One request with its answer; that it was read stands in the audit log.

    Raises NotFound: it was not captured, or is deleted.
    """
    project_id = _allowed(actor, "capture:read", project_id)
    captured = files.find(project_id, request_id)
    if captured is None:
        raise NotFound(
            f"Request {request_id} was not captured, or is deleted.",
            remedy="See: bud captures list",
        )
    with database.transaction() as tx:
        audit.record(tx, actor, "capture.read", f"request:{request_id}"[:80], project_id=project_id)
    return _view(captured)


def delete_captures(actor: Actor, project_id: str) -> int:
    """Delete all that a project kept; how many files there were."""
    project_id = _allowed(actor, "capture:update", project_id)
    deleted = files.delete(project_id)
    with database.transaction() as tx:
        audit.record(
            tx, actor, "capture.deleted", f"project:{project_id}", project_id=project_id,
            files=deleted,
        )  # fmt: skip
    return deleted


def active_captures() -> dict[str, Capture]:
    """What the route table has for each project that keeps captures."""
    with database.reading() as session:
        rows = list(session.scalars(select(CaptureRow).where(CaptureRow.enabled)))
    return {
        row.project_id: Capture(keep_days=row.keep_days, max_bytes=row.max_mb * 1_000_000)
        for row in rows
    }


def prune(actor: Actor) -> int:
    """Delete the captures of all projects whose days are over; how many files. Admins only.

    A project that is no more may have left some: a worker wrote them before it heard of that.
    """
    actor.require("capture:delete")
    today = clock.now().date()
    with database.reading() as session:
        days = {row.project_id: row.keep_days for row in session.scalars(select(CaptureRow))}
    return sum(
        files.delete(each, today - timedelta(days=days[each]) if each in days else None)
        for each in files.projects()
    )


def forget_project(actor: Actor, project_id: str) -> None:
    """Delete what a project that goes away kept, and that it did."""
    actor.require("capture:update", project_id)
    with database.transaction() as tx:
        row = tx.get(CaptureRow, project_id)
        if row is not None:
            tx.delete(row)
    files.delete(project_id)
    events.publish("captures.changed")


def _set(
    actor: Actor, project_id: str, *, enabled: bool, keep_days: int, max_mb: int
) -> CaptureView:
    project_id = _allowed(actor, "capture:update", project_id)
    with database.transaction() as tx:
        row = tx.get(CaptureRow, project_id)
        if row is None:
            row = CaptureRow(project_id=project_id, tenant_id=actor.tenant_id)
            tx.add(row)
        row.enabled, row.keep_days, row.max_mb = enabled, keep_days, max_mb
        row.set_at, row.set_by_name = clock.now(), actor.name
        audit.record(
            tx,
            actor,
            "capture.on" if enabled else "capture.off",
            f"project:{project_id}",
            project_id=project_id,
            keep_days=keep_days,
            max_mb=max_mb,
        )
        view = CaptureView.model_validate(row)
    events.publish("captures.changed")
    return view.model_copy(update={"used_bytes": files.used_bytes(project_id)})


def _allowed(actor: Actor, permission: str, project_id: str) -> str:
    """The id of a project in which the actor has this permission. Raises NotFound."""
    actor.require(permission, project_id)
    return projects.get_project(actor, project_id).id


def _view(captured: Captured) -> CapturedRequest:
    return CapturedRequest(
        request_id=captured.request_id,
        at=datetime.fromtimestamp(captured.at_unix_s, UTC),
        endpoint=captured.endpoint,
        model=captured.model,
        key_id=captured.key_id,
        user_id=captured.user_id,
        status=captured.status,
        error_class=captured.error_class,
        request=captured.request,
        response=captured.response,
        request_cut=captured.request_cut,
        response_cut=captured.response_cut,
        redacted=captured.redacted,
    )
