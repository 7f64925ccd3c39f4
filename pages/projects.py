"""Projects: what keeps the work of one team from that of another."""

from __future__ import annotations

import streamlit as st

from app import session
from app.widgets import page_header
from core.accounts import services as accounts
from core.kernel.errors import BudError
from core.projects import services as projects

context = session.current()


@st.dialog("New project")
def _create() -> None:
    name = st.text_input("Name", placeholder="Research")
    if st.button("Create", type="primary", disabled=not name.strip()):
        try:
            projects.create_project(context.actor, name)
            st.rerun()
        except BudError as error:
            st.error(str(error))


page_header("Projects", "Models, deployments, keys and metrics belong to one project each.")
known = projects.list_projects(context.actor)
if context.actor.may("project:create") and st.button(
    "New project", type="primary", icon=":material/create_new_folder:"
):
    _create()
st.dataframe(
    [
        {
            "Name": project.name,
            "Chosen now": project.id == context.project_id,
            "Demo": project.demo,
            "Created": project.created_at,
        }
        for project in known
    ],
    column_config={"Created": st.column_config.DatetimeColumn(format="distance")},
    hide_index=True,
)
if len(known) > 1:
    st.caption("Change the project at the top of the sidebar.")

if context.actor.may("user:read"):
    st.subheader(f"Members of {context.project_name}")
    users = [user for user in accounts.list_users(context.actor) if user.enabled]
    roles = {"none": None, "member": "member", "admin": "admin"}
    for user in users:
        left, right = st.columns([3, 2], vertical_alignment="center")
        left.markdown(f"{user.name}  \n:gray[{user.email}]")
        present = user.projects.get(context.project_id)
        if user.role == "admin":
            right.caption("admin of everything")
            continue
        chosen = right.segmented_control(
            f"Role of {user.email}",
            list(roles),
            default=present or "none",
            key=f"role_{context.project_id}_{user.id}",
            label_visibility="collapsed",
        )
        if chosen is not None and roles[chosen] != present:
            accounts.set_membership(context.actor, context.project_id, user.id, roles[chosen])
            st.rerun()
