"""The deploy wizard: from a model to a deployment, predicted before it runs."""

from __future__ import annotations

import streamlit as st

from app import session
from app.widgets import empty_state, errors_shown, open_page, page_header
from app.widgets.wizard import begin, draft_links, wizard
from core.deployments import drafts
from core.kernel.errors import NotFound

context = session.current()
actor, project_id = context.actor, context.project_id


def main() -> None:
    """Show the page."""
    actions = page_header("Deploy a model", "See what it will do, and what it takes, first.")
    draft_id = st.query_params.get("draft", "")
    if not draft_id:
        _begin("Nothing is chosen yet", "Begin with the model.")
        return
    try:
        draft = drafts.get_draft(actor, draft_id)
    except NotFound:
        _begin("There is no such draft", "It was deployed or cancelled. Begin anew.")
        return
    if draft.project_id != project_id:
        _begin("This draft is in another project", "Change the project, or begin anew.")
        return
    with actions:
        if st.button("Cancel the draft", icon=":material/close:", type="tertiary"):
            drafts.cancel(actor, draft.id)
            open_page("deployments")
    wizard(actor, draft)


def _begin(title: str, what_next: str) -> None:
    if empty_state(title, what_next, icon="rocket_launch", action="Begin"):
        begin(actor, project_id)
    draft_links(actor, project_id)


with errors_shown():
    main()
