"""Saved scenarios and what can be taken away: save, share, report, launch arguments."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app import formats
from app.session import SessionContext
from app.widgets.dialogs import confirm_by_name, dialog
from app.widgets.layout import errors_shown, escape
from app.widgets.simulation_inputs import ask_next, layout_label, link_of
from core.simulation import report
from core.simulation import services as simulation
from core.simulation.schemas import Answer, ScenarioView, WhatIf


def saved_popover(context: SessionContext) -> None:
    """The saved scenarios of the project: open, rename, delete."""
    scenarios = simulation.list_scenarios(context.actor, context.project_id)
    with st.popover(f"Saved ({len(scenarios)})", icon=":material/bookmarks:"):
        if not scenarios:
            st.caption("None yet. Save what you look at, and it is found here by its name.")
        for scenario in scenarios:
            _saved_row(context, scenario)


def _saved_row(context: SessionContext, scenario: ScenarioView) -> None:
    actor = context.actor
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        with st.container(gap=None):
            if st.button(scenario.name, key=f"open-{scenario.id}", type="tertiary"):
                ask_next(scenario.query)
            st.caption(
                f"{escape(scenario.query.model)} on {escape(scenario.query.hardware)} · "
                f"{escape(scenario.created_by_name)}, {formats.ago(scenario.updated_at)}"
            )
        if st.button("", icon=":material/edit:", key=f"rename-{scenario.id}", help="Rename"):
            _rename(context, scenario)
        if st.button("", icon=":material/delete:", key=f"delete-{scenario.id}", help="Delete"):
            confirm_by_name(
                scenario.name,
                "Links to this scenario will no longer work.",
                lambda: simulation.delete_scenario(actor, scenario.id),
            )


@dialog("Rename the scenario", icon=":material/edit:")
def _rename(context: SessionContext, scenario: ScenarioView) -> None:
    name = st.text_input("Name", scenario.name, max_chars=80, key=f"new-name-{scenario.id}")
    if st.button("Rename", type="primary", key="rename-scenario-go"):
        with errors_shown():
            simulation.rename_scenario(context.actor, scenario.id, name)
            st.rerun()


@dialog("Save the scenario", icon=":material/bookmark_add:")
def save_dialog(context: SessionContext, query: WhatIf) -> None:
    """Save a question under a name."""
    st.caption(f"{escape(query.model)} on {escape(query.hardware)}: {escape(layout_label(query))}")
    name = st.text_input(
        "Name", max_chars=80, placeholder="Such as: chat for support, FP8", key="scenario-name"
    )
    if st.button("Save", type="primary", key="save-scenario-go"):
        with errors_shown():
            made = simulation.save_scenario(context.actor, context.project_id, name, query)
            st.session_state["what-if-saved"] = made.id
            st.rerun()


def saved_note() -> None:
    """Once after saving: the link that opens it."""
    scenario_id = st.session_state.pop("what-if-saved", None)
    if scenario_id is not None:
        base = (st.context.url or "").split("?")[0]
        st.success("Saved. Members of this project open it by this link:")
        st.code(f"{base}?scenario={scenario_id}", language=None)


def actions(context: SessionContext, answers: Sequence[Answer], *, key: str) -> None:
    """Save, share and take away what is shown."""
    first = answers[0]
    with st.container(horizontal=True, gap="small", key=f"bud-what-if-actions-{key}"):
        if st.button("Save", icon=":material/bookmark_add:", key=f"save-{key}"):
            save_dialog(context, first.query)
        with st.popover("Share", icon=":material/link:"):
            st.caption("The address of this page is this view. Who has it needs a log-in.")
            st.code(link_of(first.query), language=None)
        name = f"{first.model_name}-{first.query.hardware}".replace("/", "-").replace(":", "-")
        st.download_button(
            "Report",
            data=lambda: report.html(answers).encode(),
            file_name=f"{name}.html",
            mime="text/html",
            icon=":material/description:",
            key=f"report-{key}",
            on_click="ignore",
            help="One HTML file that needs nothing else.",
        )
        st.download_button(
            "CSV",
            data=lambda: report.csv_text(answers).encode(),
            file_name=f"{name}.csv",
            mime="text/csv",
            icon=":material/table:",
            key=f"report-csv-{key}",
            on_click="ignore",
            help="The question, every number with its bounds, and what predicted it.",
        )
