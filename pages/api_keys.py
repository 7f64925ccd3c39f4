"""API keys: what opens this project's models to a program."""

from __future__ import annotations

from datetime import timedelta

import streamlit as st

from app import session
from app.widgets import (
    Kpi,
    badge_markdown,
    confirm_by_name,
    dialog,
    empty_state,
    errors_shown,
    escape,
    formats,
    kpi_row,
    page_header,
    table_with_downloads,
)
from core.accounts import api_keys
from core.accounts.schemas import ApiKeyView
from core.deployments import hosted
from core.deployments import services as deployments
from core.kernel import clock
from core.kernel.settings import settings
from core.routing import rules

context = session.current()
actor, project_id = context.actor, context.project_id
_LIFETIMES_D = {"30 days": 30, "90 days": 90, "1 year": 365, "Never": None}
_SCOPES = {
    "Chat": "chat.completions",
    "Completions": "completions",
    "Embeddings": "embeddings",
    "Messages (Anthropic)": "messages",
    "Responses": "responses",
    "List models": "models",
}
_SCOPE_NAMES = {scope: name for name, scope in _SCOPES.items()}
_SOON = timedelta(days=7)


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


@dialog("New API key", width="medium", icon=":material/key:")
def _create_dialog(models: list[str]) -> None:
    made = st.empty()
    with made.form("new-key", border=False):
        name = st.text_input("Name", placeholder="What it is for, such as ci", max_chars=120)
        lifetime = st.segmented_control(
            "Expires after", list(_LIFETIMES_D), default="90 days", required=True
        )
        only = st.multiselect(
            "Models", models, placeholder="Every model of the project, those to come too"
        )
        scopes = st.multiselect("Endpoints", list(_SCOPES), placeholder="Every endpoint")
        networks = st.text_area(
            "IP addresses",
            placeholder="From every address; else one address or CIDR range a line",
            height=68,
        )
        if not st.form_submit_button("Create", type="primary"):
            return
    days = _LIFETIMES_D[lifetime]
    expires_at = clock.now() + timedelta(days=days) if days else None
    with errors_shown():
        restrictions = api_keys.Restrictions(
            expires_at, only, [_SCOPES[scope] for scope in scopes], networks.split()
        )
        new = api_keys.create_key(actor, project_id, name, restrictions)
        with made.container():
            st.success("Copy it now: it is shown this once.", icon=":material/key:")
            st.code(new.secret.reveal(), language=None, wrap_lines=True)
            _snippets(new.secret.reveal(), (only or models or ["MODEL"])[0])


def _state(key: ApiKeyView) -> str:
    if key.revoked_at is not None:
        return "revoked"
    expired = key.expires_at is not None and key.expires_at <= clock.now()
    return "expired" if expired else "active"


def _row(key: ApiKeyView) -> dict[str, object]:
    return {
        "Name": key.name,
        "Key": f"bud-…{key.last_four}",
        "State": _state(key),
        "Models": ", ".join(key.models) or "every model",
        "Endpoints": ", ".join(_SCOPE_NAMES[scope] for scope in key.scopes) or "every endpoint",
        "From": ", ".join(key.networks) or "every address",
        "Made by": key.made_by,
        "Made": key.created_at,
        "Expires": key.expires_at,
        "Id": key.id,
    }


def _details(key: ApiKeyView) -> None:
    with st.container(border=True, key="key-details"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"#### {escape(key.name)} {badge_markdown(_state(key))}", width="stretch")
            if key.revoked_at is None and st.button("Revoke …", icon=":material/block:"):
                again = " Bud makes a new one at the next use of the Playground."
                confirm_by_name(
                    key.name,
                    f"The key bud-…{key.last_four} is refused within a second, for everybody."
                    + (again if key.kind == "playground" else ""),
                    lambda: api_keys.revoke_key(actor, key.id),
                    verb="Revoke",
                )
        st.caption(
            f"bud-…{key.last_four} · made {formats.when(key.created_at)} by {escape(key.made_by)}"
            f" · expires {formats.when(key.expires_at) if key.expires_at else 'never'}"
        )


def main() -> None:
    """Show the page."""
    models = [view.name for view in deployments.list_deployments(actor, project_id)]
    models += hosted.names(actor, project_id) + rules.shared_names(actor, project_id)
    with page_header("API keys", "Programs of this project call its models with one of these."):
        may_create = actor.may("key:create", project_id)
        if may_create and st.button("New API key", type="primary", icon=":material/add:"):
            _create_dialog(models)
    everything = api_keys.list_keys(actor, project_id)
    active = [key for key in everything if _state(key) == "active"]
    ending = [key for key in active if key.expires_at and key.expires_at < clock.now() + _SOON]
    kpi_row(
        [
            Kpi("Active", formats.count(len(active))),
            Kpi("End within 7 days", formats.count(len(ending))),
            Kpi("Ended", formats.count(len(everything) - len(active))),
        ]
    )
    st.markdown("Base URL for OpenAI's clients")
    st.code(f"{settings().gateway_url}/v1", language=None)
    show_all = st.toggle("Show keys that have ended", key="ended", bind="query-params")
    keys = everything if show_all else active
    if not keys:
        asked = empty_state(
            "No active API key" if everything else "No API key yet",
            "Create one; the dialog shows the curl line to try it with.",
            icon="key",
            action="Create one" if may_create else None,
        )
        if asked:
            _create_dialog(models)
        return
    chosen = table_with_downloads(
        [_row(key) for key in keys],
        name="api-keys",
        columns={
            "Made": st.column_config.DatetimeColumn(format="distance"),
            "Expires": st.column_config.DatetimeColumn(format="distance"),
            "Id": None,
        },
        selectable=True,
    )
    if chosen is None or chosen >= len(keys):
        st.caption("Click a row to revoke a key; `bud keys restrict` gives it other restrictions.")
        return
    _details(keys[chosen])


with errors_shown():
    main()
