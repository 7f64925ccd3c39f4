"""What boards say of a model: combined by task, and every published figure with its source."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app.session import SessionContext
from app.widgets.layout import empty_state, link_to
from app.widgets.leaderboards_model import evidence_table
from app.widgets.model_subject import Subject
from app.widgets.tables import table_with_downloads
from core.leaderboards import services as leaderboards


def scores(context: SessionContext, subject: Subject) -> None:
    """Combined scores by task, then the figures they rest on."""
    if subject.catalogue_id is None:
        empty_state(
            "No board is known to list it",
            "Its source is no entry of the catalogue, by whose names boards are read. Its base "
            "model may have scores: see Family.",
            icon="leaderboard",
            action="Open the leaderboards",
            page="leaderboards",
        )
        return
    found = leaderboards.evidence(context.actor, context.project_id, subject.catalogue_id)
    if not found:
        empty_state(
            "No board lists it",
            "None of the public boards that Bud reads has measured this model.",
            icon="leaderboard",
            action="Open the leaderboards",
            page="leaderboards",
        )
        return
    _by_task(context, subject.catalogue_id)
    st.markdown("**Every published figure**")
    evidence_table(found, name="model-evidence")
    reported = sum(each.is_self_reported for each in found)
    copies = sum(each.is_copy for each in found)
    st.caption(
        f"{len(found):,} figures; {reported:,} reported by the maker itself and {copies:,} copied "
        "from another board are shown, and count in no combined score."
    )


def _by_task(context: SessionContext, model_id: str) -> None:
    table = leaderboards.by_task(context.actor, context.project_id, [model_id])
    if table.empty:
        st.info(
            "It is on no board that is combined by task; the figures below stand alone.",
            icon=":material/info:",
        )
        return
    st.markdown("**By task**")
    table_with_downloads(
        pd.DataFrame(
            {
                "Task": table["title"],
                "Score": table["score"].astype(float),
                "Band": [f"{row.low:.0f} – {row.high:.0f}" for row in table.itertuples()],
                "Rank": [f"{row.position:,} of {row.of:,}" for row in table.itertuples()],
                "Boards": table["boards"],
            }
        ),
        name="model-tasks",
        columns=_COLUMNS,
    )
    with st.container(horizontal=True, gap="small", key="model-boards"):
        for row in table.itertuples():
            link_to("leaderboards", str(row.title), icon="leaderboard", query={"task": row.task})
    st.caption(
        "50 is the middle of a task's models, 10 one standard deviation; the band holds the score "
        "in nine cases of ten."
    )


_COLUMNS: dict[str, Any] = {
    "Score": st.column_config.ProgressColumn(format="%.1f", min_value=20, max_value=85),
    "Boards": st.column_config.NumberColumn(help="How many boards list it.", format="%d"),
}
