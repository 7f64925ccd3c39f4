"""One model: what it is, whether it may be used, how good it is, and what became of it here."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from app import session
from app.session import SessionContext
from app.widgets import empty_state, errors_shown, escape, job_steps
from app.widgets.model_facts import overview, prices
from app.widgets.model_family import family_view
from app.widgets.model_files import files_view
from app.widgets.model_header import header, other_ways, problem
from app.widgets.model_licence import licence_view
from app.widgets.model_notes import notes_view
from app.widgets.model_scores import scores
from app.widgets.model_subject import USE, Subject, find
from app.widgets.model_versions import versions_view
from core import jobs
from core.kernel.errors import BudError
from core.registry import licences

context = session.current()

_VIEWS: dict[str, Callable[[SessionContext, Subject], None]] = {
    "Overview": overview,
    "Scores": scores,
    "Prices": prices,
    "Licence": licence_view,
    "Files and scan": files_view,
    "Versions": versions_view,
    "Family": family_view,
    "Notes": notes_view,
}


def _subject() -> Subject | None:
    """The model that the link names; None, with the way on, when there is none."""
    asked = st.query_params.get("catalogue") or st.query_params.get("id")
    if not asked:
        empty_state(
            "No model is chosen",
            "Choose one of the project or of the catalogue.",
            icon="deployed_code",
            action="Open Models",
            page="models",
        )
        return None
    try:
        return find(context.actor, context.project_id, asked)
    except BudError as error:
        empty_state(
            "This model is not here",
            escape(f"{error.what} {error.remedy}"),
            icon="search_off",
            action="Open Models",
            page="models",
        )
        return None


def _work(subject: Subject) -> None:
    """The job that works on the model now."""
    for job in jobs.list_jobs(
        context.actor, context.project_id, subject=f"model:{subject.id}", active_only=True
    ):
        job_steps(context.actor, job.id)


def _use() -> str:
    """The use that verdicts are for: that of the address, else the first."""
    asked = st.query_params.get(USE, "")
    return asked if asked in licences.USES else next(iter(licences.USES))


def main() -> None:
    """Show the page."""
    subject = _subject()
    if subject is None:
        return
    ways = header(context, subject, _use())
    problem(context, subject)
    _work(subject)
    view = st.segmented_control(
        "Look at",
        list(_VIEWS),
        default="Overview",
        key="show",
        bind="query-params",
        required=True,
        label_visibility="collapsed",
    )
    with errors_shown():
        _VIEWS[view or "Overview"](context, subject)
    other_ways(context, subject, ways)


with errors_shown():
    main()
