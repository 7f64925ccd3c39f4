"""Models side by side: facts, what their licences allow, prices, scores with their sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd
import streamlit as st

from app import charts, formats
from app.session import SessionContext
from app.widgets import leaderboards_charts as own_charts
from app.widgets.layout import empty_state, escape
from app.widgets.leaderboards import task_link
from app.widgets.leaderboards_model import evidence_table, licence_verdict, model_links
from app.widgets.model_subject import USE
from app.widgets.tables import table_with_downloads
from core.leaderboards import services as leaderboards
from core.leaderboards.scores import source_url
from core.leaderboards.tasks import find

_MOST, _LEAST = 6, 2
# The models last compared, for somebody who comes back to the page without an address.
_KEPT = "compare-kept"


def compare_view(context: SessionContext) -> None:
    """Choose models, then look at them side by side."""
    names = leaderboards.listed_models(context.actor, context.project_id)
    kept = [each for each in st.session_state.get(_KEPT, []) if each in names]
    if kept and not st.query_params.get_all("models") and not st.session_state.get("models"):
        st.session_state["models"] = kept
    # Read before the widget is there, which drops what is none of its options.
    unknown = [each for each in st.query_params.get_all("models") if each not in names]
    chosen = st.multiselect(
        "Models",
        list(names),
        key="models",
        on_change=_forget_when_cleared,
        bind="query-params",
        max_selections=_MOST,
        # Else Enter takes all that matches what was typed.
        select_all=False,
        placeholder="Type a name; two to six models",
    )
    if unknown:
        st.warning(
            f"No board lists {escape(', '.join(unknown))}. Choose models above, by the names that "
            "boards have."
        )
    if len(chosen) < _LEAST:
        empty_state(
            "Choose two to six models",
            "Take them from a leaderboard, or type their names above.",
            icon="compare_arrows",
            action="Open the leaderboards",
            page="leaderboards",
        )
        return
    st.session_state[_KEPT] = chosen
    use = st.selectbox(
        "Licence allows", leaderboards.uses(), index=_asked_use(), key="judged", bind="query-params"
    )
    _facts(chosen, str(use), names)
    _prices(chosen, names)
    by_task = leaderboards.by_task(context.actor, context.project_id, chosen)
    if by_task.empty:
        st.info("No board of a task lists any of them.")
        return
    _scores(by_task, chosen, names)
    _by_board(context, by_task, chosen, names)


def _forget_when_cleared() -> None:
    if not st.session_state.get("models"):
        st.session_state.pop(_KEPT, None)


def _asked_use() -> int:
    """The place of the use that the page before was left with, else the first."""
    uses, asked = leaderboards.uses(), st.query_params.get(USE, "")
    return uses.index(asked) if asked in uses else 0


def _facts(chosen: Sequence[str], use: str, names: dict[str, str]) -> None:
    facts = leaderboards.facts_of(chosen)
    rows = [
        {"": label, **{_head(key, names): read(facts.loc[key]) for key in chosen}}
        for label, read in _FACTS.items()
    ]
    says = {
        _head(key, names): leaderboards.verdict(facts.at[key, "licence"], use) for key in chosen
    }
    rows.insert(1, {"": f"Allowed: {use}", **says})
    st.markdown("**Facts**")
    table_with_downloads(rows, name="compare-facts", height=38 + 35 * len(rows))
    for column, key in zip(st.columns(min(len(chosen), 3)) * 2, chosen, strict=False):
        with column, st.container(border=True, key=f"compare-{key.replace('/', '-')}"):
            st.markdown(f"**{escape(names[key])}**")
            licence_verdict(facts.at[key, "licence"], use)
            model_links(key, use)


def _prices(chosen: Sequence[str], names: dict[str, str]) -> None:
    prices = leaderboards.prices_of(chosen)
    if prices.empty:
        return
    with st.expander(f"Prices of {len(prices):,} offers"):
        table_with_downloads(
            [
                {
                    "Model": _head(row.model_id, names),
                    "Host": row.provider_name,
                    "USD/M tokens": row.usd_per_million_tokens,
                    "USD/M input": row.usd_per_million_input,
                    "USD/M output": row.usd_per_million_output,
                    "Context": row.context_tokens,
                    "As of": row.date,
                    "State": "old" if row.is_old else "current",
                    "Source": source_url(row.source) or None,
                    "Read from": row.source,
                }
                for row in prices.itertuples()
            ],
            name="compare-prices",
            columns={
                "USD/M tokens": st.column_config.NumberColumn(
                    format="$%.4g", help="Three parts input, one part output."
                ),
                "USD/M input": st.column_config.NumberColumn(format="$%.4g"),
                "USD/M output": st.column_config.NumberColumn(format="$%.4g"),
                "Context": st.column_config.NumberColumn(format="compact"),
                "Source": st.column_config.LinkColumn(display_text="open"),
            },
            height=min(300, 38 + 35 * len(prices)),
        )


def _scores(by_task: pd.DataFrame, chosen: Sequence[str], names: dict[str, str]) -> None:
    st.markdown("**Scores by task**")
    titles = list(dict.fromkeys(by_task["title"]))
    rows = [
        {"Task": title, **{_head(key, names): _scored(by_task, key, title) for key in chosen}}
        for title in titles
    ]
    table_with_downloads(rows, name="compare-scores", height=38 + 35 * len(rows))
    st.caption(
        "Combined scores with their 90% bands and ranks; 50 is the middle of a task's models. "
        "Overlapping bands cannot be told apart."
    )
    if len(titles) > 2:
        named = {key: names[key] for key in chosen}
        charts.show(own_charts.radar(by_task, named), "Scores by task", key="compare-radar")


def _by_board(
    context: SessionContext,
    by_task: pd.DataFrame,
    chosen: Sequence[str],
    names: dict[str, str],
) -> None:
    keys = list(dict.fromkeys(by_task["task"]))
    titles = [find(key).title for key in keys]
    title = st.pills(
        "Boards of",
        titles,
        default=titles[0],
        key=task_link(),
        bind="query-params",
        required=True,
    )
    task = find(title or titles[0]).key
    shown = leaderboards.on_boards(context.actor, context.project_id, task, chosen)
    named = {key: names[key] for key in chosen}
    charts.show(own_charts.parallel(shown, named), "Board by board", key="compare-parallel")
    st.markdown("**Every figure, and where it is from**")
    for key in chosen:
        with st.expander(escape(names[key])):
            evidence_table(
                leaderboards.evidence(context.actor, context.project_id, key, task),
                name=f"compare-evidence-{key.replace('/', '-')}",
            )


def _head(key: str, names: dict[str, str]) -> str:
    twins = sum(name == names[key] for name in names.values()) > 1
    return key if twins else names[key]


def _scored(by_task: pd.DataFrame, key: str, title: str) -> str:
    found = by_task[(by_task["id"] == key) & (by_task["title"] == title)]
    if found.empty:
        return formats.NONE
    row = found.iloc[0]
    place = f"{row['position']} of {row['of']}"
    return f"{row['score']:.0f} ({row['low']:.0f} – {row['high']:.0f}), {place}"


def _known(value: object) -> bool:
    return value is not None and not pd.isna(value)


def _count(name: str, unit: str = "") -> Callable[[pd.Series], str]:
    return lambda row: formats.short_count(row[name], unit) if _known(row[name]) else formats.NONE


def _text(name: str) -> Callable[[pd.Series], str]:
    return lambda row: str(row[name]) if _known(row[name]) and row[name] != "" else formats.NONE


_FACTS: dict[str, Callable[[pd.Series], str]] = {
    "Licence": _text("licence"),
    "Open weights": lambda row: (
        {True: "yes", False: "no"}[bool(row["open_weights"])]
        if _known(row["open_weights"])
        else formats.NONE
    ),
    "Maker": _text("organisation"),
    "Parameters": _count("parameters"),
    "Active parameters": _count("active_parameters"),
    "Context": _count("context_tokens", "tokens"),
    "Cheapest, USD per M tokens": lambda row: (
        formats.usd(row["usd_per_million_tokens"])
        if _known(row["usd_per_million_tokens"])
        else formats.NONE
    ),
    "Released": _text("release_date"),
}
