"""The page script: who is there, the navigation, then the page itself."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from app import history, session, sidebar, theme
from app.warming import visits
from app.widgets import errors_shown, escape, none_is_open
from core.accounts import services as accounts

ROOT = Path(__file__).resolve().parents[1]
_SESSION_CHECK_S = 4
_TO_LOG_IN = """<script>
const here = window.location.pathname + window.location.search;
window.location.replace("/auth/login?next=" + encodeURIComponent(here));
</script>"""

# Section → (file, title, icon); the first of all is the start page.
_SECTIONS: dict[str, list[tuple[str, str, str]]] = {
    "": [("home", "Home", ":material/home:")],
    "Models": [
        ("models", "Models", ":material/deployed_code:"),
        ("licences", "Licences", ":material/gavel:"),
        ("deployments", "Deployments", ":material/rocket_launch:"),
        ("playground", "Playground", ":material/forum:"),
        ("leaderboards", "Leaderboards", ":material/leaderboard:"),
        ("compare", "Compare", ":material/compare_arrows:"),
    ],
    "Plan": [("what_if", "What if", ":material/tune:")],
    "Operate": [
        ("gateway", "Gateway", ":material/alt_route:"),
        ("guardrails", "Guardrails", ":material/shield:"),
        ("metrics", "Metrics", ":material/monitoring:"),
        ("jobs", "Jobs", ":material/task:"),
    ],
    "Access": [
        ("api_keys", "API keys", ":material/key:"),
        ("users", "Users", ":material/group:"),
        ("projects", "Projects", ":material/folder:"),
    ],
    "System": [("settings", "Settings", ":material/settings:")],
}
_URLS = {"what_if": "what-if"}
_HIDDEN = [
    ("deployment", "Deployment", ":material/rocket_launch:"),
    ("deploy", "Deploy", ":material/rocket_launch:"),
    ("model", "Model", ":material/deployed_code:"),
]


def main() -> None:
    """Show the page, or the way to the log-in."""
    st.set_page_config(page_title="Bud", page_icon=theme.LOGO_SVG, layout="wide")
    theme.apply()
    history.mend()
    sidebar.close_after_choice()
    none_is_open()
    # One row above the navigation (theme.py puts it there): which project, and who.
    with st.sidebar:
        row = st.container(horizontal=True, vertical_alignment="center", key="bud-who", gap="small")
    with row:
        context = session.open_session()
    if context is None:
        _logged_out()
        return
    # All of it: a page behind "View more" is a page nobody finds.
    page = st.navigation(_pages(), expanded=True)
    st.set_page_config(page_title=f"{page.title} · Bud")
    with row:
        _account(context)
    # Before the page, which may end the run.
    _watch(context)
    with visits.page(), errors_shown():
        page.run()


def _pages() -> dict[str, list[st.Page]]:
    pages = {
        section: [_page(*entry, visible=True) for entry in entries]
        for section, entries in _SECTIONS.items()
    }
    pages["System"] += [_page(*entry, visible=False) for entry in _HIDDEN]
    return pages


def _page(name: str, title: str, icon: str, *, visible: bool) -> st.Page:
    return st.Page(
        ROOT / "pages" / f"{name}.py",
        title=title,
        icon=icon,
        url_path=_URLS.get(name, name),
        default=name == "home",
        visibility="visible" if visible else "hidden",
    )


def _account(context: session.SessionContext) -> None:
    user = context.user
    with st.popover(escape(user.name), icon=":material/account_circle:", width="stretch"):
        st.markdown(f"**{escape(user.email)}**  \n{user.role} · {escape(context.project_name)}")
        st.link_button("Change password", "/auth/password", width="stretch")
        if st.button("Log out", icon=":material/logout:", width="stretch"):
            accounts.log_out(context.token)
            st.rerun()


def _logged_out() -> None:
    st.title("You are logged out")
    st.write("Your session has ended: you logged out, it expired, or an admin ended it.")
    st.html('<a href="/auth/login" target="_self">Log in again</a>')
    st.html(_TO_LOG_IN, unsafe_allow_javascript=True)


@st.fragment(run_every=_SESSION_CHECK_S)
def _watch(context: session.SessionContext) -> None:
    """End an open tab within five seconds of the session's end; show new rights as soon."""
    if not session.is_current(context):
        st.rerun()


main()
