"""Every query of the Playground."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from core.playground.models import ChatMessage, ChatSession, Vote


def session(tx: Session, session_id: str) -> ChatSession | None:
    """One chat."""
    return tx.get(ChatSession, session_id)


def sessions(
    tx: Session, project_id: str, user_id: str, search: str, limit: int
) -> list[ChatSession]:
    """The chats of a person in a project, newest first."""
    query = select(ChatSession).where(
        ChatSession.project_id == project_id, ChatSession.user_id == user_id
    )
    if search:
        query = query.where(ChatSession.title.icontains(search, autoescape=True))
    return list(tx.scalars(query.order_by(ChatSession.updated_at.desc()).limit(limit)))


def messages(tx: Session, session_id: str) -> list[ChatMessage]:
    """The messages of a chat in order: the question of each turn, then its answers."""
    query = select(ChatMessage).where(ChatMessage.session_id == session_id)
    rows = list(tx.scalars(query.order_by(ChatMessage.turn, ChatMessage.lane)))
    return sorted(rows, key=lambda row: (row.turn, row.role != "user", row.lane))


def last_turn(tx: Session, session_id: str) -> int:
    """The number of the newest turn; 0 before the first."""
    query = select(func.max(ChatMessage.turn)).where(ChatMessage.session_id == session_id)
    return tx.scalar(query) or 0


def set_message(tx: Session, message_id: str, **values: object) -> None:
    """Change one message."""
    tx.execute(update(ChatMessage).where(ChatMessage.id == message_id).values(**values))


def delete_answers(tx: Session, session_id: str, turn: int) -> None:
    """Delete the answers of a turn, and the vote on them."""
    tx.execute(
        delete(ChatMessage).where(
            ChatMessage.session_id == session_id,
            ChatMessage.turn == turn,
            ChatMessage.role == "assistant",
        )
    )
    tx.execute(delete(Vote).where(Vote.session_id == session_id, Vote.turn == turn))


def delete_sessions(tx: Session, session_ids: Sequence[str]) -> None:
    """Delete chats with their messages; votes go with them."""
    for table in (Vote, ChatMessage):
        tx.execute(delete(table).where(table.session_id.in_(session_ids)))
    tx.execute(delete(ChatSession).where(ChatSession.id.in_(session_ids)))


def session_ids(tx: Session, project_id: str) -> list[str]:
    """Every chat of a project."""
    return list(tx.scalars(select(ChatSession.id).where(ChatSession.project_id == project_id)))


def vote(tx: Session, session_id: str, turn: int) -> Vote | None:
    """The vote on one turn."""
    query = select(Vote).where(Vote.session_id == session_id, Vote.turn == turn)
    return tx.scalar(query)


def votes(
    tx: Session, *, session_id: str | None = None, project_id: str | None = None
) -> list[Vote]:
    """The votes of a chat or of a project."""
    query = select(Vote)
    if session_id is not None:
        query = query.where(Vote.session_id == session_id)
    if project_id is not None:
        query = query.where(Vote.project_id == project_id)
    return list(tx.scalars(query))
