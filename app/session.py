"""Who looks at the page, and which project they have chosen."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from app import last_project
from app.guard import SESSION_COOKIE
from app.widgets import escape
from core.accounts import services as accounts
from core.accounts.schemas import UserView
from core.kernel.actor import Actor
from core.projects import services as projects
from core.projects.schemas import ProjectView

_KEY = "bud_session_context"
_PROJECT = last_project.NAME


@dataclass(frozen=True)
class SessionContext:
    """What a page needs to call services."""

    actor: Actor
    user: UserView
    project: ProjectView
    token: str

    @property
    def project_id(self) -> str:
        """The chosen project."""
        return self.project.id

    @property
    def project_name(self) -> str:
        """The chosen project's name."""
        return self.project.name


def current() -> SessionContext:
    """The session of this page; the page script has opened it, or has stopped."""
    context: SessionContext = st.session_state[_KEY]
    return context


def open_session() -> SessionContext | None:
    """Read the cookie and choose the project, in a box here where there are several.

    None when nobody is logged in.
    """
    token = st.context.cookies.get(SESSION_COOKIE, "")
    who = accounts.logged_in(token)
    if who is None:
        return None
    known = projects.list_projects(who.actor)
    if not known:
        st.error("You are not a member of any project. Ask an admin to add you to one.")
        st.stop()
    chosen = _chosen(known, who.user.last_project_id)
    # With one project there is no choice to remember.
    if len(known) > 1 and chosen.id != who.user.last_project_id:
        accounts.remember_project(who.actor, chosen.id)
    context = SessionContext(who.actor, who.user, chosen, token)
    st.session_state[_KEY] = context
    return context


def _chosen(known: list[ProjectView], last_id: str | None) -> ProjectView:
    """The project of the address, else the one that was looked at last."""
    names = [project.name for project in known]
    if len(known) == 1:
        return known[0]
    asked = st.query_params.get(_PROJECT)
    if asked not in names and _PROJECT not in st.session_state:
        st.session_state[_PROJECT] = last_project.of(known, last_id).name
    # Without a default, which the address would leave out: a link leads everybody to one project.
    name = st.selectbox(
        "Project", names, index=None, required=True, key=_PROJECT, bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    chosen = known[names.index(name)] if name in names else known[0]
    if asked and asked not in names:
        st.toast(
            f"You have no project “{escape(asked)}”. This is {escape(chosen.name)}.",
            icon=":material/folder_off:",
        )
    return chosen


def choose(project_name: str) -> None:
    """Go to another project; for a button's `on_click`."""
    st.session_state[_PROJECT] = project_name


def is_current(context: SessionContext) -> bool:
    """Whether the session lives, with the same rights; cheap enough to ask every few seconds."""
    who = accounts.logged_in(context.token)
    return who is not None and who.actor == context.actor
