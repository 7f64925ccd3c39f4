"""The task view of the leaderboards: what is asked, who is best, how sure that is, and why."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

import pandas as pd
import streamlit as st

from app import charts
from app.session import SessionContext
from app.widgets import leaderboards_charts as own_charts
from app.widgets.layout import empty_state, errors_shown, escape
from app.widgets.leaderboards_model import model_card
from app.widgets.tables import table_with_downloads
from core.leaderboards import report
from core.leaderboards import services as leaderboards
from core.leaderboards.ranking import since
from core.leaderboards.schemas import Query, Ranking
from core.leaderboards.tasks import Task, find

_ANY = "Any"
_CONTEXTS = {_ANY: None, "8k": 8_192, "32k": 32_768, "128k": 128_000, "1M": 1_000_000}
_YEARS = (_ANY, "2026", "2025", "2024", "2023")
_BILLION = 1e9
_MOST_EVIDENCE = 10
_TABLE_PX = 460
# Whether a board was asked for. Kept until the whole page runs: a run of its part alone may be
# overtaken by another one, which begins with what the browser's inputs said before.
_ASKED_BOARD = "leaderboards-asked-board"
_CHARTS = ("Bands", "Price", "Size", "Trend")


def task_view(context: SessionContext) -> None:
    """The models of a task."""
    titles = [task.title for task in leaderboards.tasks()]
    chosen = st.pills(
        "Task",
        titles,
        default=titles[0],
        key=task_link(),
        bind="query-params",
        required=True,
        label_visibility="collapsed",
    )
    _view(context, find(chosen or titles[0]))


def task_link() -> str:
    """The key of the widget that chooses the task; a link may name it by its short key as well."""
    asked = st.query_params.get("task")
    if asked is not None:
        with errors_shown():
            title = find(asked).title
            if asked != title:
                # Before the widget is there, which drops a value that is none of its own.
                st.query_params["task"] = title
                st.rerun()
    return "task"


@st.fragment
def _view(context: SessionContext, task: Task) -> None:
    """What is asked and what is found, run again alone when a slider moves."""
    if _ASKED_BOARD in st.session_state:
        st.rerun()
    query = _query(context, task)
    with errors_shown():
        _found(context, task, leaderboards.combined(context.actor, context.project_id, query))


def _query(context: SessionContext, task: Task) -> Query:
    with st.container(
        horizontal=True, vertical_alignment="bottom", gap="small", key="leaderboard-filters"
    ):
        # Keys that no other page binds: see `app.history`.
        words = st.text_input(
            "Search",
            key="find",
            bind="query-params",
            type="search",
            placeholder="Model or maker",
            width=165,
        )
        use = st.selectbox(
            "Licence allows",
            [_ANY, *leaderboards.uses()],
            key="allows",
            bind="query-params",
            width=300,
            help="Keeps models whose licence allows this, also those with conditions. "
            "No legal advice.",
        )
        size_to = st.number_input(
            "At most (B)",
            0.0,
            value=None,
            key="max_b",
            bind="query-params",
            placeholder="any size",
            width=110,
        )
        is_open = st.toggle("Open weights", key="open", bind="query-params", width="content")
        with st.popover("More", icon=":material/filter_list:"):
            more = _more(context, task)
        weights = _weights(context, task)
    return Query(
        task=task.key,
        weights=weights,
        use="" if use in (None, _ANY) else str(use),
        words=words or "",
        open_weights=bool(is_open),
        # 0 is a size, too: one that no model has.
        parameters_to=None if size_to is None else size_to * _BILLION,
        **more,
    )


def _more(context: SessionContext, task: Task) -> dict[str, Any]:
    """The filters that are asked for less often."""
    size_from = st.number_input(
        "At least (B)", 0.0, value=None, key="min_b", bind="query-params", placeholder=_ANY
    )
    usd_to = st.number_input(
        "USD per M tokens, at most",
        0.0,
        value=None,
        key="usd",
        bind="query-params",
        placeholder=_ANY,
        help="Three parts input, one part output, at the cheapest provider.",
    )
    context_from = st.selectbox(
        "Context, at least", list(_CONTEXTS), key="context", bind="query-params"
    )
    year = st.selectbox("Released since", _YEARS, key="since", bind="query-params")
    makers = st.multiselect(
        "Makers",
        leaderboards.organisations(context.actor, context.project_id, task.key),
        key="makers",
        bind="query-params",
        placeholder=_ANY,
    )
    return {
        "parameters_from": size_from * _BILLION if size_from else None,
        "usd_to": usd_to,
        "context_from": _CONTEXTS[str(context_from or _ANY)],
        "released_from": None if year in (None, _ANY) else date(int(str(year)), 1, 1),
        "organisations": tuple(makers),
    }


def _weights(context: SessionContext, task: Task) -> Mapping[str, float]:
    boards = leaderboards.boards_of(context.actor, context.project_id, task.key)
    if len(boards) == 1:
        return {}
    with st.popover("Weights", icon=":material/tune:"):
        st.caption("How much each board counts; 0 leaves it out.")
        found = {
            board.key: st.slider(
                board.title,
                0.0,
                3.0,
                1.0,
                0.5,
                key=f"w_{board.key}",
                bind="query-params",
                help=f"{board.publisher}: {board.what}.",
            )
            for board in boards
        }
    return {key: weight for key, weight in found.items() if weight != 1.0}


def _found(context: SessionContext, task: Task, found: Ranking) -> None:
    for note in found.notes:
        st.info(escape(note), icon=":material/info:")
    if found.table.empty:
        _nothing(found)
        return
    _headline(found)
    chosen = table_with_downloads(
        _rows(found),
        name=f"leaderboard-{task.key}",
        columns=_COLUMNS | ({} if found.query.use else {"Licence says": None}),
        selectable=True,
        height=min(_TABLE_PX, 38 + 35 * len(found.table)),
    )
    _below(context, found)
    model = found.table.iloc[chosen if chosen is not None and chosen < len(found.table) else 0]
    model_card(context, found, model)
    _chart(found)
    _boards(found)


def _nothing(found: Ranking) -> None:
    said = f"{what_to_change(found.query)} {_left_out(found)}".strip()
    empty_state("No model fits", said, icon="search_off")


def what_to_change(query: Query) -> str:
    """What of a query keeps models away, and so may be changed; names only what is set."""
    asked = _asked(query)
    if asked == [_searched(query)]:
        return f"No model or maker of this task is called {asked[0]}. Search for another name."
    if len(asked) == 1:
        return f"No model of this task fits {asked[0]}. Change it, or take it away."
    if asked:
        return f"Asked for at once: {', '.join(asked)}. Change one of them, or take it away."
    return "Give a board of this task a weight." if query.weights else ""


def _searched(query: Query) -> str:
    return f"“{query.words.strip()}”" if query.words.strip() else ""


def _asked(query: Query) -> list[str]:
    since_day, context = query.released_from, query.context_from
    said = (
        _searched(query),
        f"the licence for “{query.use}”" if query.use else "",
        _bound("at most", query.parameters_to, "B parameters", _BILLION),
        _bound("at least", query.parameters_from, "B parameters", _BILLION),
        "open weights" if query.open_weights else "",
        _bound("at most", query.usd_to, " USD per million tokens"),
        "" if context is None else f"a context of at least {context:,} tokens",
        "" if since_day is None else f"released since {since_day.year}",
        f"the makers {', '.join(query.organisations)}" if query.organisations else "",
    )
    return [each for each in said if each]


def _bound(side: str, value: float | None, unit: str, scale: float = 1.0) -> str:
    return "" if value is None else f"{side} {value / scale:,.10g}{unit}"


def _left_out(found: Ranking) -> str:
    unknown = [f"{count} of unknown {name}" for name, count in found.left_out.items()]
    return f"Left out: {', '.join(unknown)}." if unknown else ""


def _headline(found: Ranking) -> None:
    best, table = found.table.iloc[0], found.table
    used = found.used
    publishers = len({board.publisher for board in used})
    alike = int((table["best_rank"] == 1).sum()) - 1
    st.markdown(
        f"#### {escape(str(best['name']))}  \n"
        f"is the best of {_models(len(table))}: **{best['score']:.0f}**, between "
        f"{best['low']:.0f} and {best['high']:.0f}. "
        + (f"{_models(alike)} below it may be as good." if alike else "None comes close.")
    )
    st.caption(
        f"{len(used)} board{'' if len(used) == 1 else 's'} of {publishers} "
        f"publisher{'' if publishers == 1 else 's'} {'lists' if len(used) == 1 else 'list'} these "
        f"models; the newest is of {found.dated or 'an unknown day'} (version {found.version}). "
        f"50 is the middle of all {_models(found.models)} of this task, 10 is one standard "
        "deviation."
    )


def _models(count: int) -> str:
    return f"{count:,} model{'' if count == 1 else 's'}"


_COLUMNS: dict[str, Any] = {
    # Name, score and band fit a phone together.
    "Model": st.column_config.TextColumn(width=190, pinned=True),
    "Score": st.column_config.ProgressColumn(
        format="%.1f",
        min_value=20,
        max_value=85,
        width=85,
        help="50 is the middle of this view's models, 10 is one standard deviation.",
    ),
    "Band": st.column_config.TextColumn(
        help="Holds the score in nine cases of ten. Wide on few boards.", width=70
    ),
    "#": st.column_config.NumberColumn(width=40),
    "Rank": st.column_config.TextColumn(
        help="Among the models shown: between which ranks it lies, given all bands.", width=75
    ),
    "Boards": st.column_config.NumberColumn(help="How many boards list it.", width=65),
    "Size": st.column_config.NumberColumn(format="compact", width=70),
    "Context": st.column_config.NumberColumn(format="compact", width=75),
    "USD/M tokens": st.column_config.NumberColumn(format="$%.3g", width=110),
    "id": None,
}


def _rows(found: Ranking) -> pd.DataFrame:
    table = found.table
    return pd.DataFrame(
        {
            "Model": table["name"],
            "Score": table["score"].astype(float),
            "Band": [f"{row.low:.0f} – {row.high:.0f}" for row in table.itertuples()],
            "#": table["position"],
            "Rank": [_rank(row.best_rank, row.worst_rank) for row in table.itertuples()],
            "Boards": table["boards"],
            "Licence says": table["verdict"],
            "Licence": table["licence"],
            "Size": table["parameters"],
            "Context": table["context_tokens"],
            "USD/M tokens": table["usd_per_million_tokens"],
            "Released": table["release_date"],
            "Maker": table["organisation"],
            "id": table["id"],
        }
    )


def _rank(best: int, worst: int) -> str:
    return str(best) if best == worst else f"{best} – {worst}"


def _below(context: SessionContext, found: Ranking) -> None:
    """What was left out, and the report."""
    st.caption(f"Choose a row to see why. {_left_out(found)}")
    with st.container(horizontal=True, gap="small"):
        name = f"leaderboard-{found.query.task}"
        st.download_button(
            "Report",
            data=lambda: _report(context, found).encode(),
            file_name=f"{name}.html",
            mime="text/html",
            icon=":material/description:",
            key="leaderboard-report",
            on_click="ignore",
            help="One HTML file that needs nothing else.",
        )
        st.download_button(
            "Report CSV",
            data=lambda: report.csv_text(found).encode(),
            file_name=f"{name}-report.csv",
            mime="text/csv",
            icon=":material/table:",
            key="leaderboard-report-csv",
            on_click="ignore",
            help="Every model with the query, the data's date and version.",
        )


def _report(context: SessionContext, found: Ranking) -> str:
    first = found.table["id"].dropna().head(_MOST_EVIDENCE)
    evidence = {
        model: [
            each
            for each in leaderboards.evidence(
                context.actor, context.project_id, model, found.query.task
            )
            if each.counts
        ]
        for model in first
    }
    return report.html(found, evidence)


def _chart(found: Ranking) -> None:
    kind = st.segmented_control(
        "Chart",
        _CHARTS,
        default="Bands",
        key="chart",
        bind="query-params",
        required=True,
        label_visibility="collapsed",
    )
    if kind == "Price":
        figure = own_charts.trade_off(
            found.table, "usd_per_million_tokens", "USD per million tokens"
        )
        _show_or_say(figure, "Quality against price", "No model of this view has a price.")
    elif kind == "Size":
        figure = own_charts.trade_off(found.table, "parameters", "parameters (billions)", _BILLION)
        _show_or_say(figure, "Quality against size", "Of no model here the size is known.")
    elif kind == "Trend":
        figure = own_charts.trend(found.table)
        _show_or_say(figure, "Best score by release", _no_trend(found.table), key="lb-trend")
    else:
        charts.show(own_charts.bands(found.table), "Scores with their bands", key="lb-bands")


def _no_trend(table: pd.DataFrame) -> str:
    if table["release_date"].isna().all():
        return "Of no model here the release date is known. Choose another task, or fewer filters."
    return (
        "Of no model here both the release date and whether its weights are open are known. Choose "
        "another task, or fewer filters."
    )


def _show_or_say(figure: Any, title: str, otherwise: str, *, key: str = "lb-trade-off") -> None:
    if figure is None:
        st.info(otherwise)
    else:
        charts.show(figure, title, key=key)


def _boards(found: Ranking) -> None:
    st.markdown("**The boards behind it**")
    table_with_downloads(
        [
            {
                "Board": board.title,
                "Publisher": board.publisher,
                "Asks": board.what,
                "Weight": board.weight,
                "Models": board.models,
                "Shown here": board.shown,
                "Agreement": round(board.agreement, 2),
                "As of": since(board.dated),
                "Age": "over a year" if board.is_stale else "current",
                "Source": board.source_url or None,
                "Read from": board.source,
            }
            for board in found.boards
        ],
        name="leaderboard-boards",
        columns={
            "Agreement": st.column_config.NumberColumn(
                help="How well its order follows the combined one, 0 to 1.", format="%.2f"
            ),
            "Shown here": st.column_config.NumberColumn(
                help="How many of the models that your filters leave it lists."
            ),
            "Source": st.column_config.LinkColumn(display_text="open"),
        },
    )
    with st.container(horizontal=True, gap="small"):
        for board in found.boards:
            names = {each.board for each in _published(found.query.task, board.key)}
            for name in sorted(names):
                # No link: one to its own page leaves the address as it was.
                st.button(
                    board.title,
                    icon=":material/table_chart:",
                    type="tertiary",
                    key=f"leaderboard-to-{board.key}-{name}",
                    on_click=_ask_for_board,
                    args=(name,),
                )


def _ask_for_board(name: str) -> None:
    st.session_state[_ASKED_BOARD] = True
    st.query_params["board"] = name


def show_asked_board() -> None:
    """Show the boards as published, if one was asked for; before the views' input is there."""
    if st.session_state.pop(_ASKED_BOARD, False):
        st.session_state["see"] = "Boards"


def _published(task: str, key: str) -> Any:
    return next((each.benchmarks for each in find(task).boards if each.key == key), ())
