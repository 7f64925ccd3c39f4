"""A job's steps, live while it works."""

from __future__ import annotations

import streamlit as st

from app import formats
from app.widgets.dialogs import rerun_page
from app.widgets.layout import errors_shown, escape
from app.widgets.states import badge_markdown, look
from core import jobs
from core.jobs.schemas import JobView, StepView
from core.kernel import clock
from core.kernel.actor import Actor

POLL_S = 2.0
# What is nearly done has no time left worth naming.
_LEAST_LEFT_S = 1.0
_LOG_LINES = 400


def job_steps(actor: Actor, job_id: str, *, show_title: bool = True) -> JobView:
    """Show a job's steps with progress, time left, log, and what can be done about it.

    While the job works, the steps are read anew every 2 s; the page reruns once when it ends.

    Args:
        actor: Who looks.
        job_id: The job.
        show_title: Whether to head it with the job's title.

    Returns:
        The job as it is now.
    """
    job = jobs.get(actor, job_id)
    live = st.fragment(_steps, run_every=POLL_S if job.is_active else None)
    live(actor, job_id, show_title, job.is_active)
    return job


def _steps(actor: Actor, job_id: str, show_title: bool, was_active: bool) -> None:
    job = jobs.get(actor, job_id)
    with st.container(border=True, key=f"job-{job_id}"):
        _head(job, show_title)
        for step in job.steps:
            _step(step, job)
        _outcome(job)
        _log(actor, job)
        _actions(actor, job)
    if was_active and not job.is_active:
        rerun_page()


def _head(job: JobView, show_title: bool) -> None:
    title = f"**{escape(job.title)}** " if show_title else ""
    attempt = f" · attempt {job.attempt}" if job.attempt > 1 else ""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"{title}{badge_markdown(job.state)}", width="stretch")
        st.caption(f"{_time_line(job)}{attempt}", width="content")


def _time_line(job: JobView) -> str:
    if job.state == "queued":
        return f"queued {formats.ago(job.created_at)}"
    if job.is_active:
        if job.cancel_requested:
            return "stopping …"
        spent = formats.duration((clock.now() - (job.started_at or job.created_at)).total_seconds())
        eta_s = job.eta_s or 0.0
        left = f", about {formats.duration(eta_s)} left" if eta_s >= _LEAST_LEFT_S else ""
        return f"{spent} so far{left}"
    if job.ended_at is None or job.started_at is None:
        return f"ended {formats.ago(job.ended_at)}"
    spent = formats.duration((job.ended_at - job.started_at).total_seconds())
    return f"took {spent} · {formats.ago(job.ended_at)}"


def _step(step: StepView, job: JobView) -> None:
    found = look(step.state)
    time_text = _step_time(step, job)
    runs = f" · run {step.runs}" if step.runs > 1 else ""
    detail = f" — {escape(step.detail)}" if step.detail else ""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(
            f":{found.color}[:material/{found.icon}:] {escape(step.title)}:gray[{detail}{runs}]",
            width="stretch",
        )
        st.caption(time_text, width="content")
    if step.state == "running":
        st.progress(_fraction(step))


def _fraction(step: StepView) -> float:
    if step.fraction is not None:
        return min(max(step.fraction, 0.0), 1.0)
    # Without a measured share the bar follows the usual duration, and stops short of the end.
    spent_s = (clock.now() - step.started_at).total_seconds() if step.started_at else 0.0
    return min(spent_s / max(step.expected_s, 0.1), 0.95)


def _step_time(step: StepView, job: JobView) -> str:
    if step.started_at is None:
        return f"about {formats.duration(step.expected_s)}" if job.is_active else formats.NONE
    end = step.ended_at or clock.now()
    return formats.duration((end - step.started_at).total_seconds())


def _outcome(job: JobView) -> None:
    if job.error is None:
        return
    remedy = f"  \n**What to do:** {escape(job.remedy)}" if job.remedy else ""
    st.error(f"{escape(job.error)}{remedy}", icon=":material/error:")


def _log(actor: Actor, job: JobView) -> None:
    lines = jobs.logs(actor, job.id, limit=5000)
    if not lines:
        return
    with st.expander(f"Log ({len(lines):,} lines)", key=f"job-log-{job.id}"):
        text = "\n".join(f"{line.at:%H:%M:%S} {line.line}" for line in lines[-_LOG_LINES:])
        st.code(text, language=None, height=min(320, 60 + 22 * len(lines)))


def _actions(actor: Actor, job: JobView) -> None:
    if job.is_active and actor.may("job:cancel", job.project_id):
        label = "Stopping …" if job.cancel_requested else "Cancel"
        if st.button(
            label,
            key=f"job-cancel-{job.id}",
            icon=":material/cancel:",
            disabled=job.cancel_requested,
        ):
            with errors_shown():
                jobs.cancel(actor, job.id)
                st.rerun()
    may_retry = job.state in ("failed", "cancelled") and actor.may("job:retry", job.project_id)
    if may_retry and st.button("Retry", key=f"job-retry-{job.id}", icon=":material/refresh:"):
        with errors_shown():
            st.session_state[f"job-retried-{job.id}"] = jobs.retry(actor, job.id)
            st.rerun()


def retried_as(job_id: str) -> str | None:
    """The job that a click on Retry started for `job_id` in this session, if any."""
    found = st.session_state.get(f"job-retried-{job_id}")
    return str(found) if found else None
