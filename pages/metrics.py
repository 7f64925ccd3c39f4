"""Metrics: every request of the project, how fast it was, whether it failed, what it cost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import streamlit as st

from app import charts, guardrail_words, session
from app.widgets import (
    Kpi,
    empty_state,
    errors_shown,
    escape,
    formats,
    kpi_row,
    link_to,
    page_header,
    table_with_downloads,
)
from app.widgets.reasons import SIDES, reason, side
from core.metrics import services as metrics
from core.metrics.schemas import PRESETS, Filters, GroupBy, Outcome, Series, Traffic, Window

context = session.current()
actor, project_id = context.actor, context.project_id

_LIVE_S = 5.0
_MOMENT_PX = 210
_CUSTOM = "custom"
# A longer list scrolls in itself.
_REQUESTS_SHOWN = 10
_REQUESTS_PX = 420
_GROUPS: dict[str, GroupBy] = {"Model": "model", "Deployment": "deployment", "Key": "key"}
_OUTCOMES: dict[str, Outcome] = {
    "All requests": "all",
    "Succeeded": "ok",
    "Failed": "failed",
    "Refused": "refused",
    "Caller left": "cancelled",
}
_TRAFFIC: dict[str, Traffic] = {
    "Callers' requests": "callers",
    "Shadow copies": "shadow",
    "Both": "all",
}
_NOTES: dict[Traffic, str] = {
    "shadow": "Shadow copies alone: nobody got these answers, and no other total counts them.",
    "all": "With shadow copies, whose answers nobody got: what was copied counts twice.",
}


def _window() -> Window:
    with st.container(horizontal=True, vertical_alignment="top"):
        name = st.segmented_control(
            "Time window", [*PRESETS, _CUSTOM], default="24h", key="window", bind="query-params"
        )
        if name != _CUSTOM:
            return Window.preset(name or "24h")
        default = Window.preset("24h")
        start, end = (
            st.datetime_input(label, day, key=key, bind="query-params", width=_MOMENT_PX)
            for label, day, key in (
                ("From (UTC)", default.start, "from"),
                ("To (UTC)", default.end, "to"),
            )
        )
    return Window.between(
        (start or default.start).replace(tzinfo=UTC), (end or default.end).replace(tzinfo=UTC)
    )


def _choice(column: Any, label: str, every: str, window: Window, by: GroupBy) -> str:
    ids = metrics.choices(actor, project_id, window, by)
    options = [every, *ids]
    asked = st.query_params.get(by)
    if asked and asked not in options:
        # A link may name what has no request in this window; an id does as well as a name.
        options.append(asked)
    picked = column.selectbox(label, options, key=by, bind="query-params")
    return "" if picked in (None, every) else ids.get(picked, picked)


def _filters(window: Window) -> Filters:
    with st.expander("Filters", icon=":material/filter_list:", key="metrics-filters"):
        columns = st.columns(6)
        outcome = columns[3].selectbox(
            "Outcome", list(_OUTCOMES), key="outcome", bind="query-params"
        )
        traffic = columns[4].selectbox(
            "Traffic", list(_TRAFFIC), key="traffic", bind="query-params",
            help="Copies of requests that a route sends to another model unseen count in no total.",
        )  # fmt: skip
        request_id = columns[5].text_input(
            "Request", key="request", bind="query-params", placeholder="X-Request-Id"
        )
        return Filters(
            model=_choice(columns[0], "Model", "All models", window, "model"),
            deployment_id=_choice(
                columns[1], "Deployment", "All deployments", window, "deployment"
            ),
            key_id=_choice(columns[2], "API key", "All keys", window, "key"),
            request_id=(request_id or "").strip(),
            outcome=_OUTCOMES[outcome or "All requests"],
            traffic=_TRAFFIC[traffic or "Callers' requests"],
        )


def _warnings() -> None:
    state = metrics.ingest_state(actor)
    if state.dropped_facts:
        st.warning(
            f"{state.dropped_facts:,} requests are missing here: the gateway could not write "
            "them down. Free disk space, or raise BUD_FACTS_MAX_MB.",
            icon=":material/warning:",
        )
    if state.damaged_segments:
        st.warning(
            f"{state.damaged_segments} segments of request facts were damaged. What could be "
            "read is here; the files are in facts/damaged in the data folder.",
            icon=":material/warning:",
        )
    if state.oldest_waiting_s is not None and state.oldest_waiting_s > 15:
        waiting = formats.duration(state.oldest_waiting_s)
        st.info(f"Requests of the last {waiting} are still being read in.")


def _kpis(window: Window, filters: Filters) -> None:
    found = metrics.summary(actor, project_id, window, filters)
    unpriced = found.unpriced_requests
    kpi_row(
        [
            Kpi(
                "Requests",
                formats.short_count(found.requests),
                note=formats.requests_rate(found.requests_per_minute),
            ),
            Kpi(
                "Errors",
                formats.percent(found.error_rate),
                "The share of the admitted requests that failed. Refused by the gateway: "
                f"{found.refused:,}; given up by the caller: {found.cancelled:,}.",
                note=f"{found.errors:,} failed",
            ),
            Kpi(
                "Tokens out",
                formats.short_count(found.output_tokens),
                f"Generated at {formats.tokens_per_s(found.generation_tokens_per_s)}, the median "
                f"of streamed requests; {formats.tokens(found.cached_tokens)} of the input came "
                "from a cache.",
                note=f"{formats.short_count(found.input_tokens)} input",
            ),
            Kpi(
                "TTFT p50",
                formats.ms(found.ttft.p50_ms),
                "Time to the first token of streamed requests that succeeded.",
                note=f"p95 {formats.ms(found.ttft.p95_ms)}",
            ),
            Kpi(
                "Latency p50",
                formats.ms(found.latency.p50_ms),
                "From the request to the end of its answer, of requests that succeeded.",
                note=f"p95 {formats.ms(found.latency.p95_ms)}",
            ),
            Kpi(
                "Cost",
                formats.usd(found.cost_usd),
                "By token price, or else by the share of the machine's busy time. "
                "“—” means that no price is set: see Settings, Prices.",
                note=f"{unpriced:,} unpriced" if unpriced else "estimate",
            ),
        ],
        key="metrics",
    )


def _by_group(series: Series, field: str) -> dict[str, list[float | None]]:
    values: dict[str, list[float | None]] = {label: [] for label in series.labels.values()}
    for point in series.points:
        values[series.labels[point.group]].append(getattr(point, field))
    return values


def _times(series: Series) -> list[datetime]:
    first = next(iter(series.labels), "")
    return [point.at for point in series.points if point.group == first]


def _percentiles(total: Series, field: str) -> dict[str, list[float | None]]:
    return {
        name: [getattr(getattr(point, field), f"{name}_ms") for point in total.points]
        for name in ("p50", "p95", "p99")
    }


def _charts(window: Window, filters: Filters, total: Series, grouped: Series) -> None:
    at, grouped_at = _times(total), _times(grouped)
    palette = charts.colors(grouped.labels.values())
    bucket = formats.duration(total.bucket_s).replace(" 0 min", "").replace(" 0 s", "")
    left, right = st.columns(2)
    with left:
        figure = charts.stacked_bars(
            grouped_at, _by_group(grouped, "requests"), unit="requests", group_colors=palette
        )
        charts.show(figure, f"Requests per {bucket}", key="requests")
    with right:
        _error_chart(window, filters, at, bucket)
    for column, title, field in zip(
        st.columns(2), ("Time to first token", "Latency"), ("ttft", "latency"), strict=True
    ):
        with column:
            charts.show(charts.percentiles(at, _percentiles(total, field)), title, key=field)
    left, right = st.columns(2)
    with left:
        figure = charts.stacked_bars(
            grouped_at, _by_group(grouped, "output_tokens"), unit="tokens", group_colors=palette
        )
        charts.show(figure, f"Output tokens per {bucket}", key="tokens")
    with right:
        _cost_chart(grouped, grouped_at, palette, bucket)


def _cost_chart(grouped: Series, at: list[datetime], palette: dict[str, str], bucket: str) -> None:
    if not any(point.cost_usd for point in grouped.points):
        with st.container(border=True, height="stretch", key="bud-chart-cost"):
            st.markdown("**Cost**")
            st.caption("None of these requests has a price. Set one, and the next ones have it.")
            link_to("settings", "Set a price", icon="payments")
        return
    figure = charts.stacked_bars(
        at,
        _by_group(grouped, "cost_usd"),
        unit="USD",
        group_colors=palette,
        number_format=",.4f",
    )
    charts.show(figure, f"Cost per {bucket} (estimate)", key="cost")


def _error_chart(window: Window, filters: Filters, at: list[datetime], bucket: str) -> None:
    points = metrics.errors_over_time(actor, project_id, window, filters)
    if not points:
        with st.container(border=True, height="stretch", key="bud-chart-errors"):
            st.markdown("**Unanswered requests**")
            st.caption("None: every request got its answer.")
        return
    found = {(reason(point.error_class).title, point.at): point.requests for point in points}
    classes = sorted({kind for kind, _ in found})
    values: dict[str, list[float | None]] = {
        name: [found.get((name, moment), 0) for moment in at] for name in classes
    }
    figure = charts.stacked_bars(
        at,
        values,
        unit="requests",
        group_colors=charts.colors(classes, charts.ERROR_PALETTE),
    )
    charts.show(figure, f"Unanswered requests per {bucket}, by reason", key="errors")


def _breakdown(window: Window, filters: Filters, by: str) -> None:
    st.markdown(f"#### By {by.lower()}")
    rows = metrics.top(actor, project_id, window, filters, group_by=_GROUPS[by])
    table_with_downloads(
        [
            {
                by: row.label,
                "Requests": row.requests,
                "Error rate": formats.percent(row.error_rate),
                "Input tokens": row.input_tokens,
                "Output tokens": row.output_tokens,
                "TTFT p50": formats.ms(row.ttft.p50_ms),
                "TTFT p95": formats.ms(row.ttft.p95_ms),
                "Latency p50": formats.ms(row.latency.p50_ms),
                "Latency p95": formats.ms(row.latency.p95_ms),
                "Generation": formats.tokens_per_s(row.generation_tokens_per_s),
                "Cost": formats.usd(row.cost_usd),
            }
            for row in rows
        ],
        name=f"metrics-by-{by.lower()}",
        columns={
            name: st.column_config.NumberColumn(format="localized")
            for name in ("Requests", "Input tokens", "Output tokens")
        },
    )


def _errors(window: Window, filters: Filters) -> None:
    rows = metrics.errors(actor, project_id, window, filters)
    if not rows:
        return
    st.markdown("#### What got no answer")
    table_with_downloads(
        [
            {
                "Reason": reason(row.error_class).title,
                "Outcome": SIDES[side(row.error_class)],
                "Requests": row.requests,
                "Newest message": row.last_message,
                "Last": row.last_at,
            }
            for row in rows
        ],
        name="metrics-errors",
        columns={"Last": st.column_config.DatetimeColumn(format="distance")},
    )


def _requests(window: Window, filters: Filters, limit: int) -> None:
    rows = metrics.requests(actor, project_id, window, filters, limit=limit)
    # What most projects never have stands in the downloads alone.
    seldom = {"Cache": "cache", "Hedge": "hedge", "Copy of": "shadow_of"}
    unused = [name for name, field in seldom.items() if not any(getattr(r, field) for r in rows)]
    table_with_downloads(
        [
            {
                "Started (UTC)": row.started_at,
                "Model": row.model,
                "Status": row.status,
                "Error": reason(row.error_class).title if row.error_class else "",
                "Input tokens": row.input_tokens,
                "Output tokens": row.output_tokens,
                "TTFT (ms)": row.ttft_ms,
                "Duration (ms)": row.duration_ms,
                "Cost (USD)": row.cost_usd,
                "Key": row.key_name,
                "Message": row.error_message,
                "Cost from": row.cost_basis,
                "Streamed": row.stream,
                "Guardrails": guardrail_words.told(row.guardrails),
                "Cache": row.cache,
                "Hedge": row.hedge,
                "Copy of": row.shadow_of,
                "Tries": row.attempts,
                "Endpoint": row.endpoint,
                "Request": row.request_id,
            }
            for row in rows
        ],
        name="requests",
        columns=dict.fromkeys(unused)
        | {
            "Started (UTC)": st.column_config.DatetimeColumn(
                format="YYYY-MM-DD HH:mm:ss", timezone="UTC"
            ),
            "Input tokens": st.column_config.NumberColumn(format="localized"),
            "Output tokens": st.column_config.NumberColumn(format="localized"),
            "TTFT (ms)": st.column_config.NumberColumn(format="%,.0f"),
            "Duration (ms)": st.column_config.NumberColumn(format="%,.0f"),
            "Message": st.column_config.TextColumn(width="large"),
            "Cost (USD)": st.column_config.NumberColumn(format="%.6f"),
        },
        height=_REQUESTS_PX if len(rows) > _REQUESTS_SHOWN else None,
    )


def _body(preset: str | None, window: Window, filters: Filters, by: str, limit: int) -> None:
    """All numbers; run again every five seconds while live."""
    with errors_shown():
        window = Window.preset(preset) if preset else window
        _warnings()
        if filters.traffic != "callers":
            st.info(_NOTES[filters.traffic], icon=":material/content_copy:")
        total = metrics.series(actor, project_id, window, filters)
        if not any(point.requests for point in total.points):
            _nothing(filters)
            return
        _kpis(window, filters)
        grouped = metrics.series(actor, project_id, window, filters, group_by=_GROUPS[by])
        _charts(window, filters, total, grouped)
        _breakdown(window, filters, by)
        _errors(window, filters)
        st.markdown("#### Latest requests")
        _requests(window, filters, limit)


def _nothing(filters: Filters) -> None:
    if filters != Filters():
        empty_state("Nothing matches", "Choose other filters or a longer window.", icon="search")
        return
    empty_state(
        "No requests in this window",
        "Choose a longer window, or ask a deployed model something: it shows here within 2 s.",
        icon="monitoring",
        action="Open the Playground",
        page="playground",
    )


def main() -> None:
    """Show the page."""
    badges = [":orange-badge[Demo data]"] if context.project.demo else []
    with page_header("Metrics", "How much was asked, how fast, how often it failed.", badges):
        live = st.toggle("Live", key="live", bind="query-params", help="New numbers every 5 s.")
    window = _window()
    with st.container(horizontal=True, vertical_alignment="top"):
        by = st.segmented_control(
            "Show by", list(_GROUPS), default="Model", key="by", bind="query-params"
        )
        limit = st.selectbox(
            "Latest requests", [100, 1000, 10_000], key="limit", bind="query-params", width=150
        )
    filters = _filters(window)
    preset = st.session_state.get("window") or "24h"
    body = st.fragment(_body, run_every=_LIVE_S if live else None)
    body(None if preset == _CUSTOM else preset, window, filters, by or "Model", limit or 100)
    st.caption(f"Project {escape(context.project_name)}. Times are in UTC.")


with errors_shown():
    main()
