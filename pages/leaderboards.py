"""Leaderboards: which models are good at what, how sure that is, and where it is from."""

from __future__ import annotations

import streamlit as st

from app import session
from app.widgets import errors_shown, open_page, page_header
from app.widgets.leaderboards import show_asked_board, task_view
from app.widgets.leaderboards_boards import boards_view, refresh_view

context = session.current()

_VIEWS = {"By task": task_view, "Boards": boards_view, "Refresh": refresh_view}


def main() -> None:
    """Show the page."""
    with page_header(
        "Leaderboards", "Which models are good at what, how sure that is, and where it is from."
    ):
        if st.button("Compare models", icon=":material/compare_arrows:"):
            open_page("compare")
    show_asked_board()
    view = st.segmented_control(
        "View",
        list(_VIEWS),
        default="By task",
        key="see",
        bind="query-params",
        required=True,
        label_visibility="collapsed",
    )
    _VIEWS[view or "By task"](context)


with errors_shown():
    main()
