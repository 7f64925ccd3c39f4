"""Home: what runs, what it costs, what needs attention, and the first steps."""

from __future__ import annotations

import streamlit as st

from app import attention, session
from app.widgets import (
    Kpi,
    badge_markdown,
    empty_state,
    errors_shown,
    escape,
    formats,
    kpi_row,
    link_to,
    open_page,
    page_header,
)
from core.accounts import api_keys
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentView
from core.metrics import services as metrics
from core.metrics.schemas import Window
from core.prices import services as prices
from core.projects import services as projects

context = session.current()
actor, project_id = context.actor, context.project_id

_POLL_S = 15.0
_STOPPED = {"state": "stopped"}
_ICONS = {"error": ":red[:material/error:]", "warning": ":orange[:material/warning:]"}


def _kpis(views: list[DeploymentView]) -> None:
    day = Window.preset("24h")
    found = metrics.summary(actor, project_id, day)
    # Without requests the sparklines would be flat lines that say nothing.
    points = metrics.series(actor, project_id, day, bucket=3600).points if found.requests else []
    ready = [view for view in views if view.ready_replicas]
    replicas = sum(view.ready_replicas for view in views)
    kpi_row(
        [
            Kpi(
                "Running",
                f"{len(ready)} of {len(views)}",
                "Deployments of this project that answer.",
                note=f"{replicas} replica{'' if replicas == 1 else 's'} ready",
            ),
            Kpi(
                "Requests, 24 h",
                formats.short_count(found.requests),
                note=formats.requests_rate(found.requests_per_minute),
                trend=[point.requests for point in points] or None,
            ),
            Kpi(
                "Errors, 24 h",
                formats.percent(found.error_rate),
                "The share of the admitted requests that failed. Refused by the gateway: "
                f"{found.refused:,}.",
                note=f"{found.errors:,} failed"
                + (f" · {found.refused:,} refused" if found.refused else ""),
                trend=[point.errors for point in points] or None,
            ),
            Kpi(
                "Tokens out, 24 h",
                formats.short_count(found.output_tokens),
                "Output tokens. Below: how many a second one request gets while its answer is "
                "generated.",
                note=formats.tokens_per_s(found.generation_tokens_per_s),
                trend=[point.output_tokens for point in points] or None,
            ),
            Kpi(
                "TTFT p50, 24 h",
                formats.ms(found.ttft.p50_ms),
                "Time to the first token of streamed requests.",
                note=f"p95 {formats.ms(found.ttft.p95_ms)}",
                trend=[point.ttft.p50_ms or 0 for point in points] or None,
            ),
        ],
        key="home",
    )


def _attention() -> None:
    found = attention.notices(actor, project_id)
    st.markdown("#### Needs attention")
    with st.container(border=True, key="attention", gap="small"):
        if not found:
            st.markdown(":green[:material/check_circle:] Nothing needs you now.")
        for notice in found:
            icon = _ICONS.get(notice.severity, ":blue[:material/info:]")
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"{icon} {escape(notice.text)}", width="stretch")
                if notice.page:
                    link_to(notice.page, notice.link, query=notice.query)


def _running(views: list[DeploymentView]) -> None:
    st.markdown("#### What runs")
    if not views:
        clicked = empty_state(
            "Nothing is deployed in this project",
            "Deploy the starter model: it answers within half a minute.",
            icon="rocket_launch",
            action="Deploy a model",
            key="deploy",
        )
        if clicked:
            open_page("deployments")
        return
    running = [view for view in views if view.state != "stopped"]
    stopped = len(views) - len(running)
    with st.container(border=True, key="running", gap="small"):
        for view in running:
            with st.container(horizontal=True, vertical_alignment="center", key=f"run-{view.id}"):
                link_to("deployment", view.name, icon="rocket_launch", query={"id": view.id})
                st.markdown(badge_markdown(view.state), width="stretch")
                st.caption(
                    f"{view.ready_replicas} of {view.desired_replicas} ready · "
                    f"{escape(view.model_name)}",
                    width="content",
                )
        if not running:
            st.caption("Nothing runs now.")
        if stopped:
            link_to("deployments", f"{stopped:,} stopped", icon="stop_circle", query=_STOPPED)


