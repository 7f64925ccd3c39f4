"""The frame of a page: title, KPI row, empty state, errors, links to other pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.formats import NONE
from core.kernel.errors import BudError
from core.kernel.settings import ROOT


@dataclass(frozen=True)
class Kpi:
    """One number of a KPI row; `value` already carries its unit, `trend` is its sparkline."""

    label: str
    value: str | None
    help: str | None = None
    note: str | None = None
    trend: Sequence[float] | None = None


def page_header(title: str, purpose: str, badges: Sequence[str] = ()) -> DeltaGenerator:
    """The title and the one-line purpose of a page.

    Args:
        title: The title; plain text.
        purpose: What the page is for, in one line.
        badges: Badges as Markdown, shown beside the title.

    Returns:
        The container at the right, for the page's actions:
        `with page_header("Models", "…"): st.button("Deploy", type="primary")`.
    """
    with st.container(
        horizontal=True,
        horizontal_alignment="distribute",
        vertical_alignment="center",
        key="bud-page-header",
    ):
        with st.container(gap=None, width="stretch"):
            heading = " ".join([f"## {escape(title)}", *badges])
            st.markdown(heading)
            st.caption(purpose)
        return st.container(
            horizontal=True, horizontal_alignment="right", width="content", key="bud-page-actions"
        )


def kpi_row(kpis: Sequence[Kpi], *, key: str = "kpis", border: bool = True) -> None:
    """The numbers that matter most, in one row that wraps on a narrow screen."""
    with st.container(horizontal=True, key=f"bud-kpi-row-{key}", gap="small"):
        for kpi in kpis:
            st.metric(
                kpi.label,
                kpi.value if kpi.value is not None else NONE,
                help=kpi.help,
                border=border,
                delta=kpi.note,
                delta_color="off",
                delta_arrow="off",
                # A flat line of nothing says nothing.
                chart_data=kpi.trend if any(kpi.trend or ()) else None,
                height="stretch",
            )


def empty_state(
    title: str,
    what_next: str,
    *,
    icon: str = "inbox",
    action: str | None = None,
    page: str | None = None,
    on_click: Callable[[], None] | None = None,
    key: str = "empty",
) -> bool:
    """Say that there is nothing yet and what to do next.

    Args:
        title: What there is none of.
        what_next: One sentence that says what to do.
        icon: The name of a Material icon.
        action: The label of the button.
        page: The page (file name without `.py`) that the button opens.
        on_click: Called when the button is clicked, where no page is given.
        key: Tells several empty states of one page apart.

    Returns:
        Whether the button was clicked (never when it opens a page).
    """
    with st.container(
        border=True, horizontal_alignment="center", key=f"bud-empty-{key}", gap="small"
    ):
        st.markdown(f"### :material/{icon}:", width="content")
        st.markdown(f"**{escape(title)}**", width="content")
        st.caption(what_next, width="content")
        if action is None:
            return False
        clicked = st.button(action, type="primary", on_click=on_click, key=f"bud-empty-go-{key}")
        if clicked and page is not None:
            open_page(page)
        return clicked


def escape(text: str) -> str:
    """Text as it is, inside Markdown: nothing in it is taken as formatting."""
    return "".join(
        f"\\{letter}" if letter in "\\`*_{}[]()#+!|<>~:$@" else letter for letter in text
    )


def show_error(error: BudError) -> None:
    """What happened, and what to do about it."""
    value = f" (got: `{error.value}`)" if error.value is not None else ""
    shown = value if str(error.value) not in error.what else ""
    remedy = f"  \n**What to do:** {escape(error.remedy)}" if error.remedy else ""
    st.error(f"{escape(error.what)}{shown}{remedy}", icon=":material/error:")


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show a BudError raised inside as an error box instead of a traceback."""
    try:
        yield
    except BudError as error:
        show_error(error)


def page_path(page: str) -> Path:
    """The file of a page, as `st.switch_page` and `st.page_link` take it."""
    return ROOT / "pages" / f"{page}.py"


def open_page(page: str, **query: str | Sequence[str]) -> NoReturn:
    """Go to another page: `open_page("deployment", id=deployment_id)`.

    A name that an input of this page binds cannot be given on; see `model_subject.USE`.
    """
    # Never None: that is refused where an input of this page is bound to the address.
    st.switch_page(page_path(page), query_params=query)


def link_to(
    page: str, label: str, *, icon: str | None = None, query: Mapping[str, str] | None = None
) -> None:
    """A link to another page."""
    st.page_link(
        page_path(page),
        label=escape(label),
        icon=f":material/{icon}:" if icon else None,
        query_params=dict(query) if query else None,
    )
