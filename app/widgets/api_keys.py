"""Forms of API keys: a new one, and other restrictions for one there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from threading import Lock

import streamlit as st

from app.widgets.dialogs import dialog
from app.widgets.layout import errors_shown
from core.accounts import api_keys
from core.accounts.api_keys import Restrictions
from core.accounts.schemas import ApiKeyView, NewKey
from core.kernel import clock
from core.kernel.actor import Actor
from core.kernel.settings import settings

_MADE, _DONE = "bud-key-made", "bud-key-done"
_LIFETIMES_D = {"30 days": 30, "90 days": 90, "1 year": 365, "Never": None}
_SCOPES = {
    "Chat": "chat.completions",
    "Completions": "completions",
    "Embeddings": "embeddings",
    "Messages (Anthropic)": "messages",
    "Responses": "responses",
    "Moderations": "moderations",
    "Rerank": "rerank",
    "Images": "images",
    "Speech and transcriptions": "audio",
    "Realtime": "realtime",
    "Files": "files",
    "Batches": "batches",
    "List models": "models",
}
SCOPE_NAMES = {scope: name for name, scope in _SCOPES.items()}


def state_of(key: ApiKeyView) -> str:
    """`active`, `expired` or `revoked`."""
    if key.revoked_at is not None:
        return "revoked"
    expired = key.expires_at is not None and key.expires_at <= clock.now()
    return "expired" if expired else "active"


@dataclass
class _Made:
    """A key that is shown until its reader is done: it is nowhere else.

    In the session since before the click: a second click stops the first one's run at its next
    call of Streamlit, which would be the one that notes the key.
    """

    lock: Lock = field(default_factory=Lock)
    new: NewKey | None = None


def _made() -> _Made:
    made: _Made = st.session_state.setdefault(_MADE, _Made())
    return made


def key_is_shown() -> bool:
    """Whether a key was made whose reader is not done with it; `new_key` shows it."""
    return _made().new is not None


def new_key(actor: Actor, project_id: str, models: Sequence[str]) -> None:
    """Ask what a key is for and make it; or show the one that was made, until "Done"."""
    if key_is_shown():
        _show_key(models)
    else:
        _ask_for_key(actor, project_id, models)


@dialog("New API key", width="medium", icon=":material/key:")
def _ask_for_key(actor: Actor, project_id: str, models: Sequence[str]) -> None:
    with st.form("new-key", border=False):
        name = st.text_input("Name", placeholder="What it is for, such as ci")
        lifetime = st.segmented_control(
            "Expires after", list(_LIFETIMES_D), default="90 days", required=True
        )
        only, scopes, networks = _restrictions(models, Restrictions())
        if not st.form_submit_button("Create", type="primary"):
            return
    days = _LIFETIMES_D[lifetime]
    expires_at = clock.now() + timedelta(days=days) if days else None
    made = _made()
    with errors_shown():
        # The run of a second click may be beside that of the first.
        with made.lock:
            if made.new is None:
                wanted = Restrictions(expires_at, only, scopes, networks)
                made.new = api_keys.create_key(actor, project_id, name, wanted)
        st.rerun()


# A click beside it would lose the key.
@dialog("New API key", width="medium", icon=":material/key:", dismissible=False)
def _show_key(models: Sequence[str]) -> None:
    new = _made().new
    if new is None or st.session_state.get(_DONE):
        st.session_state.pop(_MADE, None)
        st.rerun()
    st.success("Copy it now: it is shown this once.", icon=":material/key:")
    st.code(new.secret.reveal(), language=None, wrap_lines=True)
    call_snippets(new.secret.reveal(), (*new.key.models, *models, "MODEL")[0])
    st.button("Done", type="primary", key=_DONE)


@dialog("Restrict API key", width="medium", icon=":material/tune:")
def restrict_key(actor: Actor, key: ApiKeyView, models: Sequence[str]) -> None:
    """Give a key other restrictions; the form begins with those it has."""
    st.caption(f"bud-…{key.last_four}. The gateway follows within a second.")
    today = clock.now().date()
    with st.form("restrict-key", border=False):
        last_day = st.date_input(
            "Expires at the end of (UTC)",
            key.expires_at.date() if key.expires_at else None,
            min_value=min(today, key.expires_at.date()) if key.expires_at else today,
            help="Empty: never.",
        )
        only, scopes, networks = _restrictions(
            models, Restrictions(key.expires_at, key.models, key.scopes, key.networks)
        )
        if not st.form_submit_button("Save", type="primary"):
            return
    expires_at = key.expires_at
    if last_day is None:
        expires_at = None
    elif expires_at is None or last_day != expires_at.date():
        expires_at = datetime.combine(last_day, time(23, 59, 59), tzinfo=clock.now().tzinfo)
    with errors_shown():
        api_keys.restrict_key(actor, key.id, Restrictions(expires_at, only, scopes, networks))
        st.rerun()


def _restrictions(
    models: Sequence[str], now: Restrictions
) -> tuple[list[str], list[str], list[str]]:
    """Inputs for models, endpoints and addresses, which begin with those of now."""
    known = [*models, *(name for name in now.models if name not in models)]
    only = st.multiselect(
        "Models",
        known,
        list(now.models),
        placeholder="Every model of the project, those to come too",
    )
    scopes = st.multiselect(
        "Endpoints",
        list(_SCOPES),
        [SCOPE_NAMES[scope] for scope in now.scopes],
        placeholder="Every endpoint",
    )
    networks = st.text_area(
        "IP addresses",
        "\n".join(now.networks),
        placeholder="From every address; else one address or CIDR range a line",
        height=68,
    )
    return only, [_SCOPES[scope] for scope in scopes], (networks or "").split()


def call_snippets(secret: str, model: str) -> None:
    """How a program calls `model` with a key, or with words in a key's place."""
    base_url = f"{settings().gateway_url}/v1"
    curl, python = st.tabs(["curl", "Python"])
    curl.code(
        f"curl {base_url}/chat/completions \\\n"
        f'  -H "Authorization: Bearer {secret}" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f'  -d \'{{"model": "{model}", '
        '"messages": [{"role": "user", "content": "Hello"}]}\'',
        language="bash",
        wrap_lines=True,
    )
    python.code(
        "from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{base_url}", api_key="{secret}")\n'
        "answer = client.chat.completions.create(\n"
        f'    model="{model}",\n'
        '    messages=[{"role": "user", "content": "Hello"}],\n'
        ")\n"
        "print(answer.choices[0].message.content)",
        language="python",
        wrap_lines=True,
    )
