"""One deployment: how it is, how to call it, and everything that can be done with it."""

from __future__ import annotations

from contextlib import suppress

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
    job_steps,
    kpi_row,
    link_to,
    meaning,
    open_page,
    page_header,
    rerun_page,
    show_error,
    table_with_downloads,
)
from app.widgets.deploy import engine_settings, version_words
from app.widgets.memory import fit_bar, memory_bar
from app.widgets.wizard_predicted import predicted_beside_measured, repredicted
from core import jobs
from core.clusters import services as clusters
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentRequest, DeploymentView, Fit, ReplicaView
from core.kernel import audit, clock
from core.kernel.errors import BudError, NotFound
from core.kernel.settings import settings
from core.metrics import services as metrics
from core.metrics.schemas import Filters, RequestRow, Window
from core.playground import snippets
from core.playground.schemas import ChatRequest
from core.registry import services as registry
from core.registry import versions

context = session.current()
actor, project_id = context.actor, context.project_id

_POLL_S = 4.0
_LOG_POLL_S = 2.0
_LOG_BYTES = 48_000
_RECENT = 50
_MOVING = ("planned", "starting", "restarting", "degraded", "stopping", "deleting")
_VIEWS = ("Overview", "Replicas", "Logs", "Requests", "History")
_SCALE = ":material/stacks: Scale …"
_EDIT = ":material/tune: Edit settings …"
_COPY = ":material/content_copy: Copy …"
_DELETE = ":material/delete: Delete …"


def _request(view: DeploymentView, **changes: object) -> DeploymentRequest:
    """What the deployment asks for now, with changes."""
    request = DeploymentRequest(
        project_id=view.project_id,
        name=view.name,
        model_id=view.model_id,
        task=view.task,
        context_tokens=view.context_tokens,
        slots=view.slots,
        threads=view.threads,
        replicas=view.desired_replicas,
    )
    return request.model_copy(update=changes)


def _fit(view: DeploymentView, request: DeploymentRequest, *, replacing: bool) -> Fit | None:
    """Show whether the request fits; None, with the error, when it makes no sense."""
    try:
        fit = deployments.check_fit(actor, request, replacing=view.id if replacing else None)
    except BudError as error:
        show_error(error)
        return None
    fit_bar(fit)
    if replacing and view.task == "chat":
        repredicted(actor, view, fit)
    return fit


@dialog("Scale", icon=":material/stacks:")
def _scale_dialog(view: DeploymentView) -> None:
    replicas = st.number_input("Replicas", 1, 32, view.desired_replicas)
    st.caption("Those that stay go on answering.")
    fit = _fit(view, _request(view, replicas=replicas), replacing=True)
    unchanged = replicas == view.desired_replicas
    if st.button("Scale", type="primary", disabled=unchanged or fit is None or not fit.fits):
        with errors_shown():
            deployments.scale(actor, view.id, replicas)
            st.rerun()


@dialog("Edit settings", width="medium", icon=":material/tune:")
def _edit_dialog(view: DeploymentView) -> None:
    if view.desired_state == "running":
        st.warning(
            "Saving restarts it, one replica at a time. Requests in flight are finished first"
            + (
                "; with one replica, callers wait until it is back."
                if view.desired_replicas == 1
                else "."
            ),
            icon=":material/restart_alt:",
        )
    name = st.text_input(
        "Name",
        view.name,
        max_chars=63,
        key=f"edit-name-{view.id}",
        help="The model name that callers use. A new one holds at once, without a restart, and "
        "callers of the old one get an error.",
    ).strip()
    asked = dict(view.requested)
    asked["context_tokens"], asked["slots"], asked["threads"] = engine_settings(
        registry.get_model(actor, view.model_id),
        key=f"edit-{view.id}-{view.generation}",
        context_tokens=asked["context_tokens"],
        slots=asked["slots"],
        threads=asked["threads"],
    )
    fit = _fit(view, _request(view, **asked), replacing=True)
    restarts = asked != view.requested
    unchanged = not restarts and name == view.name
    if st.button(
        "Save and restart" if restarts else "Save",
        type="primary",
        disabled=unchanged or fit is None or not fit.fits,
        key="edit-save",
    ):
        with errors_shown():
            deployments.edit(actor, view.id, name=name, **asked)
            st.rerun()


