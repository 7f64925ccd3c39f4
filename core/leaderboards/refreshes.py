"""Use cases of refreshing boards: fetch, look at the difference, apply or discard it, go back."""

from __future__ import annotations

from datetime import timedelta

import pandas as pd

from core import jobs
from core.kernel import audit, clock, database, ids
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, NotFound
from core.kernel.settings import settings
from core.leaderboards import crud, refresh, scores, settling, workflows
from core.leaderboards.adapters.boards import BOARDS
from core.leaderboards.models import BoardRefresh
from core.leaderboards.schemas import RefreshView

_PERMISSION = "leaderboard:refresh"
# Boards belong to no project, but every job does.
_PROJECT = "prj_default"


def start(
    actor: Actor, project_id: str, board: str, *, by_schedule: bool = False
) -> tuple[RefreshView, str]:
    """Fetch a board anew. Admins only.

    Args:
        actor: Who fetches.
        project_id: Whose job it is.
        board: Its name.
        by_schedule: Whether `BUD_REFRESH_APPLY` decides what becomes of what is found.

    Returns:
        The refresh, in state `fetching`, and the id of the job that fetches it.

    Raises:
        NotFound: The board has no connector; names those that have.
        Conflict: It is being fetched already.
    """
    actor.require(_PERMISSION)
    if board not in BOARDS:
        raise NotFound(
            f"The board {board!r} cannot be refreshed.",
            remedy=f"These can: {', '.join(BOARDS)}.",
        )
    subject = f"board:{board}"
    if jobs.find_active(actor, project_id, subject) is not None:
        raise Conflict(f"{board} is being fetched already.", remedy="Wait for its job.")
    row = BoardRefresh(
        id=ids.new_id("ref"),
        tenant_id=actor.tenant_id,
        board=board,
        state="fetching",
        source="",
        added=0,
        removed=0,
        changed=0,
        created_at=clock.now(),
    )
    with database.transaction() as tx:
        tx.add(row)
        audit.record(tx, actor, "board.fetched", f"board:{board}", refresh_id=row.id)
        job_id = jobs.enqueue(
            tx,
            actor,
            workflows.refresh_board,
            project_id=project_id,
            title=f"Refresh {board}",
            subject=subject,
            arguments={"refresh_id": row.id, "by_schedule": by_schedule},
        )
    return RefreshView.model_validate(row), job_id


def list_refreshes(actor: Actor, board: str | None = None) -> list[RefreshView]:
    """What was fetched, the newest first. Admins only."""
    actor.require(_PERMISSION)
    with database.reading() as session:
        rows = crud.refreshes(session, actor.tenant_id, board)
    return [RefreshView.model_validate(row) for row in rows]


def difference(actor: Actor, refresh_id: str) -> pd.DataFrame:
    """What a refresh that was found would change, see `refresh.difference`. Admins only."""
    actor.require(_PERMISSION)
    with database.reading() as session:
        row = settling.waiting(actor, crud.refresh(session, refresh_id), refresh_id)
        board = row.board
    fetched = scores.read(scores.pending_file(actor.tenant_id, refresh_id))
    return refresh.difference(scores.of_board(actor.tenant_id, board), fetched)


def apply(actor: Actor, refresh_id: str) -> RefreshView:
    """Let the fetched figures take the place of the board's. Admins only.

    Raises:
        Conflict: It was applied or discarded before, or is not fetched yet.
    """
    actor.require(_PERMISSION)
    return settling.settle(actor, refresh_id, "applied")


def discard(actor: Actor, refresh_id: str) -> RefreshView:
    """Leave the board as it is. Admins only."""
    actor.require(_PERMISSION)
    return settling.settle(actor, refresh_id, "discarded")


def revert(actor: Actor, board: str) -> None:
    """Go back to the figures that came with Bud. Admins only.

    Raises:
        Conflict: The board was not refreshed.
    """
    actor.require(_PERMISSION)
    path = scores.file_of(actor.tenant_id, board)
    if not path.exists():
        raise Conflict(f"{board} shows the figures that came with Bud.", value=board)
    with database.transaction() as tx:
        audit.record(tx, actor, "board.reverted", f"board:{board}")
        path.unlink()


def start_due(actor: Actor) -> list[str]:
    """Start to fetch the boards that are due by `BUD_REFRESH_BOARDS_DAYS`; which they are."""
    every_days = settings().refresh_boards_days
    boards = due(actor, every_days) if every_days else []
    for board in boards:
        start(actor, _PROJECT, board, by_schedule=True)
    return boards


def due(actor: Actor, every_days: int) -> list[str]:
    """Boards whose last fetch is that many days ago, or that were never fetched."""
    actor.require(_PERMISSION)
    since = clock.now() - timedelta(days=every_days)
    with database.reading() as session:
        rows = crud.refreshes(session, actor.tenant_id, limit=10_000)
    recent = {row.board for row in rows if row.created_at > since}
    return [board for board in BOARDS if board not in recent]
