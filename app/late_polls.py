"""Keeps a poll of the page before from taking the page that was just opened away.

A part of a page that renews itself (`st.fragment(run_every=…)`) sends with its poll which page the
browser shows. One that is sent while the server already runs the next page, such as after a click
on a button that opens it, still names the page before. Streamlit 1.67 then takes the browser back
to it without running it: an empty page, at the new address with the old query.
"""

from __future__ import annotations

from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.runtime.app_session import AppSession


def leave_out() -> None:
    """Leave out such polls from now on, in all sessions of this process."""
    take = AppSession.request_rerun

    def take_what_is_of_this_page(session: AppSession, asked: ClientState | None) -> None:
        if asked is None or not is_late(asked, session.page_script_hash):
            take(session, asked)

    AppSession.request_rerun = take_what_is_of_this_page  # type: ignore[assignment,method-assign]


def is_late(asked: ClientState, page_script_hash: str) -> bool:
    """Whether it is a poll of another page than the one that the server runs or has run last."""
    return asked.is_auto_rerun and asked.page_script_hash != page_script_hash