@dialog("Copy", icon=":material/content_copy:")
def _copy_dialog(view: DeploymentView) -> None:
    model = registry.get_model(actor, view.model_id)
    name = st.text_input("Name of the copy", deployments.suggest_name(actor, project_id, model))
    fit = _fit(view, _request(view, name=name or ""), replacing=False)
    if st.button("Deploy the copy", type="primary", disabled=fit is None or not fit.fits):
        with errors_shown():
            open_page("deployment", id=deployments.copy(actor, view.id, name or "").id)


def _confirm_delete(view: DeploymentView) -> None:
    confirm_by_name(
        view.name,
        "Its servers stop and callers of this name get an error. Its metrics stay.",
        lambda: deployments.delete(actor, view.id),
        after=lambda: open_page("deployments"),
    )


def _header(view: DeploymentView) -> None:
    badges = [badge_markdown(view.state)] + ([":violet-badge[demo]"] if view.demo else [])
    with page_header(view.name, meaning(view.state), badges):
        if view.task == "chat" and st.button(
            "Chat", icon=":material/forum:", disabled=view.state not in ("ready", "degraded")
        ):
            open_page("playground", model=view.name)
        if view.desired_state == "stopped" or view.state == "failed":
            _button("Start", "play_arrow", view, deployments.start)
        if view.desired_state in ("running", "planned"):
            _button("Stop", "stop", view, deployments.stop)
        if view.desired_state == "running":
            _button("Restart", "restart_alt", view, deployments.restart)
        dialogs = {
            _SCALE: _scale_dialog,
            _EDIT: _edit_dialog,
            _COPY: _copy_dialog,
            _DELETE: _confirm_delete,
        }
        picked = st.menu_button("More", list(dialogs))
        if picked is not None:
            dialogs[picked](view)
    if view.reason:
        box = st.error if view.state == "failed" else st.warning
        box(escape(view.reason), icon=":material/info:")


def _button(label: str, icon: str, view: DeploymentView, act: object) -> None:
    if st.button(label, icon=f":material/{icon}:", disabled=view.desired_state == "deleted"):
        with errors_shown():
            act(actor, view.id)  # type: ignore[operator]  # start, stop or restart
            st.rerun()


def _kpis(deployment_id: str, shown_state: str) -> None:
    """Replicas and traffic; read anew while the deployment runs or moves."""
    try:
        view = deployments.get_deployment(actor, deployment_id)
    except NotFound:
        rerun_page()
        return
    if view.state != shown_state:
        rerun_page()
    held = [replica.memory_bytes for replica in view.replicas if replica.memory_bytes]
    kpis = [
        Kpi("Replicas ready", f"{view.ready_replicas} of {view.desired_replicas}"),
        Kpi(
            "Memory",
            formats.size(sum(held)) if held else None,
            f"What its servers hold now; planned {formats.size(view.planned_bytes)}.",
        ),
    ]
    try:
        hour = metrics.summary(
            actor, project_id, Window.preset("1h"), Filters(deployment_id=deployment_id)
        )
    except BudError as error:
        kpi_row(kpis)
        st.caption(f"Metrics are out of reach: {escape(error.what)}")
        return
    kpis += [
        Kpi(
            "Requests, 1 h",
            formats.count(hour.requests),
            "In the last hour, and the share of the admitted ones that failed.",
            f"{formats.percent(hour.error_rate)} errors" if hour.requests else None,
        ),
        Kpi("TTFT p50", formats.ms(hour.ttft.p50_ms), "Time to first token, last hour."),
        Kpi(
            "Tokens/s",
            formats.rate(hour.generation_tokens_per_s),
            "Generated for one request; median over the requests of the last hour.",
        ),
    ]
    kpi_row(kpis)


def _job(view: DeploymentView) -> None:
    active = jobs.find_active(actor, project_id, f"deployment:{view.id}")
    if active is not None:
        job_steps(actor, active.id)
        return
    newest = jobs.list_jobs(actor, project_id, subject=f"deployment:{view.id}", limit=1)
    if newest and newest[0].state == "failed" and view.state == "failed":
        job_steps(actor, newest[0].id)


