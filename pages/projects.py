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
from core.captures import services as captures
from core.kernel.errors import InvalidInput
from core.projects import services as projects
from core.projects.schemas import ProjectView

context = session.current()
actor = context.actor
_ROLES = {"no access": None, "member": "member", "admin": "admin"}


@dialog("New project", icon=":material/create_new_folder:")
def _create_dialog() -> None:
    with st.form("new-project", border=False):
        name = st.text_input("Name", placeholder="Research")
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


def _captures() -> None:
    kept = captures.get_capture(actor, context.project_id)
    st.subheader("Prompts and answers")
    st.caption(
        f"When this is on, the gateway keeps what {escape(context.project_name)} asks and is "
        "answered. Keys, addresses and numbers are taken out; names and what people tell are not. "
        "Admins read it with: bud captures list"
    )
    with st.form("captures"):
        on = st.toggle("Keep prompts and answers", value=kept is not None and kept.enabled)
        left, right = st.columns(2)
        # Without bounds: a number out of them would stay in the browser, and the one before count.
        keep_days = left.number_input(
            "Days until they are deleted",
            value=kept.keep_days if kept else captures.DEFAULT_DAYS,
        )
        max_mb = right.number_input(
            "What they may take, in MB",
            value=kept.max_mb if kept else captures.DEFAULT_MB,
        )
        if st.form_submit_button("Save"):
            with errors_shown():
                _set_captures(on=on, keep_days=keep_days, max_mb=max_mb)
    if kept is not None and kept.used_bytes:
        st.caption(f"{formats.size(kept.used_bytes)} are kept now.")


def _set_captures(*, on: bool, keep_days: int, max_mb: int) -> None:
    try:
        captures.set_capture(
            actor, context.project_id, enabled=on, keep_days=keep_days, max_mb=max_mb
        )
    except InvalidInput:
        if not on:
            _stop_keeping()
        raise
    st.toast("Saved: prompts and answers are kept." if on else "Saved: nothing is kept from now.")
    st.rerun()


def _stop_keeping() -> None:
    """Off, as the screen shows it, whatever is wrong with the numbers beside it."""
    kept = captures.get_capture(actor, context.project_id)
    if kept is not None and kept.enabled:
        captures.turn_off(actor, context.project_id)
        st.toast("Prompts and answers are not kept from now; the numbers are not saved.")


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
        st.caption("All pages show one project; the box at the top of the sidebar changes it.")
    if users is not None:
        _members([user for user in users if user.enabled])
    if actor.may("capture:update", context.project_id):
        _captures()


with errors_shown():
    main()
