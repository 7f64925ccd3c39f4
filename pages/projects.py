"""Projects: what keeps the work of one team from that of another."""

from __future__ import annotations

import streamlit as st

from app import session
from app.widgets import (
    Kpi,
    dialog,
    errors_shown,
    escape,
    formats,
    kpi_row,
    page_header,
    table_with_downloads,
)
from core.accounts import services as accounts
from core.accounts.schemas import UserView
from core.projects import services as projects
from core.projects.schemas import ProjectView

context = session.current()
actor = context.actor
_ROLES = {"no access": None, "member": "member", "admin": "admin"}


@dialog("New project", icon=":material/create_new_folder:")
def _create_dialog() -> None:
    with st.form("new-project", border=False):
        name = st.text_input("Name", placeholder="Research", max_chars=80)
        st.caption("It starts empty; admins see it at once, others when they are added to it.")
        if not st.form_submit_button("Create", type="primary"):
            return
    with errors_shown():
        projects.create_project(actor, name)
        st.rerun()


def _row(project: ProjectView, users: list[UserView] | None) -> dict[str, object]:
    row: dict[str, object] = {
        "Name": project.name,
        "Now": "chosen" if project.id == context.project_id else "",
    }
    if users is None:
        row["Your role"] = "admin" if actor.is_admin else actor.projects.get(project.id, "")
    else:
        row["People"] = sum(
            user.enabled and (user.role == "admin" or project.id in user.projects) for user in users
        )
    return row | {
        "Kind": "demo" if project.demo else "real",
        "Created": project.created_at,
        "Id": project.id,
    }


def _members(users: list[UserView]) -> None:
    st.subheader(f"Who works in {escape(context.project_name)}")
    st.caption(
        "Admins of this installation are in every project. Taking somebody's access away also "
        "revokes the API keys that they made in it."
    )
    with st.container(border=True, key="members"):
        for user in users:
            _member(user)


def _member(user: UserView) -> None:
    left, right = st.columns([3, 2], vertical_alignment="center")
    left.markdown(f"**{escape(user.name)}** :gray[{escape(user.email)}]")
    if user.role == "admin":
        right.caption("admin of this installation")
        return
    key = f"member-{context.project_id}-{user.id}"
    right.segmented_control(
        f"Role of {user.email}",
        list(_ROLES),
        default=user.projects.get(context.project_id, "no access"),
        required=True,
        key=key,
        label_visibility="collapsed",
        on_change=_set_role,
        args=(user, key),
    )


def _set_role(user: UserView, key: str) -> None:
    with errors_shown():
        role = _ROLES[st.session_state[key]]
        projects.set_member(actor, context.project_id, user.id, role)


def main() -> None:
    """Show the page."""
    with page_header("Projects", "Models, deployments, keys and metrics belong to one each."):
        if actor.may("project:create") and st.button(
            "New project", type="primary", icon=":material/create_new_folder:"
        ):
            _create_dialog()
    known = projects.list_projects(actor)
    users = accounts.list_users(actor) if actor.may("user:read") else None
    kpi_row([Kpi("Projects", formats.count(len(known))), Kpi("Chosen", context.project_name)])
    table_with_downloads(
        [_row(project, users) for project in known],
        name="projects",
        columns={"Created": st.column_config.DatetimeColumn(format="distance"), "Id": None},
    )
    if len(known) > 1:
        st.caption("Choose the project that the other pages show in the sidebar.")
    if users is not None:
        _members([user for user in users if user.enabled])


with errors_shown():
    main()
