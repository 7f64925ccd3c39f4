"""Use cases of the Playground: chats, answers, votes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from core.accounts import api_keys
from core.deployments import hosted
from core.deployments import services as deployments
from core.kernel import audit, clock, database, ids
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, InvalidInput, NotFound
from core.kernel.settings import settings
from core.metrics import services as metrics
from core.metrics.schemas import RequestCost
from core.playground import answers, crud
from core.playground.adapters import raw
from core.playground.adapters.gateway import ChatStream, Finished
from core.playground.adapters.raw import RawAnswer, Upload
from core.playground.answers import Answer
from core.playground.endpoints import ApiEndpoint
from core.playground.models import ChatMessage, ChatSession, Vote
from core.playground.schemas import (
    ChatRequest,
    ChatSettings,
    ChatView,
    Endpoint,
    MessageView,
    ModelVotes,
    SessionView,
    Turn,
    Winner,
)
from core.routing import rules

_TITLE_CHARACTERS = 60


def chat_models(actor: Actor, project_id: str) -> list[str]:
    """The names that answer chats: ready deployments, hosted endpoints, routes over both."""
    found = deployments.list_deployments(actor, project_id)
    ready = [
        view.name
        for view in found
        if view.state in ("ready", "degraded") and "chat" in deployments.capabilities(actor, view)
    ]
    every = [*ready, *hosted.names(actor, project_id, "chat")]
    return [*every, *rules.shared_names(actor, project_id, "chat")]


def list_sessions(
    actor: Actor, project_id: str, *, search: str = "", limit: int = 200
) -> list[SessionView]:
    """The actor's own chats in a project, newest first; `search` looks in the titles."""
    actor.require("playground:use", project_id)
    with database.reading() as session:
        rows = crud.sessions(session, project_id, actor.user_id, search.strip(), limit)
    return [SessionView.model_validate(row) for row in rows]


def get_session(actor: Actor, session_id: str) -> ChatView:
    """A chat with everything that was said. NotFound when it is not the actor's own."""
    with database.reading() as session:
        row = _own(actor, session, session_id)
        messages = crud.messages(session, session_id)
        votes = {vote.turn: vote.winner for vote in crud.votes(session, session_id=session_id)}
    views: dict[int, list[MessageView]] = {}
    for message in messages:
        views.setdefault(message.turn, []).append(_view(message))
    turns = [
        Turn(
            number=number,
            question=spoken[0],
            answers=spoken[1:],
            vote=votes.get(number),
        )
        for number, spoken in views.items()
    ]
    return ChatView(session=SessionView.model_validate(row), turns=turns)


def _view(message: ChatMessage) -> MessageView:
    view = MessageView.model_validate(message)
    if view.state == "streaming" and not answers.is_live(message.id):
        # Its writer is gone: the app was stopped or killed in the middle.
        return view.model_copy(update={"state": "interrupted"})
    return view


def ask(
    actor: Actor,
    project_id: str,
    question: str,
    chat_settings: ChatSettings,
    *,
    session_id: str | None = None,
) -> str:
    """Ask one model, or two side by side; the answers are written in the background.

    Args:
        actor: Who asks.
        project_id: In which project.
        question: What is asked.
        chat_settings: Models and parameters, from here on.
        session_id: The chat to go on with; None begins a new one.

    Returns:
        The id of the chat; `live_answers` gives the answers being written.

    Raises:
        InvalidInput: An empty question, or no model.
        Conflict: The last question is still being answered.
    """
    actor.require("playground:use", project_id)
    if not question.strip():
        raise InvalidInput("The message is empty.", remedy="Write something.")
    _check_models(chat_settings)
    if session_id is not None:
        _require_quiet(session_id)
    with database.transaction() as tx:
        row = (
            _new_session(tx, actor, project_id, question)
            if session_id is None
            else _own(actor, tx, session_id)
        )
        row.settings = chat_settings.model_dump()
        row.updated_at = clock.now()
        turn = crud.last_turn(tx, row.id) + 1
        tx.add(_message(row, turn, "user", question.strip()))
        audit.record(
            tx, actor, "chat.asked", f"chat:{row.id}", project_id=row.project_id, turn=turn
        )
    _answer(actor, row.id, turn, chat_settings)
    return row.id


