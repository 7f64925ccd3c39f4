"""Use cases of response caches: turn on, turn off, show, purge. docs/cache.md."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select

from core.contracts.route_table import Cache
from core.kernel import audit, clock, database, events, ranges
from core.kernel.actor import Actor
from core.kernel.errors import NotFound
from core.kernel.settings import settings
from core.projects import services as projects
from core.response_cache import files
from core.response_cache.models import ResponseCacheRow
from core.response_cache.schemas import ResponseCacheView

__all__ = [
    "active_caches",
    "check_sizes",
    "forget_project",
    "get_cache",
    "purge",
    "turn_off",
    "turn_on",
]

LONGEST_S = 30 * 86_400
MOST_MB = 10_000
DEFAULT_TTL_S = 3600
DEFAULT_MB = 100


def turn_on(
    actor: Actor,
    project_id: str,
    *,
    ttl_s: int = DEFAULT_TTL_S,
    max_mb: int = DEFAULT_MB,
    all_requests: bool = False,
) -> ResponseCacheView:
    """Keep the answers of a project from now on, and give them again to the same request.

    Args:
        actor: An admin of the project.
        project_id: The project.
        ttl_s: For how long, in seconds.
        max_mb: What they may take on each gateway host; those used longest ago go first.
        all_requests: Also of requests that do not ask for the same answer each time.

    Raises:
        InvalidInput: Out of range.
    """
    check_sizes(ttl_s, max_mb)

    def change(row: ResponseCacheRow) -> None:
        row.enabled, row.ttl_s, row.max_mb, row.all_requests = True, ttl_s, max_mb, all_requests

    return _changed(actor, project_id, "cache.on", change)


def check_sizes(ttl_s: int, max_mb: int) -> None:
    """Raises InvalidInput: answers cannot be kept so long, or take so much."""
    ranges.require_within("Given again for (s)", ttl_s, 1, LONGEST_S)
    ranges.require_within("What they may take (MB)", max_mb, 1, MOST_MB)


def turn_off(actor: Actor, project_id: str) -> ResponseCacheView:
    """Keep no more, and delete what was kept. NotFound when it never was on."""
    _existing(actor, project_id)

    def change(row: ResponseCacheRow) -> None:
        row.enabled = False
        row.generation += 1

    return _changed(actor, project_id, "cache.off", change)


def purge(actor: Actor, project_id: str) -> ResponseCacheView:
    """Delete all that a project kept: within a second nothing of it is given any more."""
    _existing(actor, project_id)

    def change(row: ResponseCacheRow) -> None:
        row.generation += 1

    return _changed(actor, project_id, "cache.purged", change)


def get_cache(actor: Actor, project_id: str) -> ResponseCacheView | None:
    """What a project keeps; None when it never did."""
    project_id = _allowed(actor, "cache:read", project_id)
    with database.reading() as session:
        row = session.get(ResponseCacheRow, project_id)
    return None if row is None else _view(row)


def active_caches() -> dict[str, Cache]:
    """What the route table has for each project that keeps answers."""
    with database.reading() as session:
        rows = list(session.scalars(select(ResponseCacheRow).where(ResponseCacheRow.enabled)))
    return {
        row.project_id: Cache(
            ttl_s=row.ttl_s,
            max_bytes=row.max_mb * 1_000_000,
            all_requests=row.all_requests,
            generation=row.generation,
        )
        for row in rows
    }


def forget_project(actor: Actor, project_id: str) -> None:
    """Forget that a project that goes away kept answers; the gateway deletes them."""
    actor.require("cache:update", project_id)
    with database.transaction() as tx:
        row = tx.get(ResponseCacheRow, project_id)
        if row is not None:
            tx.delete(row)
    events.publish("caches.changed")


def _existing(actor: Actor, project_id: str) -> None:
    if get_cache(actor, project_id) is None:
        raise NotFound("This project never kept answers.", remedy="Turn it on first: bud cache on")


def _changed(
    actor: Actor, project_id: str, action: str, change: Callable[[ResponseCacheRow], None]
) -> ResponseCacheView:
    project_id = _allowed(actor, "cache:update", project_id)
    with database.transaction() as tx:
        row = tx.get(ResponseCacheRow, project_id)
        if row is None:
            row = ResponseCacheRow(
                project_id=project_id, tenant_id=actor.tenant_id, enabled=False, generation=0
            )
            tx.add(row)
        change(row)
        row.set_at, row.set_by_name = clock.now(), actor.name
        audit.record(
            tx, actor, action, f"project:{project_id}", project_id=project_id, ttl_s=row.ttl_s,
            max_mb=row.max_mb, all_requests=row.all_requests,
        )  # fmt: skip
        view = _view(row)
    events.publish("caches.changed")
    return view


def _view(row: ResponseCacheRow) -> ResponseCacheView:
    answers, used_bytes = (None, None) if settings().valkey_url else files.used(row.project_id)
    found = ResponseCacheView.model_validate(row)
    return found.model_copy(update={"answers": answers, "used_bytes": used_bytes})


def _allowed(actor: Actor, permission: str, project_id: str) -> str:
    """The id of a project in which the actor has this permission. Raises NotFound."""
    actor.require(permission, project_id)
    return projects.get_project(actor, project_id).id
