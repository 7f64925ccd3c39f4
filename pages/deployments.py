"""Deployments: what runs on this machine, and what it takes there."""

from __future__ import annotations

import streamlit as st

from app import session
from app.widgets import (
    Kpi,
    badge_markdown,
    confirm_by_name,
    empty_state,
    errors_shown,
    escape,
    formats,
    job_steps,
    kpi_row,
    link_to,
    open_page,
    page_header,
    rerun_page,
)
from app.widgets.wizard import begin, draft_links
from core import jobs
from core.clusters import services as clusters
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentView
from core.kernel.errors import BudError
from core.metrics import services as metrics
from core.metrics.schemas import Window

context = session.current()
actor, project_id = context.actor, context.project_id

_POLL_S = 4.0
_MOVING = ("planned", "starting", "restarting", "stopping", "deleting")
_STATES = ("ready", "starting", "degraded", "stopped", "failed")


def _machine_card(views: list[DeploymentView]) -> None:
    machine = clusters.this_machine()
    used = machine.memory_total_bytes - machine.memory_available_bytes
    servers = sum(r.memory_bytes or 0 for view in views for r in view.replicas)
    with st.container(border=True, key="this-machine"):
        st.markdown(
            f"**:material/computer: This machine** :gray[{escape(machine.hostname)} · "
            f"{escape(machine.cpu_model)} · {escape(machine.os)}]"
        )
        kpi_row(
            [
                Kpi("Cores", formats.count(machine.cores), "That Bud may use."),
                Kpi("Memory", formats.size(machine.memory_total_bytes)),
                Kpi("Free memory", formats.size(machine.memory_available_bytes)),
                Kpi("Model servers", formats.size(servers), "Memory they hold now."),
                Kpi("Free disk", formats.size(machine.disk_free_bytes)),
            ],
            key="machine",
            border=False,
        )
        share = used / machine.memory_total_bytes
        st.progress(min(share, 1.0), f"{formats.percent(share)} of the memory is in use")


def _requests_last_hour() -> dict[str, int]:
    """Requests of the last hour by deployment; empty while the metrics are out of reach."""
    try:
        top = metrics.top(actor, project_id, Window.preset("1h"), group_by="deployment")
    except BudError:
        return {}
    return {row.group: row.requests for row in top}


def _card(view: DeploymentView, requests: int) -> None:
    with st.container(border=True, key=f"deployment-{view.id}"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            link_to("deployment", view.name, icon="rocket_launch", query={"id": view.id})
            st.markdown(
                f"{badge_markdown(view.state)} :gray-badge[{view.task}]"
                + (" :violet-badge[demo]" if view.demo else ""),
                width="stretch",
            )
            _actions(view)
        memory = sum(r.memory_bytes or 0 for r in view.replicas)
        used = f"{formats.size(memory)} memory · " if memory else ""
        st.caption(
            f"{escape(view.model_name)} · {view.ready_replicas} of {view.desired_replicas} "
            f"replica{'s' if view.desired_replicas != 1 else ''} ready · "
            f"{used}{formats.tokens(view.context_tokens)} context × {view.slots} slots · "
            f"{formats.count(requests)} request{'' if requests == 1 else 's'} in the last hour"
        )
        if view.reason:
            st.caption(f":orange[{escape(view.reason)}]")
        job = jobs.find_active(actor, project_id, f"deployment:{view.id}")
        if job is not None:
            job_steps(actor, job.id, show_title=False)


def _actions(view: DeploymentView) -> None:
    answers = view.task == "chat" and view.state in ("ready", "degraded")
    if answers and st.button(
        "Chat", icon=":material/forum:", key=f"chat-{view.id}", type="tertiary"
    ):
        open_page("playground", model=view.name)
    options = [_OPEN, _STOP if view.desired_state != "stopped" else _START]
    if view.desired_state == "running":
        options.append(_RESTART)
    options.append(_DELETE)
    picked = st.menu_button("Actions", options, key=f"actions-{view.id}", type="tertiary")
    if picked is not None:
        _act(view, picked)


_OPEN = ":material/open_in_new: Open"
_START = ":material/play_arrow: Start"
_STOP = ":material/stop: Stop"
_RESTART = ":material/restart_alt: Restart"
_DELETE = ":material/delete: Delete …"


def _act(view: DeploymentView, picked: str) -> None:
    if picked == _OPEN:
        open_page("deployment", id=view.id)
    if picked == _DELETE:
        # Opened by the page, not here: a dialog would go with the next poll of this fragment.
        st.session_state["deployments-delete"] = view
        st.rerun()
    verbs = {_START: deployments.start, _STOP: deployments.stop, _RESTART: deployments.restart}
    with errors_shown():
        verbs[picked](actor, view.id)
        st.rerun()


def _confirm_delete(view: DeploymentView) -> None:
    confirm_by_name(
        view.name,
        "Its servers stop and callers of this name get an error. Its metrics stay.",
        lambda: deployments.delete(actor, view.id),
    )


def _list(words: str, state: str | None, was_moving: bool) -> None:
    """The deployments; read anew while one of them is on its way to another state."""
    views = deployments.list_deployments(actor, project_id)
    if was_moving and not _is_moving(views):
        rerun_page()
    requests = _requests_last_hour()
    shown = [view for view in views if _matches(view, words, state)]
    if not shown:
        empty_state("Nothing matches", "Search for something else.", icon="search")
    for view in shown:
        _card(view, requests.get(view.id, 0))


def _is_moving(views: list[DeploymentView]) -> bool:
    return any(view.state in _MOVING for view in views)


def _matches(view: DeploymentView, words: str, state: str | None) -> bool:
    text = f"{view.name} {view.model_name} {view.task}".lower()
    return (state is None or view.state == state) and all(w in text for w in words.lower().split())


def main() -> None:
    """Show the page."""
    with page_header("Deployments", "Models that answer callers, and the machine they run on."):
        if st.button("Deploy a model", type="primary", icon=":material/rocket_launch:"):
            begin(actor, project_id)
    views = deployments.list_deployments(actor, project_id)
    _machine_card(views)
    draft_links(actor, project_id)
    if not views:
        clicked = empty_state(
            "Nothing is deployed yet",
            "Deploy the starter model: it answers within half a minute.",
            icon="rocket_launch",
            action="Deploy the first model",
        )
        if clicked:
            begin(actor, project_id)
        return
    words, state = "", None
    if len(views) > 1:
        left, right = st.columns([2, 3])
        words = left.text_input(
            "Search",
            key="q",
            bind="query-params",
            type="search",
            live=True,
            placeholder="Name or model",
        )
        state = right.pills("State", _STATES, key="state", bind="query-params")
    moving = _is_moving(views)
    st.fragment(_list, run_every=_POLL_S if moving else None)(words or "", state, moving)
    doomed = st.session_state.pop("deployments-delete", None)
    if doomed is not None:
        _confirm_delete(doomed)


with errors_shown():
    main()