def _costs() -> None:
    st.markdown("#### What it costs")
    today = metrics.costs(actor, project_id, Window.today())
    month = metrics.costs(actor, project_id, Window.preset("30d"))
    with st.container(border=True, key="costs", gap="small"):
        kpi_row(
            [
                Kpi("Today (UTC)", formats.usd(today.requests_usd), "Requests of this project."),
                Kpi("30 days", formats.usd(month.requests_usd), "Requests of this project."),
            ],
            key="costs",
            border=False,
        )
        for machine in month.machines:
            if machine.total_usd is None:
                continue
            st.caption(
                f"This machine, 30 days: {formats.usd(machine.total_usd)} for "
                f"{formats.duration(machine.up_s)}; busy {formats.usd(machine.busy_usd)}, "
                f"idle {formats.usd(machine.idle_usd)}.".replace("$", "\\$")
            )
        if not context.project.demo and prices.machine_price(actor) is None:
            if actor.may("price:update"):
                link_to("settings", "Set the price of this machine", icon="payments")
            else:
                st.caption("An admin has not set the price of this machine.")


def _first_steps(views: list[DeploymentView]) -> None:
    """The way from nothing to a call with a key; gone when it is done."""
    keys = {key.id: key.kind for key in api_keys.list_keys(actor, project_id)}
    used = {row.group for row in metrics.top(
        actor, project_id, Window.preset("30d"), group_by="key")}  # fmt: skip
    steps = [
        ("Deploy a model", "Pick the starter model and deploy it.", "deployments",
         any(view.ready_replicas for view in views)),
        ("Chat with it", "Ask it something in the Playground.", "playground",
         any(keys.get(key) == "playground" for key in used)),
        ("Make an API key", "It opens this project's models to a program.", "api_keys",
         "user" in keys.values()),
        ("Call it with curl", "The API keys page has the line; put your key in it.", "api_keys",
         any(keys.get(key) == "user" for key in used)),
    ]  # fmt: skip
    if all(done for *_, done in steps):
        return
    following = next(title for title, *_, done in steps if not done)
    st.markdown("#### First steps")
    with st.container(border=True, key="first-steps", gap="small"):
        for title, text, page, done in steps:
            icon = ":green[:material/check_circle:]" if done else ":gray[:material/circle:]"
            line, go = st.columns([5, 1], vertical_alignment="center")
            line.markdown(f"{icon} **{title}**  \n:gray[{text}]")
            primary = "primary" if title == following else "secondary"
            if not done and go.button("Go", key=f"go-{title}", type=primary):
                open_page(page)


def _body() -> None:
    with errors_shown():
        views = deployments.list_deployments(actor, project_id)
        _kpis(views)
        left, right = st.columns([3, 2], gap="medium")
        with left:
            _attention()
            _running(views)
        with right:
            if not context.project.demo:
                _first_steps(views)
            _costs()


def _offer_demo() -> None:
    """The way to the demo project, from a project that has nothing to look at."""
    demo = next((known for known in projects.list_projects(actor) if known.demo), None)
    if demo is None or deployments.list_deployments(actor, project_id):
        return
    with st.container(border=True, horizontal=True, vertical_alignment="center", key="offer-demo"):
        st.markdown(
            ":material/science: **The demo project is loaded:** 30 days of made-up requests to "
            "look at on every page.",
            width="stretch",
        )
        label = f"Open project {escape(demo.name)}"
        st.button(label, key="open-demo", on_click=session.choose, args=(demo.name,))


def main() -> None:
    """Show the page."""
    badges = [":orange-badge[Demo data]"] if context.project.demo else []
    page_header("Home", f"Project {context.project_name}: what runs and what it costs.", badges)
    if context.project.demo:
        st.info(
            "Everything in this project is made up, but a deployment that you start really runs. "
            "Remove it with `bud demo remove`.",
            icon=":material/science:",
        )
    else:
        _offer_demo()
    st.fragment(_body, run_every=_POLL_S)()


main()
