"""API keys: what opens this project's models to a program."""

from __future__ import annotations

from datetime import timedelta

import streamlit as st

from app import session
from app.widgets import empty_state, page_header
from core.accounts import api_keys
from core.accounts.schemas import ApiKeyView
from core.deployments import services as deployments
from core.kernel import clock
from core.kernel.errors import BudError
from core.kernel.settings import settings

context = session.current()
_LIFETIMES = {"30 days": 30, "90 days": 90, "1 year": 365, "never": None}


def _snippets(secret: str, model: str) -> None:
    base_url = f"{settings().gateway_url}/v1"
    curl, python = st.tabs(["curl", "Python"])
    curl.code(
        f"curl {base_url}/chat/completions \\\n"
        f'  -H "Authorization: Bearer {secret}" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f'  -d \'{{"model": "{model}", '
        '"messages": [{"role": "user", "content": "Hello"}]}\'',
        language="bash",
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
    )


@st.dialog("New API key", width="medium")
def _create(models: list[str]) -> None:
    with st.form("new_key", border=False):
        name = st.text_input("Name", placeholder="What it is for, such as ci")
        lifetime = st.segmented_control("Expires after", list(_LIFETIMES), default="90 days")
        only = st.multiselect("Models", models, placeholder="Every model of the project")
        if not st.form_submit_button("Create", type="primary"):
            return
    days = _LIFETIMES[lifetime or "90 days"]
    expires_at = clock.now() + timedelta(days=days) if days else None
    try:
        new = api_keys.create_key(
            context.actor, context.project_id, name, expires_at=expires_at, models=only
        )
    except BudError as error:
        st.error(str(error))
        return
    st.success("Copy it now: it is not shown again, only its hash is stored.")
    st.code(new.secret.reveal(), language=None)
    _snippets(new.secret.reveal(), (only or models or ["MODEL"])[0])


@st.dialog("Revoke key")
def _revoke(key: ApiKeyView) -> None:
    st.write(f"**{key.name}** (…{key.last_four}) stops working within a second, for everybody.")
    if key.kind == "playground":
        st.caption("Bud makes a new one when you next use the Playground.")
    typed = st.text_input(f"Type {key.name} to revoke")
    if st.button("Revoke", type="primary", disabled=typed != key.name):
        try:
            api_keys.revoke_key(context.actor, key.id)
            st.rerun()
        except BudError as error:
            st.error(str(error))


def _state(key: ApiKeyView) -> str:
    if key.revoked_at is not None:
        return "revoked"
    expired = key.expires_at is not None and key.expires_at <= clock.now()
    return "expired" if expired else "active"


page_header("API keys", f"Programs call {settings().gateway_url}/v1 with one of these.")
names = [view.name for view in deployments.list_deployments(context.actor, context.project_id)]
if st.button("New API key", type="primary", icon=":material/add:"):
    _create(names)
keys = api_keys.list_keys(context.actor, context.project_id)
show_all = st.toggle("Show revoked", key="revoked", bind="query-params")
keys = [key for key in keys if show_all or key.revoked_at is None]
if not keys:
    empty_state("No API key yet", "Create one, and the dialog shows the curl line to try it with.")
    st.stop()
chosen = st.dataframe(
    [
        {
            "Name": key.name,
            "Key": f"bud-…{key.last_four}",
            "State": _state(key),
            "Models": ", ".join(key.models) or "every model",
            "Made": key.created_at,
            "Expires": key.expires_at,
        }
        for key in keys
    ],
    column_config={
        "Made": st.column_config.DatetimeColumn(format="distance"),
        "Expires": st.column_config.DatetimeColumn(format="distance"),
    },
    hide_index=True,
    on_select="rerun",
    selection_mode="single-row",
    key="keys_table",
)
st.caption("Select a row to revoke a key.")
if chosen.selection.rows and keys[chosen.selection.rows[0]].revoked_at is None:
    _revoke(keys[chosen.selection.rows[0]])
