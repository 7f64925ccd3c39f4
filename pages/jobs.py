"""Jobs: what works now, what has been done, and why something failed."""

from __future__ import annotations

import streamlit as st

from app import session
from app.widgets import (
    Kpi,
    badge_markdown,
    empty_state,
    errors_shown,
    escape,
    formats,
    job_steps,
    kpi_row,
    link_to,
    open_page,
    page_header,
    retried_as,
    table_with_downloads,
)
from core import jobs
from core.jobs.schemas import JobView

context = session.current()
actor, project_id = context.actor, context.project_id

_LIMIT = 500
_STATES = ("queued", "running", "succeeded", "failed", "cancelled")
_PAGES = {"deployment": "deployment", "model": "models"}


def _row(job: JobView) -> dict[str, object]:
    ended = job.ended_at or job.started_at
    lasted = (ended - job.started_at).total_seconds() if job.started_at and ended else None
    return {
        "State": job.state,
        "Job": job.title,
        "Kind": job.kind,
        "Step": f"{sum(step.state == 'succeeded' for step in job.steps)} of {len(job.steps)}",
        "Took": formats.duration(lasted) if job.ended_at else formats.NONE,
        "Attempt": job.attempt,
        "By": job.created_by_name,
        "Started": job.created_at,
        "Error": job.error or "",
        "Id": job.id,
    }


def _history(found: list[JobView]) -> JobView | None:
    chosen = table_with_downloads(
        [_row(job) for job in found],
        name="jobs",
        columns={
            "Started": st.column_config.DatetimeColumn("Started (UTC)", format="distance"),
            "Error": st.column_config.TextColumn(width="medium"),
            "Id": None,
        },
        selectable=True,
    )
    return found[chosen] if chosen is not None and chosen < len(found) else None


def _details(job_id: str) -> None:
    job = jobs.get(actor, job_id)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"#### {escape(job.title)} {badge_markdown(job.state)}", width="stretch")
        kind, _, subject_id = job.subject.partition(":")
        if kind in _PAGES and st.button("Open what it works on", icon=":material/open_in_new:"):
            _open_subject(kind, subject_id)
        if st.query_params.get("id") and st.button("All jobs", icon=":material/list:"):
            st.query_params.pop("id")
            st.rerun()
    st.caption(
        f"{escape(job.kind)} · {escape(job.id)} · started by {escape(job.created_by_name)} · "
        f"{formats.when(job.created_at)}"
    )
    if job.retry_of:
        link_to(
            "jobs", f"This is attempt {job.attempt}; the one before", query={"id": job.retry_of}
        )
    job_steps(actor, job.id, show_title=False)
    newer = retried_as(job.id)
    if newer:
        link_to("jobs", "It was retried: see the new attempt", icon="refresh", query={"id": newer})


def _open_subject(kind: str, subject_id: str) -> None:
    open_page(_PAGES[kind], id=subject_id)


def main() -> None:
    """Show the page."""
    page_header("Jobs", "Everything that takes longer than a second, step by step.")
    job_id = st.query_params.get("id")
    if job_id:
        _details(job_id)
        return
    found = jobs.list_jobs(actor, project_id, limit=_LIMIT)
    if not found:
        empty_state(
            "No job yet",
            "Deploying or adding a model is a job: its steps are shown here.",
            icon="task",
            action="Open Deployments",
            page="deployments",
        )
        return
    active = [job for job in found if job.is_active]
    kpi_row(
        [
            Kpi("Active", formats.count(len(active))),
            Kpi("Succeeded", formats.count(sum(job.state == "succeeded" for job in found))),
            Kpi("Failed", formats.count(sum(job.state == "failed" for job in found))),
            Kpi("Cancelled", formats.count(sum(job.state == "cancelled" for job in found))),
        ]
    )
    for job in active:
        job_steps(actor, job.id)
    st.markdown("### History")
    left, right = st.columns([2, 3])
    words = left.text_input(
        "Search",
        key="q",
        bind="query-params",
        type="search",
        live=True,
        placeholder="Title, kind, person or error",
    )
    state = right.pills("State", _STATES, key="state", bind="query-params")
    shown = [job for job in found if _matches(job, words or "", state)]
    if not shown:
        empty_state("Nothing matches", "Search for something else.", icon="search")
        return
    chosen = _history(shown)
    if chosen is None:
        st.caption("Click a row to see its steps and its log.")
    elif chosen.is_active:
        st.caption("Its steps are shown above.")
    else:
        _details(chosen.id)


def _matches(job: JobView, words: str, state: str | None) -> bool:
    text = f"{job.title} {job.kind} {job.created_by_name} {job.error or ''} {job.id}".lower()
    return (state is None or job.state == state) and all(w in text for w in words.lower().split())


with errors_shown():
    main()
