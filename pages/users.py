"""Users: who may log in, and as what."""

from __future__ import annotations

import streamlit as st

from app import session
from app.widgets import (
    Kpi,
    badge_markdown,
    confirm_by_name,
    dialog,
    empty_state,
    errors_shown,
    escape,
    formats,
    kpi_row,
    page_header,
    table_with_downloads,
)
from core.accounts import services as accounts
from core.accounts.schemas import UserView
from core.kernel.crypto import Secret
from core.projects import services as projects

context = session.current()
actor = context.actor
_ONE_TIME = "users-one-time-password"


def _hand_over(email: str, password: Secret) -> None:
    st.success(
        f"Hand this one-time password to {escape(email)}. It is shown once, and must be changed "
        "at the first log-in.",
        icon=":material/key:",
    )
    st.code(password.reveal(), language=None)


@dialog("Add a user", icon=":material/person_add:")
def _add_dialog() -> None:
    names = {project.name: project.id for project in projects.list_projects(actor)}
    with st.form("add-user", border=False):
        email = st.text_input("E-mail", placeholder="ana@example.org", autocomplete="off")
        name = st.text_input("Name", placeholder="automatic: the part before the @")
        project = st.selectbox(
            "Project", list(names), index=list(names).index(context.project_name)
        )
        role = st.segmented_control("Role", ["member", "admin"], default="member", required=True)
        st.caption(
            "A member uses and deploys the models of their projects. An admin also manages people, "
            "prices and keys, in every project."
        )
        added = st.form_submit_button("Add", type="primary")
    if not added:
        return
    with errors_shown():
        new = accounts.add_user(actor, email, name, role, names[project])
        _hand_over(new.user.email, new.one_time_password)


def _state(user: UserView) -> str:
    return "enabled" if user.enabled else "disabled"


def _row(user: UserView, project_names: dict[str, str]) -> dict[str, object]:
    names = sorted(project_names.get(project_id, "") for project_id in user.projects)
    return {
        "Name": user.name,
        "E-mail": user.email,
        "Role": user.role,
        "State": _state(user),
        "Password": "one-time" if user.must_change_password else "own",
        "Projects": "all" if user.role == "admin" else ", ".join(names) or formats.NONE,
        "Last log-in": user.last_log_in_at,
        "Added": user.created_at,
        "Demo": user.demo,
        "Id": user.id,
    }


def _reset(user: UserView) -> None:
    st.session_state[_ONE_TIME] = (user.email, accounts.reset_password(actor, user.id))


def _details(user: UserView) -> None:
    is_me = user.id == actor.user_id
    other_role = "member" if user.role == "admin" else "admin"
    with st.container(border=True, key="user-details"):
        st.markdown(f"#### {escape(user.name)} {badge_markdown(_state(user))}")
        st.caption(f"{escape(user.email)} · {user.role}{' · that is you' if is_me else ''}")
        with st.container(horizontal=True):
            if st.button(f"Make {other_role}", icon=":material/badge:"):
                with errors_shown():
                    accounts.set_role(actor, user.id, other_role)
                    st.rerun()
            if st.button("Reset password", icon=":material/lock_reset:", disabled=is_me):
                with errors_shown():
                    _reset(user)
                    st.rerun()
            if st.button("End sessions", icon=":material/logout:"):
                with errors_shown():
                    accounts.revoke_sessions(actor, user.id)
                    st.toast(f"{user.email} is logged out everywhere.")
            if not user.enabled and st.button("Enable", icon=":material/check_circle:"):
                with errors_shown():
                    accounts.set_user_enabled(actor, user.id, True)
                    st.rerun()
            if user.enabled and st.button("Disable …", icon=":material/block:", disabled=is_me):
                confirm_by_name(
                    user.email,
                    "Their sessions and API keys end at once. What they deployed goes on.",
                    lambda: accounts.set_user_enabled(actor, user.id, False),
                    verb="Disable",
                )


def main() -> None:
    """Show the page."""
    with page_header("Users", "Who may log in, and what they may do."):
        may_add = actor.may("user:create")
        if may_add and st.button("Add user", type="primary", icon=":material/person_add:"):
            _add_dialog()
    if not actor.may("user:read"):
        empty_state(
            "Only admins see this page",
            "Ask an admin to add somebody to your project.",
            icon="lock",
        )
        return
    if _ONE_TIME in st.session_state:
        _hand_over(*st.session_state.pop(_ONE_TIME))
    users = accounts.list_users(actor)
    enabled = [user for user in users if user.enabled]
    kpi_row(
        [
            Kpi("Enabled", formats.count(len(enabled))),
            Kpi("Admins", formats.count(sum(user.role == "admin" for user in enabled))),
            Kpi(
                "One-time passwords",
                formats.count(sum(user.must_change_password for user in enabled)),
                help="Users who have not chosen their own password yet.",
            ),
            Kpi("Disabled", formats.count(len(users) - len(enabled))),
        ]
    )
    names = {project.id: project.name for project in projects.list_projects(actor)}
    chosen = table_with_downloads(
        [_row(user, names) for user in users],
        name="users",
        columns={
            "Last log-in": st.column_config.DatetimeColumn(format="distance"),
            "Added": st.column_config.DatetimeColumn(format="distance"),
            "Demo": None if not any(user.demo for user in users) else st.column_config.Column(),
            "Id": None,
        },
        selectable=True,
    )
    if chosen is None or chosen >= len(users):
        st.caption("Click a row to change a role, reset a password or disable somebody.")
        return
    _details(users[chosen])


with errors_shown():
    main()
