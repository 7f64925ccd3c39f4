"""Compare: two to six models side by side, with the source of every number."""

from __future__ import annotations

from app import session
from app.widgets import errors_shown, page_header
from app.widgets.leaderboards_compare import compare_view

context = session.current()


def main() -> None:
    """Show the page."""
    page_header("Compare", "Two to six models: facts, licence, prices and scores.")
    compare_view(context)


with errors_shown():
    main()
