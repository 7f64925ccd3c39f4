"""Users: who may log in, and as what."""

from __future__ import annotations

import streamlit as st

from app import session
from app.widgets import page_header
from core.accounts import services as accounts
from core.accounts.schemas import UserView
from core.kernel.errors import BudError

context = session.current()


def _show_password(email: str, password: str) -> None:
    st.success(f"Hand this to {email}. It works once and must be changed at the first log-in.")
    st.code(password, language=None)


@st.dialog("Add a user")
def _add() -> None:
    with st.form("add_user", border=False):
        email = st.text_input("E-mail", placeholder="ana@example.org")
        name = st.text_input("Name")
        role = st.segmented_control("Role", ["member", "admin"], default="member")
        st.caption(
            "A member uses and deploys models in their projects. An admin also manages people, "
            "prices and settings."
        )
        if not st.form_submit_button("Add", type="primary"):
            return
    try:
        new = accounts.add_user(context.actor, email, name, role or "member", context.project_id)
    except BudError as error:
        st.error(str(error))
        return
    _show_password(new.user.email, new.one_time_password.reveal())


@st.dialog("Manage user")
def _manage(user: UserView) -> None:
    st.markdown(f"**{user.name}** · {user.email} · {user.role}")
    try:
        role = "member" if user.role == "admin" else "admin"
        if st.button(f"Make {role}", width="stretch", icon=":material/badge:"):
            accounts.set_role(context.actor, user.id, role)
            st.rerun()
        if st.button("Reset password", width="stretch", icon=":material/lock_reset:"):
            _show_password(user.email, accounts.reset_password(context.actor, user.id).reveal())
        if user.enabled:
            st.caption("Disabling ends their sessions and API keys at once.")
            typed = st.text_input(f"Type {user.email} to disable")
            if st.button("Disable", disabled=typed != user.email, width="stretch"):
                accounts.set_user_enabled(context.actor, user.id, False)
                st.rerun()
        elif st.button("Enable", width="stretch"):
            accounts.set_user_enabled(context.actor, user.id, True)
            st.rerun()
    except BudError as error:
        st.error(str(error))


page_header("Users", "Who may log in, and what they may do.")
if not context.actor.may("user:read"):
    st.info("Only admins see this page. Ask one to add somebody to your project.")
    st.stop()

if st.button("Add user", type="primary", icon=":material/person_add:"):
    _add()
users = accounts.list_users(context.actor)
enabled = sum(user.enabled for user in users)
admins = sum(user.enabled and user.role == "admin" for user in users)
st.caption(f"{enabled} enabled · {admins} admin · {len(users) - enabled} disabled")
chosen = st.dataframe(
    [
        {
            "Name": user.name,
            "E-mail": user.email,
            "Role": user.role,
            "State": ("enabled" if user.enabled else "disabled")
            + (" · demo" if user.demo else "")
            + (" · password to be changed" if user.must_change_password else ""),
            "Last log-in": user.last_log_in_at,
            "Added": user.created_at,
        }
        for user in users
    ],
    column_config={
        "Last log-in": st.column_config.DatetimeColumn(format="distance"),
        "Added": st.column_config.DatetimeColumn(format="distance"),
    },
    hide_index=True,
    on_select="rerun",
    selection_mode="single-row",
    key="users_table",
)
st.caption("Select a row to change the role, reset the password or disable somebody.")
if chosen.selection.rows:
    _manage(users[chosen.selection.rows[0]])