def regenerate(actor: Actor, session_id: str, chat_settings: ChatSettings) -> None:
    """Answer the last question again, in place of the answers it had.

    Raises:
        InvalidInput: No model.
        Conflict: There is no question yet, or it is still being answered.
    """
    edit_last_question(actor, session_id, None, chat_settings)


def regenerate_shorter(actor: Actor, session_id: str, chat_settings: ChatSettings) -> ChatSettings:
    """Answer the last question again without the older half of what is sent; how it was asked.

    Raises:
        InvalidInput: No model.
        Conflict: Only the last question is sent already, or it is still being answered.
    """
    last = get_session(actor, session_id).turns[-1].number
    if chat_settings.first_turn >= last:
        raise Conflict(
            "Nothing but your last message is sent already.", remedy="Send a shorter one."
        )
    first_turn = last - (last - chat_settings.first_turn) // 2
    shorter = chat_settings.model_copy(update={"first_turn": first_turn})
    edit_last_question(actor, session_id, None, shorter)
    return shorter


def edit_last_question(
    actor: Actor, session_id: str, question: str | None, chat_settings: ChatSettings
) -> None:
    """Change the last question and answer it anew; None keeps its words.

    Raises:
        InvalidInput: An empty question, or no model.
        Conflict: There is no question yet, or it is still being answered.
    """
    if question is not None and not question.strip():
        raise InvalidInput("The message is empty.", remedy="Write something.")
    _check_models(chat_settings)
    _require_quiet(session_id)
    with database.transaction() as tx:
        row = _own(actor, tx, session_id)
        turn = crud.last_turn(tx, session_id)
        if turn == 0:
            raise Conflict("There is no question yet.", remedy="Ask something first.")
        crud.delete_answers(tx, session_id, turn)
        row.settings, row.updated_at = chat_settings.model_dump(), clock.now()
        if question is not None:
            asked = next(m for m in crud.messages(tx, session_id) if m.turn == turn)
            asked.content = question.strip()
        audit.record(
            tx, actor, "chat.asked_again", f"chat:{row.id}", project_id=row.project_id, turn=turn
        )
    _answer(actor, session_id, turn, chat_settings)


def live_answers(actor: Actor, session_id: str) -> list[Answer]:
    """The answers of a chat that are being written now, by lane."""
    with database.reading() as session:
        _own(actor, session, session_id)
    return answers.live(session_id)


def stop(actor: Actor, session_id: str) -> None:
    """Stop the answers being written; what came so far is kept."""
    for answer in live_answers(actor, session_id):
        answer.stop()
        answer.wait(5)


def rename_session(actor: Actor, session_id: str, title: str) -> None:
    """Give a chat another title."""
    title = title.strip()[:120]
    if not title:
        raise InvalidInput("The chat needs a title.", remedy="Write at least one letter.")
    with database.transaction() as tx:
        row = _own(actor, tx, session_id)
        row.title = title
        audit.record(
            tx, actor, "chat.renamed", f"chat:{row.id}", project_id=row.project_id, title=title
        )


def delete_session(actor: Actor, session_id: str) -> None:
    """Delete a chat with its messages and votes."""
    stop(actor, session_id)
    with database.transaction() as tx:
        row = _own(actor, tx, session_id)
        audit.record(tx, actor, "chat.deleted", f"chat:{row.id}", project_id=row.project_id)
        crud.delete_sessions(tx, [session_id])


