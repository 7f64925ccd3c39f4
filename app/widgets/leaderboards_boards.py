"""The boards as published, and fetching them anew."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from app import formats
from app.session import SessionContext
from app.widgets.dialogs import confirm_by_name
from app.widgets.jobs import job_steps
from app.widgets.layout import Kpi, empty_state, errors_shown, escape, kpi_row
from app.widgets.states import badge_markdown
from app.widgets.tables import table_with_downloads
from core import jobs
from core.leaderboards import refreshes
from core.leaderboards import services as leaderboards
from core.leaderboards.schemas import BoardTable, BoardView, RefreshView
from core.leaderboards.scores import source_url

_TABLE_PX = 480
_MOST_CHANGES = 500


def boards_view(context: SessionContext) -> None:
    """All boards with their age, and the chosen one as it was published."""
    found = leaderboards.boards(context.actor, context.project_id)
    names = [board.name for board in found]
    chosen = st.selectbox("Board", names, key="board", bind="query-params")
    view = next(board for board in found if board.name == (chosen or names[0]))
    _about(view)
    with errors_shown():
        _table(context, view)
    st.markdown("**All boards**")
    table_with_downloads([_row(board) for board in found], name="boards", columns=_COLUMNS)


def _about(view: BoardView) -> None:
    stale = ":orange-badge[:material/history: over a year old]" if view.is_stale else ""
    fresh = ":blue-badge[refreshed here]" if view.is_refreshed else ""
    st.markdown(
        f"#### {escape(view.title)} {stale} {fresh}  \n"
        f"{escape(view.what)}. By {escape(view.maintainer)}, {escape(view.licence)}; "
        f"[the board]({view.url}). Read from {_source(view.sources[0])}."
    )
    kpi_row(
        [
            Kpi("Models", formats.count(view.models)),
            Kpi("Scores", formats.count(view.scores)),
            Kpi(
                "As of",
                str(view.dated or formats.NONE),
                note=None if view.age_days is None else f"{view.age_days} days ago",
            ),
            Kpi(
                "Names not resolved",
                formats.count(view.unresolved),
                "Published names that no model is known by; they stay visible.",
            ),
        ],
        key="board",
    )
    if view.self_reported:
        st.info(
            f"{view.self_reported:,} of its figures are what vendors report of their own models. "
            "They are shown and marked, and never combined.",
            icon=":material/info:",
        )


def _source(source: str) -> str:
    url = source_url(source)
    return f"[{escape(source)}]({url})" if url else escape(source)


def _table(context: SessionContext, view: BoardView) -> None:
    actor, project_id = context.actor, context.project_id
    variants = leaderboards.board(actor, project_id, view.name).variants
    left, right = st.columns(2)
    variant = left.selectbox("Table", variants, key=f"table-of-{view.name}")
    whole = leaderboards.board(actor, project_id, view.name, variant or "")
    order = right.selectbox(
        "Ordered by", list(whole.metrics.index), key=f"order-of-{view.name}-{variant}"
    )
    found = leaderboards.board(actor, project_id, view.name, variant or "", order or "")
    about = found.metrics.loc[found.ordered_by]
    way = "more is better" if about["higher_is_better"] else "less is better"
    note = f" {about['note']}." if isinstance(about["note"], str) else ""
    st.caption(escape(f"{found.ordered_by} in {about['unit']}, {way}.{note}"))
    table_with_downloads(
        _published(found),
        name=f"board-{view.name.lower().replace(' ', '-')}",
        columns=_PUBLISHED,
        height=min(_TABLE_PX, 38 + 35 * len(found.table)),
    )


def _published(found: BoardTable) -> Any:
    metrics = sorted(found.metrics.index, key=lambda each: each != found.ordered_by)
    table = found.table
    marked = table["is_copy"].map({True: "a copy", False: ""})
    marked = marked.where(~table["is_self_reported"], "self-reported")
    shown = table[["published_name", *metrics, "model_id", "date", "link", "source"]].rename(
        columns={
            "published_name": "Published as",
            "model_id": "Model",
            "date": "Date",
            "link": "Model page",
            "source": "Read from",
        }
    )
    shown = shown.rename(columns=heads(found))
    if marked.any():
        shown.insert(1, "Marked", marked)
    shown["Model page"] = shown["Model page"].where(shown["Model page"] != "", None)
    urls = [source_url(source) or None for source in shown["Read from"]]
    shown.insert(shown.columns.get_loc("Model page"), "Source", urls)
    return shown


def heads(found: BoardTable) -> dict[str, str]:
    """Of costs and times, which nothing else tells the unit of, the names with their units."""
    units = found.metrics.loc[found.metrics["kind"].isin(("cost", "speed")), "unit"]
    # A name in brackets tells its own: `Total Cost ($)`.
    return {name: f"{name} ({unit})" for name, unit in units.items() if unit and "(" not in name}


_PUBLISHED: dict[str, Any] = {
    "Published as": st.column_config.TextColumn(pinned=True, width=230),
    "Source": st.column_config.LinkColumn(display_text="open"),
    "Model page": st.column_config.LinkColumn(display_text="open"),
}
_COLUMNS: dict[str, Any] = {"Site": st.column_config.LinkColumn(display_text="open")}


def _row(board: BoardView) -> dict[str, object]:
    return {
        "Board": board.name,
        "Maintainer": board.maintainer,
        "Tasks": ", ".join(board.tasks),
        "As of": str(board.dated or formats.NONE),
        "Age (days)": board.age_days,
        "State": "over a year old" if board.is_stale else "current",
        "Models": board.models,
        "Scores": board.scores,
        "Self-reported": board.self_reported,
        "Copies": board.copies,
        "Licence": board.licence,
        "Site": board.url,
    }


def refresh_view(context: SessionContext) -> None:
    """Fetch boards anew, look at what differs, and apply it."""
    if not context.actor.is_admin:
        empty_state(
            "For admins",
            "An admin fetches boards anew and applies what differs.",
            icon="lock",
        )
        return
    st.caption(
        "Bud reads a board's public files, shows what differs, and changes nothing until you "
        "apply it. It needs the network."
    )
    boards = leaderboards.boards(context.actor, context.project_id)
    can = [each.name for each in boards if each.can_refresh]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.selectbox("Board", can, key="refresh-board")
        if st.button("Fetch", type="primary", icon=":material/cloud_download:") and name:
            with errors_shown():
                refreshes.start(context.actor, context.project_id, name)
                st.rerun()
    _running(context)
    found = refreshes.list_refreshes(context.actor)
    waiting = [each for each in found if each.state == "found"]
    for each in waiting:
        _difference(context, each)
    _refreshed(context, boards)
    if not found:
        empty_state("Nothing fetched yet", "Choose a board and fetch it.", icon="cloud_download")
        return
    st.markdown("**What was fetched**")
    table_with_downloads([_fetched(each) for each in found], name="board-refreshes")


def _running(context: SessionContext) -> None:
    for job in jobs.list_jobs(context.actor, context.project_id, active_only=True):
        if job.kind == "leaderboard.refresh":
            job_steps(context.actor, job.id)


def _difference(context: SessionContext, found: RefreshView) -> None:
    with st.container(border=True, key=f"refresh-{found.id}"):
        st.markdown(
            f"#### {escape(found.board)} {badge_markdown('pending')}  \n"
            f"{found.added:,} added, {found.removed:,} removed, {found.changed:,} changed. "
            f"Read from {escape(found.source)}, {formats.ago(found.created_at)}."
        )
        changes = refreshes.difference(context.actor, found.id)
        if len(changes):
            table_with_downloads(
                changes.head(_MOST_CHANGES).rename(
                    columns={"score_now": "now", "score_then": "then"}
                ),
                name=f"changes-{found.id}",
                height=min(300, 38 + 35 * len(changes)),
            )
        with st.container(horizontal=True, gap="small"), errors_shown():
            if st.button("Apply", type="primary", key=f"apply-{found.id}"):
                refreshes.apply(context.actor, found.id)
                st.rerun()
            if st.button("Discard", key=f"discard-{found.id}"):
                refreshes.discard(context.actor, found.id)
                st.rerun()


def _refreshed(context: SessionContext, boards: list[BoardView]) -> None:
    for board in boards:
        if board.is_refreshed and st.button(
            f"Go back to the shipped figures of {board.name} …", key=f"revert-{board.name}"
        ):
            confirm_by_name(
                board.name,
                "The figures that were fetched are deleted; those that came with Bud return.",
                partial(refreshes.revert, context.actor, board.name),
            )


def _fetched(each: RefreshView) -> dict[str, object]:
    return {
        "Board": each.board,
        "State": each.state,
        "Fetched": formats.when(each.created_at),
        "Added": each.added,
        "Removed": each.removed,
        "Changed": each.changed,
        "Decided by": each.decided_by or formats.NONE,
        "Read from": each.source or formats.NONE,
        "Error": each.error or formats.NONE,
    }
