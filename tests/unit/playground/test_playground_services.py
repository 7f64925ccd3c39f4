"""Chats are kept, answers survive a stop and an error, votes are counted."""

from __future__ import annotations

import dataclasses
import threading
import time

import pytest

from core.accounts import api_keys
from core.accounts.services import DEFAULT_PROJECT_ID as PROJECT
from core.kernel import audit
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from core.playground import answers, services
from core.playground.schemas import TOO_LONG, ChatSettings, ChatView, MessageView, Winner
from core.prices import services as prices
from tests.doubles.scripted_gateway import Exchange, ScriptedGateway

ONE = ChatSettings(models=["tiny"])
TWO = ChatSettings(models=["tiny", "small"])


def settled(actor: Actor, chat_id: str) -> ChatView:
    for answer in services.live_answers(actor, chat_id):
        assert answer.wait(10), "the answer does not end"
    return services.get_session(actor, chat_id)


def asked(actor: Actor, question: str = "Hi", how: ChatSettings = ONE) -> ChatView:
    return settled(actor, services.ask(actor, PROJECT, question, how))


def test_a_chat_is_kept_with_its_numbers(person: Actor, gateway: ScriptedGateway) -> None:
    chat = asked(person, "What is a bud?")
    assert chat.session.title == "What is a bud?"
    (turn,) = chat.turns
    (answer,) = turn.answers
    assert (turn.question.content, answer.content) == ("What is a bud?", "Hello you")
    assert (answer.model, answer.state, answer.finish_reason) == ("tiny", "done", "stop")
    assert (answer.input_tokens, answer.output_tokens) == (10, 2)
    assert answer.request_id == "req_1"
    assert answer.ttft_ms is not None
    assert answer.cost_usd is None, "a price that is not set is never zero"
    assert gateway.keys == [api_keys.playground_key(person, PROJECT).reveal()]


def test_the_next_question_carries_what_was_said(person: Actor, gateway: ScriptedGateway) -> None:
    how = ChatSettings(models=["tiny"], system_prompt="Be kind.", stop=["END"], seed=1)
    first = asked(person, "One", how)
    services.ask(person, PROJECT, "Two", how, session_id=first.session.id)
    settled(person, first.session.id)
    assert gateway.requests[1]["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Hello you"},
        {"role": "user", "content": "Two"},
    ]
    assert gateway.requests[1]["stop"] == ["END"]
    assert services.get_session(person, first.session.id).session.settings == how


def test_a_question_without_an_answer_is_not_sent_on(
    person: Actor, gateway: ScriptedGateway
) -> None:
    gateway.behave = lambda exchange: exchange.error(503, "It is not ready.")
    chat_id = asked(person, "One").session.id
    gateway.behave = lambda exchange: exchange.stream("yes")
    services.ask(person, PROJECT, "Two", ONE, session_id=chat_id)
    settled(person, chat_id)
    assert gateway.requests[-1]["messages"] == [{"role": "user", "content": "Two"}]


def test_each_of_two_models_sees_its_own_answers(person: Actor, gateway: ScriptedGateway) -> None:
    gateway.behave = lambda exchange: exchange.stream("from ", exchange.body["model"])
    chat = asked(person, "One", TWO)
    given = [(answer.lane, answer.content) for answer in chat.turns[0].answers]
    assert given == [(0, "from tiny"), (1, "from small")]
    services.ask(person, PROJECT, "Two", TWO, session_id=chat.session.id)
    chat = settled(person, chat.session.id)
    seen = {request["model"]: request["messages"][1]["content"] for request in gateway.requests[2:]}
    assert seen == {"tiny": "from tiny", "small": "from small"}
    shown = services.request_of(chat, TWO, lane=1).messages
    assert [message["content"] for message in shown] == ["One", "from small", "Two"]


def test_both_models_answer_at_the_same_time(person: Actor, gateway: ScriptedGateway) -> None:
    both = threading.Barrier(2, timeout=60)

    def behave(exchange: Exchange) -> None:
        both.wait()
        exchange.stream("together")

    gateway.behave = behave
    chat = asked(person, "Hi", TWO)
    assert [answer.content for answer in chat.turns[0].answers] == ["together"] * 2


def endless(exchange: Exchange) -> None:
    exchange.head(200, "text/event-stream")
    exchange.piece(content="so far")
    exchange.until_closed()


def streaming(actor: Actor, chat_id: str) -> MessageView:
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        (answer,) = services.live_answers(actor, chat_id)
        if answer.snapshot().content:
            return services.get_session(actor, chat_id).turns[0].answers[0]
        time.sleep(0.01)
    raise AssertionError("nothing was streamed")


def test_a_stop_keeps_what_came_and_reaches_the_gateway(
    person: Actor, gateway: ScriptedGateway
) -> None:
    gateway.behave = endless
    chat_id = services.ask(person, PROJECT, "Hi", ONE)
    assert streaming(person, chat_id).state == "streaming"
    with pytest.raises(Conflict, match="still being answered"):
        services.ask(person, PROJECT, "More", ONE, session_id=chat_id)
    services.stop(person, chat_id)
    (answer,) = services.get_session(person, chat_id).turns[0].answers
    assert (answer.state, answer.content) == ("stopped", "so far")
    assert gateway.closed_by_client.wait(5)
    assert services.live_answers(person, chat_id) == []


