"""The charts of the leaderboards: bands, quality against cost, trend, radar, parallel axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from app import formats
from app.charts import OTHER_COLOR, PALETTE
from app.charts import trade_off as trade_off_chart
from core.leaderboards import ranking

_OPEN, _CLOSED, _UNKNOWN = "open weights", "closed", "not known"
_COLORS = {_OPEN: PALETTE[0], _CLOSED: PALETTE[1], _UNKNOWN: OTHER_COLOR}
_MOST_BARS = 20
_NAME_CHARACTERS = 34
_LABEL_CHARACTERS = 18
_BAR_PX = 34
_LEGEND_PX = 62
# More ticks than these lie on each other on a phone.
_MOST_TICKS = 7
# Labels closer than this, in points of score and as a share of the costs' decades, would collide.
_LABEL_POINTS = 2.5
_LABEL_SHARE = 0.6
# Left and right of the points, as shares of their decades.
_ROOM, _MARGIN = 0.45, 0.06


def bands(table: pd.DataFrame) -> go.Figure:
    """The best models with the bands of their scores, the best on top."""
    shown = table.head(_MOST_BARS).iloc[::-1]
    figure = go.Figure()
    kinds = shown["open_weights"].map(_kind)
    for kind in dict.fromkeys(kinds.iloc[::-1]):
        of_kind = shown[kinds == kind]
        figure.add_scatter(
            x=of_kind["score"],
            y=[f"{row.position}. {_short(row.name)}" for row in of_kind.itertuples()],
            name=kind,
            mode="markers",
            marker={"size": 10, "color": _COLORS[kind]},
            error_x={
                "type": "data",
                "symmetric": False,
                "array": of_kind["high"] - of_kind["score"],
                "arrayminus": of_kind["score"] - of_kind["low"],
                "thickness": 3,
                "width": 0,
            },
            customdata=of_kind[["low", "high", "boards"]],
            hovertemplate="%{y}: %{x:.1f}<br>%{customdata[0]:.1f} to %{customdata[1]:.1f}, "
            "on %{customdata[2]} boards<extra></extra>",
        )
    _frame(figure, height=90 + _BAR_PX * len(shown))
    order = [f"{row.position}. {_short(row.name)}" for row in shown.itertuples()]
    # The names stand in the plot, each above its band: beside it they leave a phone no plot.
    for name in order:
        figure.add_annotation(
            x=0, xref="paper", xanchor="left", y=name, yshift=13, text=name, showarrow=False
        )
    figure.update_yaxes(
        categoryorder="array",
        categoryarray=order,
        title=None,
        showticklabels=False,
        range=[-0.6, len(order) - 0.2],
    )
    figure.update_xaxes(title={"text": "score, with its 90% band", "standoff": 6})
    figure.update_xaxes(nticks=_MOST_TICKS, tickangle=0)
    figure.update_layout(legend={"y": -_LEGEND_PX / figure.layout.height})
    return figure


def trade_off(table: pd.DataFrame, cost: str, x_title: str, scale: float = 1.0) -> go.Figure | None:
    """Score against a cost, the Pareto front marked; None when no model has the cost."""
    known = table[table[cost].gt(0)]
    if known.empty:
        return None
    kinds = known["open_weights"].map(_kind)
    curves = {
        kind: [
            (row[cost] / scale, row["score"], f"{row['name']}: {row['score']:.1f}")
            for _, row in known[kinds == kind].iterrows()
        ]
        # The rarest last, so on top: below a hundred others one dot would not be seen.
        for kind in kinds.value_counts().index
    }
    front = ranking.pareto(known, cost)
    points = list(zip(front[cost] / scale, front["score"], strict=True))
    figure = trade_off_chart(curves, x_title=x_title, y_title="score", front=points, joined=False)
    _label(figure, points, [_short(name, _LABEL_CHARACTERS) for name in front["name"]])
    _thin(figure)
    for trace in figure.data:
        if trace.name in _COLORS:
            trace.marker.color = _COLORS[trace.name]
            trace.marker.size = 8
    figure.update_yaxes(rangemode="normal")
    return figure


def _label(figure: go.Figure, points: Sequence[tuple[float, float]], names: Sequence[str]) -> None:
    """Name the front's points, above and left of them, where no other point can be.

    Where two names would lie on each other only the better point keeps its own; hovering names all.
    """
    costs = [math.log10(cost) for cost, _ in points]
    apart = _LABEL_SHARE * (max(costs) - min(costs) or 1)
    best_first = sorted(zip(costs, points, names, strict=True), reverse=True)
    kept: list[tuple[float, tuple[float, float], str]] = []
    for cost, point, name in best_first:
        if all(at - cost > apart or over[1] - point[1] > _LABEL_POINTS for at, over, _ in kept):
            kept.append((cost, point, name))
    figure.add_scatter(
        x=[point[0] for _, point, _ in kept],
        y=[point[1] for _, point, _ in kept],
        text=[f"{name} " for _, _, name in kept],
        mode="text",
        textposition="top left",
        textfont={"size": 10},
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )
    # Room for the name of the cheapest. A range with one end only is passed over at times.
    most = max(math.log10(x) for trace in figure.data for x in trace.x)
    spread = most - min(costs) or 1
    figure.update_xaxes(range=[min(costs) - _ROOM * spread, most + _MARGIN * spread])


def _thin(figure: go.Figure) -> None:
    """Leave every second tick, or every third, where there are many: on a phone they collide."""
    axis = figure.layout.xaxis
    step = -(-len(axis.tickvals) // _MOST_TICKS)
    figure.update_xaxes(tickvals=axis.tickvals[::step], ticktext=axis.ticktext[::step], tickangle=0)


def trend(table: pd.DataFrame) -> go.Figure | None:
    """The best score by release date, of open and closed models; None when no model has both."""
    found = {name: leaders for name, leaders in ranking.trend(table).items() if len(leaders)}
    if not found:
        return None
    figure = go.Figure()
    for name, leaders in found.items():
        kind = _OPEN if name == "open" else _CLOSED
        figure.add_scatter(
            x=leaders["release_date"],
            y=leaders["score"],
            name=f"best {kind}",
            mode="lines+markers",
            line={"shape": "hv", "color": _COLORS[kind], "width": 2},
            marker={"size": 7},
            customdata=leaders[["name"]],
            hovertemplate="%{customdata[0]}: %{y:.1f}<br>%{x|%d %b %Y}<extra></extra>",
        )
    _frame(figure, height=380)
    figure.update_yaxes(title={"text": "score", "standoff": 12})
    figure.update_xaxes(title=None, tickformat="%b %Y", nticks=7)
    return figure


def radar(by_task: pd.DataFrame, names: Mapping[str, str]) -> go.Figure:
    """Scores of models by task; a task that lists a model on no board leaves a gap."""
    titles = list(dict.fromkeys(by_task["title"]))
    # Broken into lines: on a phone longer ones leave the picture.
    axes = [title.replace(" ", "<br>") for title in titles]
    figure = go.Figure()
    for number, (key, name) in enumerate(names.items()):
        own = by_task[by_task["id"] == key].set_index("title")["score"].reindex(titles)
        if own.isna().all():
            continue
        figure.add_scatterpolar(
            r=[*own, *own.head(1)],
            theta=[*axes, *axes[:1]],
            name=name,
            mode="lines+markers",
            connectgaps=False,
            line={"color": PALETTE[number % len(PALETTE)], "width": 2},
            hovertemplate=f"{name}: %{{r:.1f}}<br>%{{theta}}<extra></extra>",
        )
    _frame(figure, height=420)
    low = float(by_task["score"].min()) - 8
    high = float(by_task["score"].max()) + 3
    figure.update_layout(
        polar={
            "bgcolor": "rgba(0,0,0,0)",
            "radialaxis": {"range": [low, high], "gridcolor": "#94a3b855", "nticks": 5},
            "angularaxis": {"gridcolor": "#94a3b855", "tickfont": {"size": 11}},
        },
        margin={"l": 72, "r": 72, "t": 36, "b": 16},
    )
    return figure


def parallel(on_boards: pd.DataFrame, names: Mapping[str, str]) -> go.Figure:
    """How models stand on each board: the share of its models that they beat."""
    axes = list(dict.fromkeys(_axes(on_boards)))
    figure = go.Figure()
    labelled = on_boards.assign(axis=_axes(on_boards))
    for number, (key, name) in enumerate(names.items()):
        own = labelled[labelled["id"] == key].drop_duplicates("axis").set_index("axis")
        if own["share"].isna().all():
            # A legend names only what is drawn.
            continue
        own = own.reindex(axes)
        figure.add_scatter(
            x=axes,
            y=own["share"] * 100,
            name=name,
            mode="lines+markers",
            connectgaps=True,
            line={"color": PALETTE[number % len(PALETTE)], "width": 2},
            marker={"size": 8},
            customdata=own[["score", "unit"]],
            hovertemplate=f"{name}: %{{customdata[0]:,.4g}} %{{customdata[1]}}"
            "<br>beats %{y:.0f}% of the board<extra></extra>",
        )
    _frame(figure, height=380)
    figure.update_yaxes(title={"text": "% of the board's models beaten", "standoff": 12})
    figure.update_yaxes(range=[-4, 104])
    figure.update_xaxes(title=None, automargin=True)
    return figure


def _axes(on_boards: pd.DataFrame) -> Sequence[str]:
    several = on_boards.groupby("title")["metric"].transform("nunique") > 1
    return [
        f"{title}<br>{metric}" if many else title
        for title, metric, many in zip(
            on_boards["title"], on_boards["metric"], several, strict=True
        )
    ]


def _kind(open_weights: object) -> str:
    if open_weights is None or pd.isna(open_weights):
        return _UNKNOWN
    return _OPEN if open_weights else _CLOSED


def _short(name: object, most: int = _NAME_CHARACTERS) -> str:
    text = str(name)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _frame(figure: go.Figure, *, height: int) -> None:
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        hovermode="closest",
        # Also of one series alone, which else nothing names.
        showlegend=True,
        legend={"orientation": "h", "y": -0.14, "x": 0, "yanchor": "top", "title": None},
    )


def size_label(parameters: float | None) -> str:
    """Parameters for people: `8B`."""
    known = parameters is not None and not pd.isna(parameters)
    return formats.short_count(parameters) if known else formats.NONE
