"""Widgets that every page shares; none of them reads or writes the database but `job_steps`."""

from app import formats
from app.widgets.dialogs import confirm_by_name, dialog, none_is_open, rerun_page
from app.widgets.jobs import job_steps, retried_as
from app.widgets.layout import (
    Kpi,
    empty_state,
    errors_shown,
    escape,
    kpi_row,
    link_to,
    open_page,
    page_header,
    page_path,
    show_error,
)
from app.widgets.states import badge_markdown, meaning, state_badge
from app.widgets.tables import table_with_downloads

__all__ = [
    "Kpi",
    "badge_markdown",
    "confirm_by_name",
    "dialog",
    "empty_state",
    "errors_shown",
    "escape",
    "formats",
    "job_steps",
    "kpi_row",
    "link_to",
    "meaning",
    "none_is_open",
    "open_page",
    "page_header",
    "page_path",
    "rerun_page",
    "retried_as",
    "show_error",
    "state_badge",
    "table_with_downloads",
]