def _overview(view: DeploymentView) -> None:
    left, right = st.columns([3, 2], gap="large")
    with left:
        _endpoint(view)
    with right:
        _chosen(view)
    predicted_beside_measured(actor, view)


def _endpoint(view: DeploymentView) -> None:
    base_url = settings().gateway_url
    st.markdown("### Call it")
    first, second = st.columns(2)
    first.caption("Base URL")
    first.code(f"{base_url}/v1", language=None)
    second.caption("Model name")
    second.code(view.name, language=None)
    if view.task == "embedding":
        st.code(snippets.curl_embeddings(base_url, view.name, "A sentence."), language="bash")
    else:
        request = ChatRequest(model=view.name, messages=[{"role": "user", "content": "Hello"}])
        curl, python, javascript = st.tabs(["curl", "Python", "JavaScript"])
        curl.code(snippets.curl(base_url, request), language="bash")
        python.code(snippets.python(base_url, request), language="python")
        javascript.code(snippets.javascript(base_url, request), language="javascript")
    st.caption("`BUD_API_KEY` is a key of this project.")
    link_to("api_keys", "Create an API key", icon="key")


def _chosen(view: DeploymentView) -> None:
    st.markdown("### How it runs")
    link_to("model", view.model_name, icon="deployed_code", query={"id": view.model_id})
    if view.model_version_id is not None:
        with suppress(NotFound):  # it was deleted from the registry; what runs goes on
            st.caption(f"{version_words(versions.get_version(actor, view.model_version_id))}.")
    chosen = {name: value is None for name, value in view.requested.items()}
    rows = {
        "Task": view.task,
        "Context": f"{formats.tokens(view.context_tokens)} each request"
        + _by(chosen.get("context_tokens")),
        "Slots": f"{view.slots} request{'' if view.slots == 1 else 's'} at once"
        + _by(chosen.get("slots")),
        "CPU threads": f"{view.threads} each replica" + _by(chosen.get("threads")),
        "Created": f"{formats.when(view.created_at)} by {view.created_by_name}",
        "Restarts of its servers": formats.count(sum(r.restarts for r in view.replicas)),
    }
    for name, value in rows.items():
        with st.container(gap=None):
            st.caption(name)
            st.markdown(escape(value))
    try:
        fit = deployments.check_fit(actor, _request(view), replacing=view.id)
    except BudError as error:
        st.caption(escape(str(error)))
        return
    st.markdown(
        f"**Memory planned** {formats.size(fit.needed_bytes)}, of "
        f"{formats.size(clusters.this_machine().memory_total_bytes)} in this machine"
    )
    parts = (
        ("weights", fit.weights_bytes),
        ("KV cache", fit.kv_cache_bytes),
        ("compute buffers", fit.compute_bytes),
        ("process", fit.overhead_bytes),
    )
    memory_bar([(name, each * fit.replicas) for name, each in parts], fit.needed_bytes)


def _by(chosen_by_bud: bool | None) -> str:
    return " (chosen by Bud)" if chosen_by_bud else ""


def _replicas(deployment_id: str) -> None:
    view = deployments.get_deployment(actor, deployment_id)
    if not view.replicas:
        empty_state("No replica", "Start the deployment to get one.", icon="dns")
        return
    table_with_downloads(
        [_replica_row(replica) for replica in view.replicas], name=f"replicas-{view.name}"
    )


def _replica_row(replica: ReplicaView) -> dict[str, object]:
    since = replica.ready_at or replica.started_at
    up_s = (clock.now() - since).total_seconds() if since is not None else None
    return {
        "Replica": replica.index,
        "State": replica.state,
        "Process": replica.pid,
        "Port": replica.port,
        "Memory": formats.size(replica.memory_bytes),
        "Up": formats.duration(up_s if replica.state == "ready" else None),
        "Restarts": replica.restarts,
        "Last error": replica.last_error or formats.NONE,
    }


def _logs(view: DeploymentView) -> None:
    indexes = sorted({replica.index for replica in view.replicas} | {0})
    with st.container(horizontal=True, vertical_alignment="bottom"):
        index = st.selectbox("Replica", indexes, key="replica", width=140, bind="query-params")
        follow = st.toggle("Follow", value=True, key="follow", help="Read on every 2 s.")
        words = st.text_input(
            "Only lines with", key="logs-filter", type="search", live=True, width=280
        )
    st.fragment(_log_lines, run_every=_LOG_POLL_S if follow else None)(
        view.id, index or 0, words or ""
    )


