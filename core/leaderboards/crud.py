"""Every query of the leaderboards."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.leaderboards.models import BoardRefresh


def refresh(session: Session, refresh_id: str) -> BoardRefresh | None:
    """One fetch of a board."""
    return session.get(BoardRefresh, refresh_id)


def refreshes(
    session: Session, tenant_id: str, board: str | None = None, limit: int = 100
) -> list[BoardRefresh]:
    """The fetches of a tenant, the newest first."""
    query = select(BoardRefresh).where(BoardRefresh.tenant_id == tenant_id)
    if board is not None:
        query = query.where(BoardRefresh.board == board)
    newest = query.order_by(BoardRefresh.created_at.desc(), BoardRefresh.id.desc())
    return list(session.scalars(newest.limit(limit)))


def undecided(session: Session, tenant_id: str, board: str) -> list[BoardRefresh]:
    """Fetches of a board that nobody has applied or discarded yet."""
    return list(
        session.scalars(
            select(BoardRefresh).where(
                BoardRefresh.tenant_id == tenant_id,
                BoardRefresh.board == board,
                BoardRefresh.state == "found",
            )
        )
    )