def test_an_error_keeps_what_came_and_says_what_to_do(
    person: Actor, gateway: ScriptedGateway
) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.head(200, "text/event-stream")
        exchange.piece(content="half")
        exchange.event({"error": {"message": "The replica died."}})

    gateway.behave = behave
    (answer,) = asked(person).turns[0].answers
    assert (answer.state, answer.content) == ("failed", "half")
    assert answer.error == "The replica died."
    assert "Regenerate" in answer.remedy


def test_a_conversation_that_is_too_long_goes_on_without_its_oldest_half(
    person: Actor, gateway: ScriptedGateway
) -> None:
    chat_id = asked(person, "One").session.id
    for question in ("Two", "Three"):
        services.ask(person, PROJECT, question, ONE, session_id=chat_id)
        settled(person, chat_id)
    gateway.behave = lambda exchange: exchange.error(400, "It has 9 tokens.", code=TOO_LONG)
    services.regenerate(person, chat_id, ONE)
    (answer,) = settled(person, chat_id).turns[-1].answers
    assert (answer.state, answer.finish_reason) == ("failed", TOO_LONG)
    assert answer.error == "The conversation is too long for this model. It has 9 tokens."
    assert "leave out the oldest" in answer.remedy
    gateway.behave = lambda exchange: exchange.stream("yes")
    shorter = services.regenerate_shorter(person, chat_id, ONE)
    assert settled(person, chat_id).session.settings == shorter
    said = [message["content"] for message in gateway.requests[-1]["messages"]]
    assert said == ["Two", "Hello you", "Three"]
    services.regenerate_shorter(person, chat_id, shorter)
    settled(person, chat_id)
    assert [message["content"] for message in gateway.requests[-1]["messages"]] == ["Three"]
    with pytest.raises(Conflict, match="last message"):
        services.regenerate_shorter(person, chat_id, ChatSettings(models=["tiny"], first_turn=3))


