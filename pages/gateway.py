"""Gateway: routes and what they do now, limits, rules, the cache, what failed, and a try."""

from __future__ import annotations

import streamlit as st

from app import session
from app.widgets import empty_state, errors_shown, page_header
from app.widgets.gateway_blocks import block_list
from app.widgets.gateway_cache import cache_view
from app.widgets.gateway_edit import confirm_removal, edit_route, new_route, versions
from app.widgets.gateway_limits import limit_list
from app.widgets.gateway_refused import refused_view
from app.widgets.gateway_routes import badges, route_header_purpose, route_list, route_now
from app.widgets.gateway_try import CHOSEN, try_view
from core.kernel.errors import NotFound
from core.routing import live, rules
from core.routing.schemas import RouteView

context = session.current()
actor, project_id = context.actor, context.project_id

_POLL_S = 4.0
_ROUTES, _LIMITS, _BLOCKS, _CACHE = "Routes", "Limits", "Blocking", "Cache"
_REFUSED, _TRY = "Errors", "Try it"
_NOW, _EDIT, _HISTORY = "Now", "Edit", "History"
_SEARCH_FROM = 6


def _show_try(model: str) -> None:
    st.query_params.pop("route", None)
    st.session_state["view"] = _TRY
    st.session_state[CHOSEN] = model


def _all_routes() -> None:
    st.query_params.pop("route", None)


def _may_change() -> bool:
    return actor.may("deployment:update", project_id)


def _routes() -> None:
    routes = live.list_routes(actor, project_id)
    if not routes:
        empty_state(
            "No route yet",
            "Each deployment and each hosted model is one. Deploy a model; then a route can share "
            "its requests among several.",
            icon="alt_route",
            action="Open Deployments",
            page="deployments",
        )
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        words = ""
        if len(routes) >= _SEARCH_FROM:
            words = st.text_input(
                "Search", key="q", bind="query-params", type="search", live=True, width=320,
                placeholder="Route, target, state or policy",
            )  # fmt: skip
        if _may_change() and st.button("New route", type="primary", icon=":material/add:"):
            new_route(actor, project_id)
    st.fragment(route_list, run_every=_POLL_S)(actor, project_id, words or "")


def _route(model: str) -> None:
    st.button("All routes", icon=":material/arrow_back:", type="tertiary", on_click=_all_routes)
    try:
        route = live.get_route(actor, project_id, model)
    except NotFound as error:
        _gone(model, error)
        return
    _header(route)
    parts = [_NOW, _EDIT, _HISTORY] if _may_change() else [_NOW, _HISTORY]
    part = st.segmented_control(
        "Part", parts, default=_NOW, required=True, key="part", bind="query-params",
        label_visibility="collapsed",
    )  # fmt: skip
    if part == _EDIT:
        edit_route(actor, project_id, model, has_targets=route.kind == "targets")
    elif part == _HISTORY:
        versions(actor, project_id, model, may_change=_may_change())
    else:
        st.fragment(route_now, run_every=_POLL_S)(actor, project_id, model)


def _header(route: RouteView) -> None:
    with page_header(route.model, route_header_purpose(route), badges(route)):
        st.button("Try it", icon=":material/send:", on_click=_show_try, args=(route.model,))
        if (
            route.kind == "targets"
            and _may_change()
            and st.button("Remove …", icon=":material/delete:")
        ):
            confirm_removal(actor, project_id, route.model)


def _gone(model: str, error: NotFound) -> None:
    try:
        found = rules.history(actor, project_id, model)
    except NotFound:
        empty_state(error.what, error.remedy, icon="search_off")
        return
    empty_state(
        f"{model} is no route now",
        "It was taken away, or its targets were. Any of its versions can be published again."
        if found[0].version
        else "Its server was deleted.",
        icon="history",
    )
    versions(actor, project_id, model, may_change=_may_change())


def _try() -> None:
    routes = live.list_routes(actor, project_id)
    if routes:
        try_view(actor, project_id, routes)
        return
    empty_state(
        "Nothing to try yet",
        "Deploy a model first; then send it a request here.",
        icon="send",
        action="Open Deployments",
        page="deployments",
    )


def main() -> None:
    """Show the page."""
    if model := st.query_params.get("route"):
        _route(model)
        return
    page_header("Gateway", "Which models answer each name, what callers may use, and what failed.")
    view = st.segmented_control(
        "View", [_ROUTES, _LIMITS, _BLOCKS, _CACHE, _REFUSED, _TRY], default=_ROUTES,
        required=True, key="view", bind="query-params", label_visibility="collapsed",
    )  # fmt: skip
    if view == _LIMITS:
        limit_list(actor, project_id)
    elif view == _BLOCKS:
        block_list(actor, project_id)
    elif view == _CACHE:
        cache_view(actor, project_id, context.project_name)
    elif view == _REFUSED:
        refused_view(actor, project_id)
    elif view == _TRY:
        _try()
    else:
        _routes()


with errors_shown():
    main()
