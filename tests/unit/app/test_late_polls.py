"""A poll of the page before is left out; polls of this page and what people do are taken."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.runtime.app_session import AppSession

from app import late_polls


@pytest.mark.parametrize(
    ("asked", "is_taken"),
    [
        (ClientState(page_script_hash="before", is_auto_rerun=True, fragment_id="poll"), False),
        (ClientState(page_script_hash="now", is_auto_rerun=True, fragment_id="poll"), True),
        # A click, or the way to another page.
        (ClientState(page_script_hash="before"), True),
        # The session's own rerun.
        (None, True),
    ],
)
def test_only_a_poll_of_another_page_is_left_out(
    monkeypatch: pytest.MonkeyPatch, asked: ClientState | None, is_taken: bool
) -> None:
    taken: list[ClientState | None] = []
    monkeypatch.setattr(AppSession, "request_rerun", lambda _session, given: taken.append(given))
    late_polls.leave_out()
    session = SimpleNamespace(page_script_hash="now")
    AppSession.request_rerun(session, asked)  # type: ignore[arg-type]
    assert taken == ([asked] if is_taken else [])


def test_streamlit_says_which_page_a_session_is_on() -> None:
    assert isinstance(AppSession.page_script_hash, property)
