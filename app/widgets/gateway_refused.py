"""Requests that were refused, and those that failed, with their reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import streamlit as st

from app.widgets import (
    Kpi,
    empty_state,
    errors_shown,
    formats,
    kpi_row,
    link_to,
    table_with_downloads,
)
from core.kernel.actor import Actor
from core.metrics import services as metrics
from core.metrics.schemas import PRESETS, Filters, RequestRow, Window

Side = Literal["refused", "failed", "caller"]
# The facts of requests without a valid key belong to no project.
_NO_PROJECT = ""
_LIVE_S = 5.0
_LIMIT = 200
_REQUESTS_PX = 420
_REQUESTS_SHOWN = 10
_MEANINGS: dict[Side, str] = {
    "refused": "By the gateway: no right, a rule, a limit, or a request that makes no sense.",
    "failed": "Admitted, but no model's server answered, or not to the end.",
    "caller": "The caller hung up before the answer's end.",
}
_SIDES: dict[Side, str] = {
    "refused": "Refused",
    "failed": "Failed",
    "caller": "Caller left",
}


@dataclass(frozen=True)
class Reason:
    """Why a request got no answer: in words, whose doing it was, and what to do."""

    title: str
    side: Side
    what_to_do: str


_REASONS = {
    "authentication": Reason("No valid key (401)", "refused", "Give the caller a key that works."),
    "permission": Reason("Not allowed (403)", "refused", "Widen the key's models, endpoints, IPs."),
    "blocked": Reason("Blocking rule (403)", "refused", "Change the rule: bud blocks list."),
    "not_found": Reason("No such route (404)", "refused", "Make the route, or correct the caller."),
    "too_large": Reason("Body too large (413)", "refused", "Send less at once."),
    "invalid_request": Reason("Bad request (400)", "refused", "Correct the caller."),
    "context_length": Reason("Context too long (400)", "refused", "Shorten it, or more context."),
    "capability": Reason("Model cannot do it (400)", "refused", "Call another route."),
    "rate_limited": Reason("Rate limit (429)", "refused", "Raise the limit, or call less often."),
    "budget_exceeded": Reason("Budget used up (429)", "refused", "Raise the budget, or wait."),
    "limits_unavailable": Reason("Limits unknown (503)", "refused", "See the gateway's log."),
    "no_replica": Reason("No replica ready (503)", "failed", "Start or scale the deployment."),
    "connect": Reason("Replica out of reach (503)", "failed", "See the deployment's log."),
    "upstream_error": Reason("Replica's error (5xx)", "failed", "See the message and its log."),
    "upstream_broke": Reason("Stream broke off", "failed", "See the deployment's log."),
    "timeout": Reason("Timeout (504)", "failed", "Raise the route's timeouts, or add replicas."),
    "gateway_stopped": Reason("Gateway was stopped", "failed", "Call again."),
    "internal": Reason("Fault in the gateway (500)", "failed", "See the gateway's log."),
    "client_closed": Reason("Caller hung up", "caller", "Nothing, when it was meant."),
}


def reason(error_class: str) -> Reason:
    """The reason that an error class of the request facts is."""
    return _REASONS.get(error_class, Reason(error_class, "failed", "See the message."))


def refused_view(actor: Actor, project_id: str) -> None:
    """Filters, then numbers, reasons and requests, anew every few seconds while live."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        window = st.segmented_control(
            "Time window", list(PRESETS), default="24h", required=True, key="within",
            bind="query-params",
        )  # fmt: skip
        titles = {found.title: error_class for error_class, found in _REASONS.items()}
        picked = st.selectbox(
            "Reason", ["Every reason", *titles], key="reason", bind="query-params", width=260
        )
        whose = _NO_PROJECT if _without_key(actor) else project_id
        live = st.toggle("Live", key="live", bind="query-params", help="New numbers every 5 s.")
    body = st.fragment(_body, run_every=_LIVE_S if live else None)
    body(actor, whose, window, titles.get(picked or "", ""))


def _without_key(actor: Actor) -> bool:
    """Whether to show what came without a valid key; only admins of everything may ask."""
    if not actor.is_admin:
        return False
    return st.toggle(
        "Without a valid key", key="keyless", bind="query-params",
        help="Requests that belong to no project: a key that is wrong, revoked or missing, and "
        "what a rule of every project blocked before the key was read.",
    )  # fmt: skip


def _body(actor: Actor, project_id: str, preset: str, error_class: str) -> None:
    with errors_shown():
        window = Window.preset(preset)
        counts = metrics.errors(actor, project_id, window)
        sides = dict.fromkeys(_SIDES, 0)
        for row in counts:
            sides[reason(row.error_class).side] += row.requests
        kpi_row(
            [Kpi(_SIDES[side], formats.count(n), _MEANINGS[side]) for side, n in sides.items()],
            key="refused",
        )
        if not counts:
            _nothing(project_id)
            return
        st.markdown("#### Reasons")
        table_with_downloads(
            [
                {
                    "Reason": reason(row.error_class).title,
                    "Requests": row.requests,
                    "Last": row.last_at,
                    "What to do": reason(row.error_class).what_to_do,
                    "Newest message": row.last_message,
                    "By": _SIDES[reason(row.error_class).side],
                }
                for row in counts
            ],
            name="gateway-reasons",
            columns={
                "Requests": st.column_config.NumberColumn(format="localized"),
                "Last": st.column_config.DatetimeColumn(format="distance"),
                "Newest message": st.column_config.TextColumn(width="large"),
            },
        )
        filters = Filters(outcome="errors", error_class=error_class)
        rows = metrics.requests(actor, project_id, window, filters, limit=_LIMIT)
        _requests(rows, has_page=bool(project_id))


def _nothing(project_id: str) -> None:
    empty_state(
        "Nothing was refused or failed in this window",
        "Choose a longer window. What a limit, a blocking rule or a missing right refuses, and "
        "what a model's server fails to answer, shows here within 2 s."
        if project_id
        else "Every request of this window came with a valid key. Choose a longer window.",
        icon="verified",
    )


def _requests(rows: list[RequestRow], *, has_page: bool) -> None:
    st.markdown("#### Latest requests")
    if not rows:
        empty_state("No request had this reason", "Choose another one.", icon="search")
        return
    chosen = table_with_downloads(
        [
            {
                "Started (UTC)": row.started_at,
                "Reason": reason(row.error_class).title,
                "Message": row.error_message,
                "Model": row.model,
                "Rule": row.blocked_by,
                "Key": row.key_name,
                "Status": row.status,
                "Tries": row.attempts,
                "After (ms)": row.duration_ms,
                "Endpoint": row.endpoint,
                "Request": row.request_id,
            }
            for row in rows
        ],
        name="gateway-requests",
        columns={
            "Started (UTC)": st.column_config.DatetimeColumn(
                format="YYYY-MM-DD HH:mm:ss", timezone="UTC"
            ),
            "Message": st.column_config.TextColumn(width="large"),
            "After (ms)": st.column_config.NumberColumn(format="%.0f"),
        },
        selectable=has_page,
        height=_REQUESTS_PX if len(rows) > _REQUESTS_SHOWN else None,
    )
    if not has_page:
        return
    if chosen is None or chosen >= len(rows):
        st.caption("Click a row for the link to its request.")
        return
    request_id = rows[chosen].request_id
    # A longer window than this page's: it may have been chosen a while ago.
    link_to(
        "metrics",
        f"Request {request_id} in Metrics",
        icon="monitoring",
        query={"request": request_id, "window": "30d"},
    )
