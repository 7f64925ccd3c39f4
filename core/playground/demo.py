"""The saved chat of the demo project: two models side by side, with a vote."""

from __future__ import annotations

from datetime import datetime, timedelta

from core.kernel import audit, database, ids
from core.kernel.actor import Actor
from core.playground.models import ChatMessage, ChatSession, Vote
from core.playground.schemas import ChatSettings

_TITLE = "A late parcel (demo)"
_QUESTION = "A customer's parcel is three days late. Write the first sentence of our answer."
_ANSWERS = (
    "I am sorry that your parcel is late: I have asked the carrier where it is and will write "
    "to you again today.",
    "Thank you for your message. We regret to inform you that, owing to circumstances at the "
    "carrier, a delay in the delivery of your consignment has occurred.",
)
# TTFT in ms, tokens a second, input and output tokens, cost in USD.
_NUMBERS = (
    (204.0, 71.3, 38, 29, 0.0000231),
    (918.0, 32.4, 38, 34, 0.000154),
)


def add(actor: Actor, project_id: str, models: tuple[str, str], at: datetime) -> None:
    """Save the chat as `actor`'s own, as if it had been held at a moment with two models."""
    actor.require("playground:use", project_id)
    with database.transaction() as tx:
        chat = ChatSession(
            id=ids.new_id("chs"),
            tenant_id=actor.tenant_id,
            project_id=project_id,
            user_id=actor.user_id,
            title=_TITLE,
            settings=ChatSettings(models=list(models)).model_dump(),
            created_at=at,
            updated_at=at,
        )
        tx.add(chat)
        tx.flush()
        tx.add(_message(chat, role="user", content=_QUESTION))
        for lane, model in enumerate(models):
            tx.add(_answer(chat, lane, model))
        tx.add(
            Vote(
                id=ids.new_id("vot"),
                project_id=project_id,
                session_id=chat.id,
                turn=1,
                user_id=actor.user_id,
                model_a=models[0],
                model_b=models[1],
                winner="a",
                created_at=at + timedelta(minutes=1),
            )
        )
        audit.record(
            tx, actor, "chat.asked", f"chat:{chat.id}", project_id=project_id, turn=1, demo=True
        )


def _answer(chat: ChatSession, lane: int, model: str) -> ChatMessage:
    ttft_ms, tokens_per_s, input_tokens, output_tokens, cost_usd = _NUMBERS[lane]
    return _message(
        chat,
        role="assistant",
        content=_ANSWERS[lane],
        lane=lane,
        model=model,
        finish_reason="stop",
        ttft_ms=ttft_ms,
        tokens_per_s=tokens_per_s,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_usd=cost_usd,
        cost_basis="token price",
    )


def _message(chat: ChatSession, **values: str | float) -> ChatMessage:
    return ChatMessage(
        id=ids.new_id("msg"),
        session_id=chat.id,
        project_id=chat.project_id,
        turn=1,
        state="done",
        created_at=chat.created_at,
        **values,
    )
