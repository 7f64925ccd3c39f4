"""Playground: chat with a deployed model, alone or beside a second one."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import session
from app.widgets import (
    confirm_by_name,
    dialog,
    empty_state,
    errors_shown,
    escape,
    formats,
    link_to,
    page_header,
    rerun_page,
)
from app.widgets.chat import LiveSlot, follow, show_turn
from core.kernel.errors import NotFound
from core.kernel.settings import settings
from core.playground import services as playground
from core.playground import snippets
from core.playground.answers import Answer
from core.playground.schemas import TOO_LONG, ChatSettings, ChatView, Turn, Winner

context = session.current()
actor, project_id = context.actor, context.project_id

_DEFAULTS = ChatSettings()
_SUGGESTIONS = (
    "Explain what a KV cache is, in three sentences.",
    "Write a haiku about a small computer.",
    "List five uses of a spare laptop.",
)
_VOTES: dict[Winner, str] = {
    "a": "Left is better",
    "tie": "Equal",
    "neither": "Both bad",
    "b": "Right is better",
}
_CHATS_SHOWN = 40
# Typing must reach the chat at once; elsewhere single letters are Streamlit's shortcuts.
_FOCUS = """<script>
if (matchMedia("(pointer: fine)").matches) {
  let tries = 0;
  const focus = setInterval(() => {
    const input = document.querySelector('[data-testid="stChatInputTextArea"]');
    if (input && !input.disabled) input.focus();
    if (document.activeElement === input || ++tries > 30) clearInterval(focus);
  }, 100);
}
</script>"""


# What is chosen lives in the session state under these keys, so that opening a chat can set it.
def _keep(**values: Any) -> None:
    for name, value in values.items():
        st.session_state[f"playground-{name}"] = value


def _kept(name: str, default: Any = None) -> Any:
    return st.session_state.get(f"playground-{name}", default)


def _open_chat() -> tuple[ChatView | None, list[Answer]]:
    chat_id = st.query_params.get("chat")
    if not chat_id:
        return None, []
    try:
        # In this order: what has ended by now is complete in the chat that is read next.
        live = playground.live_answers(actor, chat_id)
        chat = playground.get_session(actor, chat_id)
    except NotFound:
        st.query_params.pop("chat", None)
        st.toast("This chat does not exist any more.", icon=":material/search_off:")
        return None, []
    if _kept("loaded") != chat_id:
        _load_settings(chat.session.settings)
        _keep(loaded=chat_id)
    return chat, live


def _load_settings(saved: ChatSettings) -> None:
    _keep(
        model=saved.models[0] if saved.models else None,
        second=saved.models[1] if len(saved.models) > 1 else None,
        system=saved.system_prompt,
        temperature=saved.temperature,
        top_p=saved.top_p,
        max_tokens=saved.max_tokens,
        seed=saved.seed,
        stop="\n".join(saved.stop),
        first_turn=saved.first_turn,
    )


def _new_chat() -> None:
    st.query_params.pop("chat", None)
    _keep(loaded=None, focused=None, first_turn=1)


def _choose(models: list[str]) -> ChatSettings:
    """The toolbar: which model, which second one, and how to ask."""
    asked_for = st.query_params.get("model")
    if asked_for in models and _kept("asked_for") != asked_for:
        _keep(model=asked_for, asked_for=asked_for)
    for name in ("model", "second"):
        if _kept(name) not in (*models, None):
            _keep(**{name: None})
    if _kept("model") is None and models:
        _keep(model=models[0])
    with st.container(horizontal=True, vertical_alignment="bottom", key="playground-toolbar"):
        model = st.selectbox(
            "Model", models, key="playground-model", persist_state="session", width=300
        )
        others = [name for name in models if name != model]
        if _kept("second") not in (*others, None):
            _keep(second=None)
        second = st.selectbox(
            "Side by side with",
            others,
            index=None,
            key="playground-second",
            persist_state="session",
            placeholder="no second model" if others else "deploy a second model to compare",
            disabled=not others,
            width=300,
        )
        with st.popover("Parameters", icon=":material/tune:", width="content"):
            return _parameters([name for name in (model, second) if name])


def _parameters(models: list[str]) -> ChatSettings:
    for name, value in (
        ("temperature", _DEFAULTS.temperature),
        ("top_p", _DEFAULTS.top_p),
        ("max_tokens", _DEFAULTS.max_tokens),
    ):
        st.session_state.setdefault(f"playground-{name}", value)
    system = st.text_area(
        "System prompt",
        key="playground-system",
        persist_state="session",
        placeholder="How the model shall behave; empty for its own way.",
        height=110,
    )
    temperature = st.slider(
        "Temperature",
        0.0,
        2.0,
        step=0.05,
        key="playground-temperature",
        persist_state="session",
        help="0 takes the likeliest token each time; higher is more varied.",
    )
    top_p = st.slider(
        "Top p",
        0.0,
        1.0,
        step=0.05,
        key="playground-top_p",
        persist_state="session",
        help="Only the likeliest tokens that make up this share are considered.",
    )
    left, right = st.columns(2)
    max_tokens = left.number_input(
        "Max tokens",
        1,
        131_072,
        step=64,
        key="playground-max_tokens",
        persist_state="session",
        help="The longest answer, in tokens.",
    )
    seed = right.number_input(
        "Seed",
        0,
        2**31 - 1,
        value=None,
        step=1,
        key="playground-seed",
        persist_state="session",
        placeholder="random",
        help="The same seed and settings give the same answer.",
    )
    stop = st.text_area(
        "Stop sequences",
        key="playground-stop",
        persist_state="session",
        placeholder="One a line, at most four; the answer ends before them.",
        height=80,
    )
    return ChatSettings(
        models=models,
        system_prompt=system or "",
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        seed=seed,
        stop=[line for line in (stop or "").splitlines() if line][:4],
        first_turn=_kept("first_turn", 1),
    )


@dialog("Chats", position="right", icon=":material/forum:")
def _chats_drawer() -> None:
    chats, votes = st.tabs(["Saved chats", "Votes"])
    with chats:
        search = st.text_input(
            "Search", type="search", live=True, placeholder="Search the titles", key="chat-search"
        )
        found = playground.list_sessions(actor, project_id, search=search or "", limit=_CHATS_SHOWN)
        if not found:
            st.caption("No chat yet: what you ask is saved here." if not search else "No match.")
        for saved in found:
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                if st.button(escape(saved.title), key=f"open-{saved.id}", type="tertiary"):
                    st.query_params["chat"] = saved.id
                    st.rerun()
                st.caption(formats.ago(saved.updated_at), width="content")
    with votes:
        summary = playground.vote_summary(actor, project_id)
        if not summary:
            st.caption("No vote yet: ask two models side by side, then say which is better.")
            return
        st.caption("Over every side-by-side vote in this project; a tie counts half.")
        st.dataframe(
            [
                {
                    "Model": row.model,
                    "Win share": row.win_share,
                    "Votes": row.comparisons,
                    "Won": row.wins,
                    "Lost": row.losses,
                    "Equal": row.ties,
                }
                for row in summary
            ],
            column_config={
                "Win share": st.column_config.ProgressColumn(
                    format="percent", min_value=0, max_value=1, width=110
                )
            },
            hide_index=True,
        )


@dialog("This request as code", width="large", icon=":material/code:")
def _code_dialog(chat: ChatView | None, chosen: ChatSettings) -> None:
    lane = 0
    if len(chosen.models) > 1:
        name = st.segmented_control("Model", chosen.models, default=chosen.models[0], required=True)
        lane = chosen.models.index(name)
    request = playground.request_of(chat, chosen, lane)
    st.caption("Set `BUD_API_KEY` to a key of this project first.")
    curl, python, javascript = st.tabs(["curl", "Python", "JavaScript"])
    url = settings().gateway_url
    curl.code(snippets.curl(url, request), language="bash", wrap_lines=True)
    python.code(snippets.python(url, request), language="python", wrap_lines=True)
    javascript.code(snippets.javascript(url, request), language="javascript", wrap_lines=True)
    link_to("api_keys", "Create an API key", icon="key")


def _title_row(chat: ChatView) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="playground-title"):
        st.markdown(f"**{escape(chat.session.title)}**", width="content")
        with st.popover("", icon=":material/more_horiz:", type="tertiary", help="Rename or delete"):
            title = st.text_input(
                "Title", chat.session.title, key=f"title-{chat.session.id}", max_chars=120
            )
            if st.button("Rename", icon=":material/edit:"):
                with errors_shown():
                    playground.rename_session(actor, chat.session.id, title or "")
                    st.rerun()
            if st.button("Delete …", icon=":material/delete:"):
                _delete_chat(chat)


def _delete_chat(chat: ChatView) -> None:
    confirm_by_name(
        chat.session.title,
        "Its messages and its votes are deleted for good.",
        lambda: playground.delete_session(actor, chat.session.id),
        after=_new_chat,
    )


def _stop(chat_id: str) -> None:
    playground.stop(actor, chat_id)


def _ask(question: str, chosen: ChatSettings, chat: ChatView | None) -> None:
    chat_id = chat.session.id if chat is not None else None
    with errors_shown():
        if chat_id is not None:
            # Whoever sends on has seen enough of the answer that is being written.
            playground.stop(actor, chat_id)
        st.query_params["chat"] = playground.ask(
            actor, project_id, question, chosen, session_id=chat_id
        )
        _keep(loaded=st.query_params["chat"])
        st.rerun()


def _last_turn_actions(chat: ChatView, turn: Turn, chosen: ChatSettings) -> None:
    if len(turn.answers) == 2 and all(a.state in ("done", "stopped") for a in turn.answers):
        key = f"vote-{chat.session.id}-{turn.number}-{turn.answers[0].id}"
        winner = st.segmented_control(
            "Which answer is better?",
            list(_VOTES),
            format_func=lambda vote: _VOTES[vote],
            default=turn.vote,
            key=key,
        )
        if winner != turn.vote:
            with errors_shown():
                playground.vote(actor, chat.session.id, turn.number, winner)
    if any(answer.finish_reason == TOO_LONG for answer in turn.answers):
        _too_long_actions(chat, turn, chosen)
    with st.container(horizontal=True, gap="small", key="playground-actions"):
        if st.button("Regenerate", icon=":material/refresh:", type="tertiary"):
            with errors_shown():
                playground.regenerate(actor, chat.session.id, chosen)
                st.rerun()
        with st.popover("Edit", icon=":material/edit:", type="tertiary"):
            text = st.text_area(
                "Your last message",
                turn.question.content,
                key=f"edit-{chat.session.id}-{turn.number}-{turn.answers[0].id}"
                if turn.answers
                else f"edit-{chat.session.id}-{turn.number}",
            )
            if st.button("Send again", type="primary"):
                with errors_shown():
                    playground.edit_last_question(actor, chat.session.id, text or "", chosen)
                    st.rerun()
        with st.popover("Copy", icon=":material/content_copy:", type="tertiary"):
            for answer in turn.answers:
                st.caption(escape(answer.model))
                st.code(answer.content, language=None, wrap_lines=True, height=180)


def _too_long_actions(chat: ChatView, turn: Turn, chosen: ChatSettings) -> None:
    with st.container(horizontal=True, gap="small", key="playground-too-long"):
        can_shorten = chosen.first_turn < turn.number
        if can_shorten and st.button("Leave out the oldest messages", icon=":material/cut:"):
            with errors_shown():
                shorter = playground.regenerate_shorter(actor, chat.session.id, chosen)
                _keep(first_turn=shorter.first_turn)
                st.rerun()
        st.button("New chat", icon=":material/add_comment:", on_click=_new_chat, key="too-long-new")


def _greeting(chosen: ChatSettings) -> str | None:
    with st.container(horizontal_alignment="center", key="playground-greeting"):
        st.space("large")
        names = " and ".join(f"**{escape(name)}**" for name in chosen.models)
        st.markdown(f"Ask {names} something.", width="content")
        return st.pills(
            "Suggestions", _SUGGESTIONS, label_visibility="collapsed", key="playground-suggestion"
        )


def _header(chat: ChatView | None) -> tuple[bool, bool]:
    with page_header("Playground", "Chat with the models of this project."):
        st.button(
            "New chat",
            icon=":material/add_comment:",
            on_click=_new_chat,
            disabled=chat is None,
            shortcut="Alt+N",
        )
        chats = st.button("Chats", icon=":material/forum:", shortcut="Alt+H")
        code = st.button("Code", icon=":material/code:", shortcut="Alt+K")
    return chats, code


def _conversation(chat: ChatView, live: list[Answer], chosen: ChatSettings) -> dict[str, LiveSlot]:
    slots: dict[str, LiveSlot] = {}
    for turn in chat.turns:
        if turn.number == chosen.first_turn > 1:
            st.caption(":material/cut: The model no longer reads what stands above this line.")
        slots |= show_turn(turn, live)
    actions = st.empty()
    if chat.turns and not live and chosen.models:
        with actions.container():
            _last_turn_actions(chat, chat.turns[-1], chosen)
    return slots


def _input(chat: ChatView | None, chosen: ChatSettings, *, streaming: bool) -> str | None:
    if streaming and chat is not None:
        with st.bottom:
            # Not in a fragment: only a click outside one interrupts the run that draws.
            st.button(
                "Stop",
                icon=":material/stop_circle:",
                on_click=_stop,
                args=(chat.session.id,),
                shortcut="Esc",
                key="playground-stop-button",
            )
    return st.chat_input(
        f"Message {' and '.join(chosen.models)}" if chosen.models else "Deploy a model first",
        key="playground-input",
        disabled=not chosen.models,
    )


def main() -> None:
    """Show the page."""
    chat, live = _open_chat()
    open_chats, open_code = _header(chat)
    models = playground.chat_models(actor, project_id)
    if models:
        chosen = _choose(models)
    else:
        chosen = ChatSettings()
        empty_state(
            "No model answers yet",
            "Deploy or start one; it appears here as soon as it is ready.",
            icon="rocket_launch",
            action="Open Deployments",
            page="deployments",
        )
    if open_chats:
        _chats_drawer()
    elif open_code:
        _code_dialog(chat, chosen)
    question = None
    slots: dict[str, LiveSlot] = {}
    # A place of its own, emptied at once: what a run does not replace stays until its end, and
    # the run that draws an answer lasts.
    greeting = st.empty()
    if chat is not None:
        _title_row(chat)
        slots = _conversation(chat, live, chosen)
    elif models:
        with greeting:
            question = _greeting(chosen)
    question = _input(chat, chosen, streaming=bool(slots)) or question
    if _kept("focused") != (chat.session.id if chat else "new"):
        st.html(_FOCUS, unsafe_allow_javascript=True)
        _keep(focused=chat.session.id if chat else "new")
    if question:
        _ask(question, chosen, chat)
    elif slots:
        follow(slots, live)
        rerun_page()


main()