def test_what_came_is_saved_while_it_comes(
    person: Actor, gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_SAVE_INTERVAL_S", 0.0)
    gateway.behave = endless
    chat_id = services.ask(person, PROJECT, "Hi", ONE)
    streaming(person, chat_id)
    deadline_s = time.monotonic() + 5
    while time.monotonic() < deadline_s:
        if services.get_session(person, chat_id).turns[0].answers[0].content == "so far":
            break
        time.sleep(0.02)
    else:
        raise AssertionError("the database never had the first words")
    # As after a kill of the app: the row says streaming, and nobody writes it.
    (answer,) = services.live_answers(person, chat_id)
    monkeypatch.setattr(answers, "_live", {})
    assert services.get_session(person, chat_id).turns[0].answers[0].state == "interrupted"
    answer.stop()
    assert answer.wait(5)


def test_a_price_makes_a_cost(person: Actor, admin: Actor, gateway: ScriptedGateway) -> None:
    gateway.behave = lambda exchange: exchange.stream("a", "b", "c")
    prices.set_machine_price(admin, usd_per_hour=3.6)
    (answer,) = asked(person).turns[0].answers
    assert answer.cost_basis == "machine time"
    assert answer.cost_usd is not None
    assert answer.ttft_ms is not None
    assert answer.cost_usd > answer.ttft_ms / 1000 * 0.001
    prices.set_token_price(
        admin, PROJECT, "tiny", input_usd_per_million_tokens=1.0, output_usd_per_million_tokens=2.0
    )
    (answer,) = asked(person).turns[0].answers
    assert answer.cost_basis == "token price"
    assert answer.cost_usd == pytest.approx((10 * 1.0 + 3 * 2.0) / 1e6)


def test_what_no_replica_began_to_answer_has_no_made_up_cost(
    person: Actor, admin: Actor, gateway: ScriptedGateway
) -> None:
    prices.set_machine_price(admin, usd_per_hour=3.6)
    gateway.behave = lambda exchange: exchange.error(503, "It is not ready.")
    (answer,) = asked(person).turns[0].answers
    assert answer.state == "failed"
    assert (answer.cost_usd, answer.cost_basis) == (None, "not known yet")


def test_regenerate_replaces_the_last_answers(person: Actor, gateway: ScriptedGateway) -> None:
    chat = asked(person, "Hi", TWO)
    services.vote(person, chat.session.id, 1, "a")
    gateway.behave = lambda exchange: exchange.stream("again")
    services.regenerate(person, chat.session.id, ONE)
    (turn,) = settled(person, chat.session.id).turns
    assert [answer.content for answer in turn.answers] == ["again"]
    assert turn.vote is None
    assert gateway.requests[-1]["messages"] == [{"role": "user", "content": "Hi"}]


def test_the_last_question_can_be_changed(person: Actor, gateway: ScriptedGateway) -> None:
    chat = asked(person, "Helo")
    services.edit_last_question(person, chat.session.id, "Hello", ONE)
    (turn,) = settled(person, chat.session.id).turns
    assert turn.question.content == "Hello"
    assert gateway.requests[-1]["messages"] == [{"role": "user", "content": "Hello"}]


def test_chats_are_found_renamed_and_deleted(person: Actor) -> None:
    first = asked(person, "About trees, which are tall " + "x" * 80)
    assert first.session.title.endswith("…")
    second = asked(person, "About 100% of rivers")
    listed = services.list_sessions(person, PROJECT)
    assert [view.id for view in listed] == [second.session.id, first.session.id]
    assert services.list_sessions(person, PROJECT, search="TREES")[0].id == first.session.id
    assert [v.id for v in services.list_sessions(person, PROJECT, search="%")] == [
        second.session.id
    ]
    services.rename_session(person, first.session.id, " Trees ")
    assert services.get_session(person, first.session.id).session.title == "Trees"
    services.vote_summary(person, PROJECT)
    services.delete_session(person, first.session.id)
    with pytest.raises(NotFound):
        services.get_session(person, first.session.id)
    assert len(services.list_sessions(person, PROJECT)) == 1


def test_a_chat_is_seen_by_its_owner_only(person: Actor, admin: Actor) -> None:
    chat_id = asked(person).session.id
    other = dataclasses.replace(person, user_id="usr_other")
    outside = dataclasses.replace(person, projects={})
    for actor in (other, outside, admin):
        for use in (
            lambda actor=actor: services.get_session(actor, chat_id),
            lambda actor=actor: services.rename_session(actor, chat_id, "Mine"),
            lambda actor=actor: services.delete_session(actor, chat_id),
            lambda actor=actor: services.vote(actor, chat_id, 1, "a"),
            lambda actor=actor: services.regenerate(actor, chat_id, ONE),
        ):
            with pytest.raises(NotFound):
                use()
    assert services.list_sessions(other, PROJECT) == []
    with pytest.raises(PermissionDenied):
        services.ask(outside, PROJECT, "Hi", ONE)
    with pytest.raises(PermissionDenied):
        services.list_sessions(outside, PROJECT)


def test_votes_are_counted(person: Actor) -> None:
    votes: list[Winner | None] = ["a", "b", "tie", "a", "neither"]
    for winner in votes:
        chat = asked(person, "Which?", TWO)
        services.vote(person, chat.session.id, 1, winner)
    assert services.get_session(person, chat.session.id).turns[0].vote == "neither"
    best, worst = services.vote_summary(person, PROJECT)
    assert (best.model, best.wins, best.losses, best.ties) == ("tiny", 2, 1, 2)
    assert best.win_share == pytest.approx(0.6)
    assert (worst.model, worst.win_share) == ("small", pytest.approx(0.4))
    services.vote(person, chat.session.id, 1, "b")
    assert services.get_session(person, chat.session.id).turns[0].vote == "b"
    services.vote(person, chat.session.id, 1, None)
    assert services.vote_summary(person, PROJECT)[0].comparisons == 4


def test_one_answer_cannot_be_voted_on(person: Actor) -> None:
    chat = asked(person)
    with pytest.raises(Conflict, match="two answers"):
        services.vote(person, chat.session.id, 1, "a")


def test_wrong_input_is_refused(person: Actor) -> None:
    chat_id = asked(person).session.id
    with pytest.raises(InvalidInput, match="empty"):
        services.ask(person, PROJECT, "  ", ONE)
    with pytest.raises(InvalidInput, match="No model"):
        services.ask(person, PROJECT, "Hi", ChatSettings())
    with pytest.raises(InvalidInput, match="empty"):
        services.edit_last_question(person, chat_id, " ", ONE)
    with pytest.raises(InvalidInput, match="title"):
        services.rename_session(person, chat_id, " ")


def test_every_change_is_audited_and_none_of_what_was_said(person: Actor, admin: Actor) -> None:
    chat = asked(person, "secret question", TWO)
    services.vote(person, chat.session.id, 1, "tie")
    services.rename_session(person, chat.session.id, "Title")
    services.regenerate(person, chat.session.id, ONE)
    settled(person, chat.session.id)
    services.delete_session(person, chat.session.id)
    entries = audit.entries(admin, PROJECT, subject=f"chat:{chat.session.id}")
    assert sorted(entry.action for entry in entries) == [
        "chat.asked",
        "chat.asked_again",
        "chat.deleted",
        "chat.renamed",
        "chat.voted",
    ]
    assert "secret" not in str([entry.details for entry in entries])


def test_a_project_that_goes_takes_its_chats_along(person: Actor, admin: Actor) -> None:
    chat = asked(person, "Hi", TWO)
    services.vote(person, chat.session.id, 1, "tie")
    assert services.forget_project(admin, PROJECT) == 1
    assert services.list_sessions(person, PROJECT) == []
    assert services.vote_summary(person, PROJECT) == []
