"""Charts that every page shares: one palette, units on the axes, times in UTC.

Colours are mid-tones that read on light and dark alike; text, grid and hover come from
Streamlit's theme in the browser, so a chart follows a change of theme by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import plotly.graph_objects as go
import streamlit as st

PALETTE = ("#18a673", "#3b82f6", "#f59e0b", "#a855f7", "#ec4899", "#06b6d4", "#84a817")
OTHER_COLOR = "#94a3b8"
ERROR_PALETTE = ("#ef4444", "#f97316", "#eab308", "#d946ef", "#8b5cf6", "#64748b", "#0ea5e9")
PERCENTILE_COLORS = {"p50": "#18a673", "p95": "#f59e0b", "p99": "#ef4444"}

_HEIGHT_PX = 290
_LONG_MS = 5000.0
_WHOLE = ",.0f"
_FEW = 5
_DAY_MS = 86_400_000
# No year: no window is longer than that, and it would take a line of its own.
_TICKS = [
    {"dtickrange": [None, _DAY_MS - 1], "value": "%H:%M\n%d %b"},
    {"dtickrange": [_DAY_MS, None], "value": "%d %b"},
]


def colors(groups: Iterable[str], palette: Sequence[str] = PALETTE) -> dict[str, str]:
    """A colour for each group: the same ones for the same groups, whatever their order."""
    named = sorted(group for group in groups if group != "other")
    found = {group: palette[index % len(palette)] for index, group in enumerate(named)}
    return found | {"other": OTHER_COLOR}


def stacked_bars(
    at: Sequence[datetime],
    values: Mapping[str, Sequence[float | None]],
    *,
    unit: str,
    group_colors: Mapping[str, str],
    number_format: str = _WHOLE,
) -> go.Figure:
    """Amounts by time bucket, one colour a group.

    Args:
        at: The start of each bucket.
        values: For each group (as it is called for people) one value a bucket.
        unit: What is counted, shown on the axis and on hovering.
        group_colors: A colour for each group.
        number_format: How hovering shows a value (d3-format).
    """
    figure = go.Figure(
        [
            go.Bar(
                x=list(at),
                y=list(series),
                name=name,
                marker={"color": group_colors.get(name, OTHER_COLOR), "line": {"width": 0}},
                hovertemplate=f"%{{y:{number_format}}} {unit}",
            )
            for name, series in values.items()
        ]
    )
    figure.update_layout(barmode="stack", bargap=0.12)
    highest = max(
        (sum(value or 0 for value in bar) for bar in zip(*values.values(), strict=True)), default=0
    )
    if number_format == _WHOLE and highest < _FEW:
        figure.update_yaxes(dtick=1)  # there is no half a request
    return _framed(figure, unit, legend=list(values) != ["all"])


def lines(
    at: Sequence[datetime],
    values: Mapping[str, Sequence[float | None]],
    *,
    unit: str,
    group_colors: Mapping[str, str],
    number_format: str = ",.0f",
) -> go.Figure:
    """Values over time, one line a group; a bucket without a value leaves a gap."""
    figure = go.Figure(
        [
            go.Scatter(
                x=list(at),
                y=list(series),
                name=name,
                mode="lines+markers",
                line={"color": group_colors.get(name, OTHER_COLOR), "width": 2},
                marker={"size": 4},
                connectgaps=False,
                hovertemplate=f"%{{y:{number_format}}} {unit}",
            )
            for name, series in values.items()
        ]
    )
    return _framed(figure, unit, legend=True)


def percentiles(
    at: Sequence[datetime], values_ms: Mapping[str, Sequence[float | None]]
) -> go.Figure:
    """p50, p95 and p99 over time, always in the same three colours; in seconds when long."""
    longest_ms = max((value or 0 for series in values_ms.values() for value in series), default=0)
    if longest_ms < _LONG_MS:
        return lines(at, values_ms, unit="ms", group_colors=PERCENTILE_COLORS)
    values_s = {
        name: [None if value is None else value / 1000 for value in series]
        for name, series in values_ms.items()
    }
    return lines(at, values_s, unit="s", group_colors=PERCENTILE_COLORS, number_format=",.2f")


def _framed(figure: go.Figure, unit: str, *, legend: bool) -> go.Figure:
    figure.update_layout(
        height=_HEIGHT_PX,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        hovermode="x unified",
        showlegend=legend,
        legend={"orientation": "h", "y": -0.24, "x": 0, "yanchor": "top", "title": None},
        xaxis={
            "tickformatstops": _TICKS,
            "title": None,
            "hoverformat": "%d %b %H:%M UTC",
            "nticks": 7,
            "automargin": True,
        },
        yaxis={
            "title": {"text": unit, "standoff": 12},
            "rangemode": "tozero",
            "nticks": 5,
            "automargin": True,
        },
    )
    return figure


def show(figure: go.Figure, title: str, *, key: str) -> None:
    """A chart in a card, headed by its title."""
    with st.container(border=True, key=f"bud-chart-{key}"):
        st.markdown(f"**{title}**")
        st.plotly_chart(
            figure, key=f"chart-{key}", config={"displayModeBar": False}, theme="streamlit"
        )
