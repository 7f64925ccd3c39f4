"""Guardrails: what prompts and answers may hold, what was found, and a try."""

from __future__ import annotations

import streamlit as st

from app import session
from app.widgets import errors_shown, page_header
from app.widgets.guardrails import guardrail_list
from app.widgets.guardrails_edit import new_guardrail
from app.widgets.guardrails_try import try_view

context = session.current()
actor, project_id = context.actor, context.project_id

_RULES, _TRY = "Guardrails", "Try a text"


def main() -> None:
    """Show the page."""
    with page_header(
        "Guardrails", "What prompts and answers may hold: masked, refused or only reported."
    ):
        if actor.may("guardrail:update", project_id) and st.button(
            "New guardrail", type="primary", icon=":material/add:"
        ):
            new_guardrail(actor, project_id)
    view = st.segmented_control(
        "View", [_RULES, _TRY], default=_RULES, required=True, key="view", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    if view == _TRY:
        try_view(actor, project_id)
    else:
        guardrail_list(actor, project_id)


with errors_shown():
    main()