def vote(actor: Actor, session_id: str, turn: int, winner: Winner | None) -> None:
    """Say which of two answers was better; None takes the vote back.

    Raises:
        Conflict: The turn does not have two finished answers.
    """
    with database.transaction() as tx:
        row = _own(actor, tx, session_id)
        spoken = [m for m in crud.messages(tx, session_id) if m.turn == turn]
        given = [m for m in spoken if m.role == "assistant" and m.state in ("done", "stopped")]
        if len(given) != 2:
            raise Conflict("There are not two answers to compare.", remedy="Wait for both.")
        known = crud.vote(tx, session_id, turn)
        if known is not None:
            tx.delete(known)
            tx.flush()
        if winner is not None:
            tx.add(_new_vote(actor, row, turn, given, winner))
        audit.record(
            tx,
            actor,
            "chat.voted",
            f"chat:{row.id}",
            project_id=row.project_id,
            turn=turn,
            winner=winner or "none",
        )


def vote_summary(actor: Actor, project_id: str) -> list[ModelVotes]:
    """How each model did in the project's side-by-side votes, best first."""
    actor.require("playground:use", project_id)
    with database.reading() as session:
        rows = crud.votes(session, project_id=project_id)
    wins: Counter[str] = Counter()
    losses: Counter[str] = Counter()
    ties: Counter[str] = Counter()
    for row in rows:
        if row.winner in ("a", "b"):
            best, other = row.model_a, row.model_b
            if row.winner == "b":
                best, other = other, best
            wins[best] += 1
            losses[other] += 1
        else:
            ties.update((row.model_a, row.model_b))
    summary = []
    for model in {*wins, *losses, *ties}:
        comparisons = wins[model] + losses[model] + ties[model]
        summary.append(
            ModelVotes(
                model=model,
                comparisons=comparisons,
                wins=wins[model],
                losses=losses[model],
                ties=ties[model],
                win_share=(wins[model] + ties[model] / 2) / comparisons,
            )
        )
    return sorted(summary, key=lambda row: (-row.win_share, -row.comparisons, row.model))


def request_of(chat: ChatView | None, chat_settings: ChatSettings, lane: int = 0) -> ChatRequest:
    """The request that the chat's last question makes; a greeting before the first one."""
    models = chat_settings.models
    model = models[lane] if lane < len(models) else "MODEL"
    turns = chat.turns if chat is not None else []
    return _request(turns, turns[-1].number if turns else 0, lane, model, chat_settings)


def forget_project(actor: Actor, project_id: str) -> int:
    """Delete every chat of a project that goes away; how many there were."""
    actor.require("project:delete", project_id)
    with database.transaction() as tx:
        found = crud.session_ids(tx, project_id)
        crud.delete_sessions(tx, found)
        audit.record(
            tx,
            actor,
            "chat.forgotten",
            f"project:{project_id}",
            project_id=project_id,
            chats=len(found),
        )
    return len(found)


def _check_models(chat_settings: ChatSettings) -> None:
    if not chat_settings.models:
        raise InvalidInput("No model is chosen.", remedy="Deploy a model, then choose it here.")


def _require_quiet(session_id: str) -> None:
    if answers.live(session_id):
        raise Conflict("The last question is still being answered.", remedy="Stop it, or wait.")


def chat_stream(actor: Actor, project_id: str, request: ChatRequest) -> ChatStream:
    """One streamed answer that is not saved, with the actor's Playground key (`bud chat`)."""
    key = api_keys.playground_key(actor, project_id)
    return ChatStream(Endpoint(base_url=settings().local_gateway_url, key=key), request)


def try_it(
    actor: Actor,
    project_id: str,
    endpoint: ApiEndpoint,
    body: Mapping[str, Any],
    file: Upload | None = None,
) -> AbstractContextManager[RawAnswer]:
    """One request to the gateway with the actor's Playground key; it counts as any other.

    With a file it goes as a form.

    Raises:
        Unavailable: The gateway cannot be reached; when the block is entered.
    """
    key = api_keys.playground_key(actor, project_id)
    there = Endpoint(base_url=settings().local_gateway_url, key=key)
    return raw.send(there, endpoint.path, body, file)


