"""Fetching the catalogue's sources anew: how old each is, what differs, apply and undo."""

from __future__ import annotations

from functools import partial

import streamlit as st

from app import formats
from app.session import SessionContext
from app.widgets.dialogs import confirm_by_name
from app.widgets.jobs import job_steps
from app.widgets.layout import empty_state, errors_shown, escape
from app.widgets.states import badge_markdown
from app.widgets.tables import table_with_downloads
from core import jobs
from core.kernel.settings import settings
from core.registry import refreshes
from core.registry.schemas import RefreshView, SourceView

_MOST_CHANGES = 500
_EVERYTHING = "everything"
_CHANGES = {
    "Change": st.column_config.TextColumn(width=80),
    "What": st.column_config.TextColumn(width=130),
    "Model": st.column_config.TextColumn(width=230),
    "Host": st.column_config.TextColumn(width=160),
    "Now": st.column_config.TextColumn(width=170),
    "Then": st.column_config.TextColumn(width=170),
}


def refresh_view(context: SessionContext) -> None:
    """Fetch a source anew, look at what differs, and apply it."""
    if not context.actor.is_admin:
        empty_state(
            "For admins",
            "An admin fetches the catalogue's sources anew and applies what differs.",
            icon="lock",
        )
        return
    st.caption(
        "Bud reads a public source, shows what differs, and changes nothing until you apply it. "
        f"It needs the network. {_schedule()}"
    )
    known = refreshes.sources(context.actor)
    table_with_downloads([_source(each) for each in known], name="catalogue-sources")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        name = st.selectbox("Source", [each.name for each in known], key="refresh-source")
        if st.button("Fetch", type="primary", icon=":material/cloud_download:"):
            with errors_shown():
                refreshes.start(context.actor, context.project_id, name)
                st.rerun()
    _running(context)
    found = refreshes.list_refreshes(context.actor)
    for each in found:
        if each.state == "found":
            _difference(context, each)
    _applied(context, known)
    if not found:
        empty_state("Nothing fetched yet", "Choose a source and fetch it.", icon="cloud_download")
        return
    st.markdown("**What was fetched**")
    table_with_downloads([_fetched(each) for each in found], name="catalogue-refreshes")


def _schedule() -> str:
    days = settings().refresh_catalogue_days
    if not days:
        return "Nothing is fetched by itself: BUD_REFRESH_CATALOGUE_DAYS is 0."
    then = "applies" if settings().refresh_apply else "waits with"
    return f"Every {days} days Bud fetches all of them by itself and {then} what differs."


def _source(each: SourceView) -> dict[str, object]:
    return {
        "Source": each.name,
        "As of": each.dated or formats.NONE,
        "Age (days)": each.age_days,
        "State": "never asked" if not each.rows else "old" if each.is_old else "current",
        "That date is": each.basis if each.rows else formats.NONE,
        "Came": "fetched here" if each.is_refreshed else "with Bud",
        "Rows": each.rows,
        "Gives": each.what,
        "Read from": each.url,
        "Set by": each.setting,
    }


def _running(context: SessionContext) -> None:
    for job in jobs.list_jobs(context.actor, context.project_id, active_only=True):
        if job.kind == "catalogue.refresh":
            job_steps(context.actor, job.id)


def _difference(context: SessionContext, found: RefreshView) -> None:
    with st.container(border=True, key=f"refresh-{found.id}"):
        st.markdown(
            f"#### {escape(found.feed)} {badge_markdown('pending')}  \n"
            f"{found.added:,} added, {found.removed:,} removed, {found.changed:,} changed; "
            f"{found.entries:,} entries, of which {found.unresolved:,} have a name that no model "
            f"is known by. Fetched {formats.ago(found.created_at)}."
        )
        with errors_shown():
            _changes(context, found)
        with st.container(horizontal=True, gap="small"), errors_shown():
            if st.button("Apply", type="primary", key=f"apply-{found.id}"):
                refreshes.apply(context.actor, found.id)
                st.rerun()
            if st.button("Discard", key=f"discard-{found.id}"):
                refreshes.discard(context.actor, found.id)
                st.rerun()


def _changes(context: SessionContext, found: RefreshView) -> None:
    changes = refreshes.difference(context.actor, found.id)
    if changes.empty:
        st.caption("The catalogue says the same already.")
        return
    counts = changes["what"].value_counts()
    kinds = [_EVERYTHING, *counts.index]
    kind = st.pills(
        "Show",
        kinds,
        default=_EVERYTHING,
        format_func=lambda each: _kind(each, int(counts.get(each, len(changes)))),
        key=f"what-{found.id}",
    )
    shown = changes if kind in (None, _EVERYTHING) else changes[changes["what"] == kind]
    table_with_downloads(
        shown.head(_MOST_CHANGES).rename(
            columns={"change": "Change", "what": "What", "model_id": "Model", "host": "Host",
                     "old": "Now", "new": "Then"}
        ),
        name=f"changes-{found.id}",
        columns=_CHANGES,
        height=min(380, 38 + 35 * len(shown)),
    )  # fmt: skip
    if len(shown) > _MOST_CHANGES:
        st.caption(f"The first {_MOST_CHANGES} of {len(shown):,}; choose what to show.")


def _kind(name: str, count: int) -> str:
    return f"{name.replace('_', ' ')} · {count:,}"


def _applied(context: SessionContext, known: list[SourceView]) -> None:
    for each in known:
        if each.is_refreshed and st.button(
            f"Undo the newest refresh from {each.name} …", key=f"take-back-{each.name}"
        ):
            confirm_by_name(
                each.name,
                "What that refresh changed is taken back: the one before stands again, or what "
                "came with Bud.",
                partial(_take_back, context, each.name),
                verb="Undo",
            )


def _take_back(context: SessionContext, feed: str) -> None:
    refreshes.take_back(context.actor, feed)


def _fetched(each: RefreshView) -> dict[str, object]:
    return {
        "Source": each.feed,
        "State": each.state,
        "Fetched": formats.when(each.created_at),
        "Added": each.added,
        "Removed": each.removed,
        "Changed": each.changed,
        "Decided by": each.decided_by or formats.NONE,
        "Error": each.error or formats.NONE,
    }
