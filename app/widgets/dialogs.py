"""Dialogs that every page uses."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import streamlit as st

from app.widgets.layout import errors_shown, escape
from core.kernel.errors import InvalidInput

_OPEN = "bud-dialog-open"
_Given = ParamSpec("_Given")


def dialog(title: str, **look: Any) -> Callable[[Callable[_Given, None]], Callable[_Given, None]]:
    """`st.dialog`, but what polls beside it does not close it: see `rerun_page`."""

    def decorate(function: Callable[_Given, None]) -> Callable[_Given, None]:
        # Closing it reruns the page, which may have waited for that.
        opens = st.dialog(title, on_dismiss="rerun", **look)(function)

        @wraps(function)
        def open_dialog(*args: _Given.args, **kwargs: _Given.kwargs) -> None:
            st.session_state[_OPEN] = True
            opens(*args, **kwargs)

        return open_dialog

    return decorate


def none_is_open() -> None:
    """A run of the whole page begins: it closes the dialog that it does not open again."""
    st.session_state[_OPEN] = False


def rerun_page() -> None:
    """Show what has changed by itself on the whole page; not while a dialog is open.

    Such a rerun would close the dialog under the person's hands. For what was asked for by a
    click, use `st.rerun`.
    """
    if not st.session_state.get(_OPEN):
        st.rerun()


def confirm_by_name(
    name: str,
    consequence: str,
    action: Callable[[], object],
    *,
    verb: str = "Delete",
    after: Callable[[], object] | None = None,
) -> None:
    """Open a dialog that acts only after the name of the thing was typed.

    Args:
        name: What must be typed.
        consequence: What will be lost, in a sentence.
        action: Does it; a BudError it raises is shown in the dialog.
        verb: What the button says.
        after: Called after success, such as to leave the page; default: rerun.
    """

    @dialog(f"{verb} {escape(name)}?", icon=":material/warning:")
    def _confirm() -> None:
        st.markdown(escape(consequence))
        st.caption("Type this name to confirm:")
        st.code(name, language=None)
        # A form: the click brings what was typed, and a button that waits for it loses the click.
        with st.form(f"confirm-{verb}-{name}", border=False):
            typed = st.text_input("Name", autocomplete="off")
            if not st.form_submit_button(verb, type="primary", key="bud-confirm"):
                return
        with errors_shown():
            _check_typed((typed or "").strip(), name)
            action()
            if after is not None:
                after()
            st.rerun()

    _confirm()


def _check_typed(typed: str, name: str) -> None:
    if typed == name:
        return
    what = "Another name was typed." if typed else "No name was typed."
    raise InvalidInput(what, value=typed or None, remedy=f"Type {name}, or close this dialog.")