def _log_lines(deployment_id: str, index: int, words: str) -> None:
    chunk = deployments.logs(actor, deployment_id, index, limit=_LOG_BYTES)
    lines = [line for line in chunk.lines if words.lower() in line.lower()]
    if not lines:
        st.caption("No line yet." if not words else "No line has this.")
        return
    with st.container(height=460, autoscroll=True, border=False, key="log-box"):
        st.code("\n".join(lines), language=None)
    st.caption(f"The last {len(lines):,} lines.")


def _requests(view: DeploymentView) -> None:
    link_to("metrics", "All of its metrics", icon="monitoring", query={"deployment": view.name})
    rows = metrics.requests(
        actor,
        project_id,
        Window.preset("24h"),
        Filters(deployment_id=view.id),
        limit=_RECENT,
    )
    if not rows:
        empty_state(
            "No request in the last 24 hours",
            "Chat with it in the Playground, or call it with an API key.",
            icon="monitoring",
        )
        return
    table_with_downloads(
        [_request_row(row) for row in rows],
        name=f"requests-{view.name}",
        columns={"At": st.column_config.DatetimeColumn("At (UTC)", format="MM-DD HH:mm:ss")},
    )


def _request_row(row: RequestRow) -> dict[str, object]:
    return {
        "At": row.started_at,
        "Endpoint": row.endpoint,
        "Status": row.status,
        "Error": row.error_class,
        "TTFT": formats.ms(row.ttft_ms),
        "Duration": formats.ms(row.duration_ms),
        "In": formats.tokens(row.input_tokens),
        "Out": formats.tokens(row.output_tokens),
        "Cost": formats.usd(row.cost_usd),
        "Key": row.key_name,
        "Request": row.request_id,
    }


def _history(view: DeploymentView) -> None:
    subject = f"deployment:{view.id}"
    st.markdown("### Jobs")
    found = jobs.list_jobs(actor, project_id, subject=subject, limit=20)
    if not found:
        st.caption("No job has worked on it.")
    for job in found:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            link_to("jobs", job.title, query={"id": job.id})
            st.markdown(badge_markdown(job.state), width="content")
            st.caption(
                f"attempt {job.attempt} · {formats.ago(job.created_at)} · "
                f"{escape(job.created_by_name)}"
            )
    if not actor.may("audit:read", project_id):
        return
    st.markdown("### Changes")
    entries = audit.entries(actor, project_id, subject=subject, limit=100)
    table_with_downloads(
        [
            {
                "At": entry.at,
                "Who": entry.user_name,
                "What": entry.action,
                "Details": ", ".join(f"{name} {value}" for name, value in entry.details.items()),
            }
            for entry in entries
        ],
        name=f"changes-{view.name}",
        columns={"At": st.column_config.DatetimeColumn("At (UTC)", format="YYYY-MM-DD HH:mm:ss")},
    )


def _gone(what: str) -> None:
    empty_state(
        what,
        "It was deleted, or it is another project's.",
        icon="search_off",
        action="All deployments",
        page="deployments",
    )


def main() -> None:
    """Show the page."""
    link_to("deployments", "Deployments", icon="arrow_back")
    deployment_id = st.query_params.get("id", "")
    try:
        view = deployments.get_deployment(actor, deployment_id)
    except NotFound:
        _gone("There is no such deployment")
        return
    if view.project_id != project_id:
        _gone("This deployment is in another project")
        return
    _header(view)
    live = view.state in _MOVING or view.desired_state == "running"
    st.fragment(_kpis, run_every=_POLL_S if live else None)(view.id, view.state)
    _job(view)
    chosen = st.segmented_control(
        "View",
        _VIEWS,
        default="Overview",
        required=True,
        key="view",
        bind="query-params",
        label_visibility="collapsed",
    )
    if chosen == "Replicas":
        st.fragment(_replicas, run_every=_POLL_S if live else None)(view.id)
    elif chosen == "Logs":
        _logs(view)
    elif chosen == "Requests":
        _requests(view)
    elif chosen == "History":
        _history(view)
    else:
        _overview(view)


with errors_shown():
    main()
