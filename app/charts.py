"""Charts that every page shares: one palette, units on the axes, times in UTC.

Colours are mid-tones that read on light and dark alike; text, grid and hover come from
Streamlit's theme in the browser, so a chart follows a change of theme by itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import plotly.graph_objects as go
import streamlit as st

PALETTE = ("#18a673", "#3b82f6", "#f59e0b", "#a855f7", "#ec4899", "#06b6d4", "#84a817")
OTHER_COLOR = "#94a3b8"
ERROR_PALETTE = ("#ef4444", "#f97316", "#eab308", "#d946ef", "#8b5cf6", "#64748b", "#0ea5e9")
PERCENTILE_COLORS = {"p50": "#18a673", "p95": "#f59e0b", "p99": "#ef4444"}

_HEIGHT_PX = 290
_TALL_PX = 380
_LONG_MS = 5000.0
_WIDE_RANGE = 20
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
    return _over_time(figure, unit, legend=list(values) != ["all"])


def lines(
    at: Sequence[datetime] | Sequence[float],
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
    return _over_time(figure, unit, legend=True)


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


def _over_time(figure: go.Figure, unit: str, *, legend: bool) -> go.Figure:
    """Framed with stated margins: a chart that finds them by drawing is drawn twice."""
    _framed(figure, unit, legend=legend)
    figure.update_layout(margin={"l": 62, "b": 40})
    figure.update_xaxes(automargin=False)
    return figure.update_yaxes(automargin=False)


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


def trade_off(
    curves: Mapping[str, Sequence[tuple[float, float, str]]],
    *,
    x_title: str,
    y_title: str,
    front: Sequence[tuple[float, float]] = (),
    marked: tuple[float, float] | None = None,
    joined: bool = True,
) -> go.Figure:
    """Two figures against each other, a line a group, on a logarithmic x axis.

    Args:
        curves: For each group its points: x, y, and what hovering says of the point.
        x_title: What x is, with its unit.
        y_title: What y is, with its unit.
        front: Points that no other point beats, joined by a broad band behind the lines.
        marked: The point that was asked for.
        joined: Whether the points of a group are joined by a line.
    """
    figure = go.Figure()
    if front:
        figure.add_scatter(
            x=[point[0] for point in front],
            y=[point[1] for point in front],
            name="Pareto front",
            mode="lines",
            line={"color": "rgba(245, 158, 11, 0.35)", "width": 12},
            hoverinfo="skip",
        )
    for color, (name, points) in zip(itertools.cycle(PALETTE), curves.items(), strict=False):
        figure.add_scatter(
            x=[point[0] for point in points],
            y=[point[1] for point in points],
            customdata=[[point[2]] for point in points],
            name=name,
            mode="lines+markers" if joined else "markers",
            line={"color": color, "width": 2},
            marker={"size": 6 if joined else 10, "color": color},
            hovertemplate="%{customdata[0]}",
        )
    if marked is not None:
        figure.add_scatter(
            x=[marked[0]],
            y=[marked[1]],
            name="asked for",
            mode="markers",
            marker={"size": 15, "color": "rgba(0,0,0,0)", "line": {"width": 3, "color": "#ef4444"}},
            hoverinfo="skip",
        )
    _framed(figure, y_title, legend=True)
    figure.update_layout(
        height=_TALL_PX,
        hovermode="closest",
        xaxis={
            "type": "log",
            "title": {"text": x_title, "standoff": 6},
            "tickformatstops": None,
            **_log_ticks([point[0] for points in curves.values() for point in points]),
        },
    )
    return figure


def _log_ticks(values: Sequence[float]) -> dict[str, list[float] | list[str]]:
    """Ticks at 1, 2 and 5 of each decade; where these are few, at 3 and 7 too."""
    low, high = min(values), max(values)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low > _WIDE_RANGE else (1, 1.5, 2, 3, 4, 5, 7)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    shown = [tick for tick in ticks if low * 0.9 <= tick <= high * 1.1]
    return {"tickvals": shown, "ticktext": [f"{tick:,.4g}" for tick in shown]}


def waterfall(parts: Mapping[str, float], rest: float, total: float, *, unit: str) -> go.Figure:
    """Parts that add up, what is left (or missing, when negative), and the whole.

    They lie one below the other: beside each other their names run together on a phone.

    Args:
        parts: The parts, in the order in which they are stacked.
        rest: What is left of the whole; negative when the parts exceed it.
        total: The whole.
        unit: Of all numbers.
    """
    names = [*parts, "free" if rest >= 0 else "missing", "usable"]
    values = [*parts.values(), rest, total]
    figure = go.Figure(
        go.Waterfall(
            x=values,
            y=names,
            orientation="h",
            measure=["relative"] * (len(parts) + 1) + ["total"],
            text=[f"{value:,.1f}" for value in values],
            textposition="outside",
            cliponaxis=False,
            increasing={"marker": {"color": PALETTE[0]}},
            decreasing={"marker": {"color": "#ef4444"}},
            totals={"marker": {"color": OTHER_COLOR}},
            connector={"line": {"width": 1, "color": OTHER_COLOR}},
            hovertemplate=f"%{{y}}: %{{text}} {unit}<extra></extra>",
        )
    )
    _framed(figure, unit, legend=False)
    figure.update_layout(
        hovermode="closest",
        margin={"r": 48},
        xaxis={"title": {"text": unit, "standoff": 6}, "tickformatstops": None},
        yaxis={"title": None, "nticks": 0, "autorange": "reversed"},
    )
    return figure


def bars(
    values: Mapping[str, float | None], *, unit: str, number_format: str = ",.2f"
) -> go.Figure:
    """Amounts by name, as horizontal bars in the given order; long names keep their room."""
    names = list(values)[::-1]
    figure = go.Figure(
        go.Bar(
            x=[values[name] for name in names],
            y=names,
            orientation="h",
            marker={"color": PALETTE[0], "line": {"width": 0}},
            texttemplate=f"%{{x:{number_format}}}",
            textposition="outside",
            cliponaxis=False,
            hovertemplate=f"%{{y}}: %{{x:{number_format}}} {unit}<extra></extra>",
        )
    )
    _framed(figure, unit, legend=False)
    figure.update_layout(
        height=max(_HEIGHT_PX // 2, 60 + 30 * len(names)),
        hovermode="closest",
        margin={"r": 48},
        xaxis={"title": {"text": unit, "standoff": 6}, "tickformatstops": None},
        yaxis={"title": None, "nticks": 0},
    )
    return figure
