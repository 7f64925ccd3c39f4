"""Tables of saved chats, their messages, and votes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.kernel.database import Base, UtcDateTime


class ChatSession(Base):
    """A saved chat; only the person who began it sees it."""

    __tablename__ = "chat_sessions"
    __table_args__ = (Index(None, "project_id", "user_id", "updated_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40))
    user_id: Mapped[str] = mapped_column(String(40))
    title: Mapped[str] = mapped_column(String(120))
    settings: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ChatMessage(Base):
    """What a person said, or what a model answered.

    A question and its answers share `turn`; `lane` tells the answers of two models apart.
    """

    __tablename__ = "chat_messages"
    __table_args__ = (Index(None, "session_id", "turn"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("chat_sessions.id"))
    project_id: Mapped[str] = mapped_column(String(40), index=True)
    turn: Mapped[int]
    lane: Mapped[int] = mapped_column(default=0)
    role: Mapped[str] = mapped_column(String(20))
    model: Mapped[str] = mapped_column(String(120), default="")
    content: Mapped[str] = mapped_column(Text, default="")
    reasoning: Mapped[str] = mapped_column(Text, default="")
    state: Mapped[str] = mapped_column(String(20))
    finish_reason: Mapped[str] = mapped_column(String(40), default="")
    request_id: Mapped[str] = mapped_column(String(80), default="")
    ttft_ms: Mapped[float | None]
    tokens_per_s: Mapped[float | None]
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    cost_usd: Mapped[float | None]
    cost_basis: Mapped[str] = mapped_column(String(20), default="")
    error: Mapped[str] = mapped_column(Text, default="")
    remedy: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Vote(Base):
    """Which of two answers to the same question was better: `a`, `b`, `tie` or `neither`."""

    __tablename__ = "votes"
    __table_args__ = (UniqueConstraint("session_id", "turn"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(40), index=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("chat_sessions.id"))
    turn: Mapped[int]
    user_id: Mapped[str] = mapped_column(String(40))
    model_a: Mapped[str] = mapped_column(String(120))
    model_b: Mapped[str] = mapped_column(String(120))
    winner: Mapped[str] = mapped_column(String(10))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
