"""API keys: what opens this project's models to a program."""

from __future__ import annotations

from datetime import timedelta

import streamlit as st

from app import session
from app.widgets import (
    Kpi,
    badge_markdown,
    confirm_by_name,
    empty_state,
    errors_shown,
    escape,
    formats,
    kpi_row,
    page_header,
    table_with_downloads,
)
from app.widgets.api_keys import (
    SCOPE_NAMES,
    call_snippets,
    key_is_shown,
    new_key,
    restrict_key,
    state_of,
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
_SOON = timedelta(days=7)


def _row(key: ApiKeyView) -> dict[str, object]:
    return {
        "Name": key.name,
        "Key": f"bud-…{key.last_four}",
        "State": state_of(key),
        "Models": ", ".join(key.models) or "every model",
        "Endpoints": ", ".join(SCOPE_NAMES[scope] for scope in key.scopes) or "every endpoint",
        "From": ", ".join(key.networks) or "every address",
        "Made by": key.made_by,
        "Made": key.created_at,
        "Expires": key.expires_at,
        "Id": key.id,
    }


def _details(key: ApiKeyView, models: list[str]) -> None:
    with st.container(border=True, key="key-details"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"#### {escape(key.name)} {badge_markdown(state_of(key))}", width="stretch")
            if _may_restrict(key) and st.button("Restrict …", icon=":material/tune:"):
                restrict_key(actor, key, models)
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
            f" · expires {formats.when(key.expires_at) if key.expires_at else 'never'}  \n"
            f"May call {escape(', '.join(key.models) or 'every model')} at "
            f"{', '.join(SCOPE_NAMES[scope] for scope in key.scopes) or 'every endpoint'} from "
            f"{', '.join(key.networks) or 'every address'}"
        )


def _may_restrict(key: ApiKeyView) -> bool:
    return key.kind == "user" and key.revoked_at is None and actor.may("key:create", key.project_id)


def main() -> None:
    """Show the page."""
    models = [view.name for view in deployments.list_deployments(actor, project_id)]
    models += hosted.names(actor, project_id) + rules.shared_names(actor, project_id)
    with page_header("API keys", "Programs of this project call its models with one of these."):
        may_create = actor.may("key:create", project_id)
        asked = may_create and st.button("New API key", type="primary", icon=":material/add:")
        if asked or key_is_shown():
            new_key(actor, project_id, models)
    everything = api_keys.list_keys(actor, project_id)
    active = [key for key in everything if state_of(key) == "active"]
    ending = [key for key in active if key.expires_at and key.expires_at < clock.now() + _SOON]
    # Those that Bud made for itself open nothing to a program.
    of_playground = sum(key.kind == "playground" for key in active)
    kpi_row(
        [
            Kpi(
                "Active",
                formats.count(len(active) - of_playground),
                "Keys of programs. Bud makes one for everybody who uses the Playground.",
                note=f"{of_playground:,} Playground" if of_playground else None,
            ),
            Kpi("End within 7 days", formats.count(len(ending))),
            Kpi("Ended", formats.count(len(everything) - len(active))),
        ]
    )
    st.markdown("Base URL for OpenAI's clients")
    st.code(f"{settings().gateway_url}/v1", language=None)
    with st.expander("Call it with curl or Python", icon=":material/terminal:"):
        st.caption("Put your key in the place of YOUR_KEY: Bud does not have it to show again.")
        call_snippets("YOUR_KEY", (*models, "MODEL")[0])
    show_all = st.toggle("Show keys that have ended", key="ended", bind="query-params")
    keys = everything if show_all else active
    if not keys:
        asked = empty_state(
            "No active API key" if everything else "No API key yet",
            "Create one; the dialog shows the curl line to try it with, with the key in it.",
            icon="key",
            action="Create one" if may_create else None,
        )
        if asked:
            new_key(actor, project_id, models)
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
        st.caption("Click a row to give a key other restrictions, or to revoke it.")
        return
    _details(keys[chosen], models)


with errors_shown():
    main()
