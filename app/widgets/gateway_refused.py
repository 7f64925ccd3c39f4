"""Requests that were refused, and those that failed, with their reasons."""

from __future__ import annotations

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
from app.widgets.reasons import MEANINGS, REASONS, SIDES, reason, side
from core.kernel.actor import Actor
from core.metrics import services as metrics
from core.metrics.schemas import PRESETS, Filters, RequestRow, Window

# The facts of requests without a valid key belong to no project.
_NO_PROJECT = ""
_LIVE_S = 5.0
_LIMIT = 200
_REQUESTS_PX = 420
_REQUESTS_SHOWN = 10


def refused_view(actor: Actor, project_id: str) -> None:
    """Filters, then numbers, reasons and requests, anew every few seconds while live."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        window = st.segmented_control(
            "Time window", list(PRESETS), default="24h", required=True, key="within",
            bind="query-params",
        )  # fmt: skip
        titles = {found.title: error_class for error_class, found in REASONS.items()}
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
        sides = dict.fromkeys(SIDES, 0)
        for row in counts:
            sides[side(row.error_class)] += row.requests
        kpi_row(
            [Kpi(SIDES[each], formats.count(n), MEANINGS[each]) for each, n in sides.items()],
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
                    "Outcome": SIDES[side(row.error_class)],
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
        filters = Filters(outcome="unanswered", error_class=error_class)
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