def _answer(actor: Actor, session_id: str, turn: int, chat_settings: ChatSettings) -> None:
    """Begin the answers to the question of a turn, one a model."""
    chat = get_session(actor, session_id)
    project_id = chat.session.project_id
    key = api_keys.playground_key(actor, project_id)
    endpoint = Endpoint(base_url=settings().local_gateway_url, key=key)
    for lane, model in enumerate(chat_settings.models):
        request = _request(chat.turns, turn, lane, model, chat_settings)
        with database.transaction() as tx:
            row = _own(actor, tx, session_id)
            message = _message(row, turn, "assistant", "", lane=lane, model=model)
            tx.add(message)
        cost = partial(_cost, actor, project_id, model)
        answers.begin(Answer(session_id, message.id, lane, endpoint, request, cost))


def _cost(actor: Actor, project_id: str, model: str, finished: Finished) -> RequestCost:
    return metrics.estimate_cost(
        actor,
        project_id,
        model,
        duration_ms=finished.duration_ms,
        input_tokens=finished.input_tokens,
        output_tokens=finished.output_tokens,
        cached_tokens=finished.cached_tokens,
        began=finished.ttft_ms is not None or finished.input_tokens is not None,
    )


def _request(
    turns: list[Turn], until: int, lane: int, model: str, chat_settings: ChatSettings
) -> ChatRequest:
    messages: list[dict[str, str]] = []
    if chat_settings.system_prompt.strip():
        messages.append({"role": "system", "content": chat_settings.system_prompt.strip()})
    for turn in turns:
        if turn.number < chat_settings.first_turn:
            continue
        asked = {"role": "user", "content": turn.question.content}
        given = _answer_of(turn, lane)
        if turn.number == until:
            messages.append(asked)
        elif given is not None:
            # A question that was never answered is left out: many chat templates refuse two
            # messages of the same role in a row.
            messages += [asked, {"role": "assistant", "content": given.content}]
    if not turns:
        messages.append({"role": "user", "content": "Hello"})
    return ChatRequest(
        model=model,
        messages=messages,
        temperature=chat_settings.temperature,
        top_p=chat_settings.top_p,
        max_tokens=chat_settings.max_tokens,
        seed=chat_settings.seed,
        stop=chat_settings.stop or None,
    )


def _answer_of(turn: Turn, lane: int) -> MessageView | None:
    """The lane's answer, or the only one from before there was a second model."""
    given = [answer for answer in turn.answers if answer.content]
    same = [answer for answer in given if answer.lane == lane]
    return next(iter(same or given), None)


def _new_session(tx: Session, actor: Actor, project_id: str, question: str) -> ChatSession:
    first_line = " ".join(question.split())
    title = first_line[:_TITLE_CHARACTERS].rstrip()
    now = clock.now()
    row = ChatSession(
        id=ids.new_id("chs"),
        tenant_id=actor.tenant_id,
        project_id=project_id,
        user_id=actor.user_id,
        title=f"{title}…" if len(first_line) > _TITLE_CHARACTERS else title,
        settings={},
        created_at=now,
        updated_at=now,
    )
    tx.add(row)
    tx.flush()
    return row


def _message(
    row: ChatSession, turn: int, role: str, content: str, *, lane: int = 0, model: str = ""
) -> ChatMessage:
    return ChatMessage(
        id=ids.new_id("msg"),
        session_id=row.id,
        project_id=row.project_id,
        turn=turn,
        lane=lane,
        role=role,
        model=model,
        content=content,
        state="done" if role == "user" else "streaming",
        created_at=clock.now(),
    )


def _new_vote(
    actor: Actor, row: ChatSession, turn: int, given: list[ChatMessage], winner: Winner
) -> Vote:
    return Vote(
        id=ids.new_id("vot"),
        project_id=row.project_id,
        session_id=row.id,
        turn=turn,
        user_id=actor.user_id,
        model_a=given[0].model,
        model_b=given[1].model,
        winner=winner,
        created_at=clock.now(),
    )


def _own(actor: Actor, tx: Session, session_id: str) -> ChatSession:
    row = crud.session(tx, session_id)
    visible = (
        row is not None
        and row.tenant_id == actor.tenant_id
        and row.user_id == actor.user_id
        and actor.may("playground:use", row.project_id)
    )
    if row is None or not visible:
        raise NotFound(f"There is no chat {session_id}.", remedy="See the list of your chats.")
    return row
