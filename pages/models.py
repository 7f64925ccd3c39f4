"""Models: what this project has, and the catalogue of models that there are."""

from __future__ import annotations

import streamlit as st

from app import session
from app.widgets import errors_shown, page_header
from app.widgets.models_add import HUB, Prefilled, add_dialog
from app.widgets.models_catalogue import catalogue_view
from app.widgets.models_project import project_view
from app.widgets.models_refresh import refresh_view
from app.widgets.wizard import begin

context = session.current()

_PROJECT, _CATALOGUE, _REFRESH = "In this project", "Catalogue", "Refresh"


def main() -> None:
    """Show the page."""
    with page_header("Models", "What this project can use, and what there is to choose from."):
        if st.button("Add model", icon=":material/add:"):
            add_dialog(context)
        if st.button("Deploy", type="primary", icon=":material/rocket_launch:"):
            begin(context.actor, context.project_id)
    view = st.segmented_control(
        "View",
        [_PROJECT, _CATALOGUE, _REFRESH],
        default=_PROJECT,
        key="view",
        bind="query-params",
        required=True,
        label_visibility="collapsed",
    )
    if "add" in st.query_params:
        # A link of another page: this repository is to be added.
        add_dialog(context, Prefilled(HUB, hub_id=st.query_params.pop("add")))
    elif "add_named" in st.query_params:
        add_dialog(context, Prefilled(HUB, name=st.query_params.pop("add_named")))
    if view == _CATALOGUE:
        catalogue_view(context)
    elif view == _REFRESH:
        refresh_view(context)
    else:
        project_view(context)


with errors_shown():
    main()
