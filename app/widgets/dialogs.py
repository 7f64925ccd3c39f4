"""Dialogs that every page uses."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from app.widgets.layout import errors_shown, escape


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

    @st.dialog(f"{verb} {escape(name)}?", icon=":material/warning:")
    def _confirm() -> None:
        st.markdown(escape(consequence))
        st.caption("Type this name to confirm:")
        st.code(name, language=None)
        typed = st.text_input("Name", live=True, key=f"confirm-{verb}-{name}", autocomplete="off")
        matches = (typed or "").strip() == name
        if st.button(f"{verb}", type="primary", disabled=not matches, key="bud-confirm"):
            with errors_shown():
                action()
                if after is not None:
                    after()
                st.rerun()

    _confirm()
