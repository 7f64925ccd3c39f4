"""Versions of a model: their stages, who approved what and why, and what was in production when."""

from __future__ import annotations

import streamlit as st

from app import formats
from app.session import SessionContext
from app.widgets.dialogs import confirm_by_name, dialog
from app.widgets.layout import empty_state, errors_shown, escape, link_to
from app.widgets.model_marks import scan_badge, stage_badge
from app.widgets.model_subject import Subject
from app.widgets.states import badge_markdown
from app.widgets.tables import table_with_downloads
from app.widgets.wizard import begin
from core.registry import services as registry
from core.registry import versions
from core.registry.schemas import Stage, VersionView

_VERBS: dict[tuple[Stage, Stage], tuple[str, str]] = {
    ("draft", "approved"): ("Approve …", "verified"),
    ("draft", "retired"): ("Retire …", "archive"),
    ("approved", "production"): ("Put into production …", "rocket_launch"),
    ("approved", "draft"): ("Back to draft …", "undo"),
    ("approved", "retired"): ("Retire …", "archive"),
    ("production", "approved"): ("Take out of production …", "undo"),
    ("production", "retired"): ("Retire …", "archive"),
    ("retired", "draft"): ("Back to draft …", "undo"),
}
_DELETE = ":material/delete: Delete …"
_DEPLOY = ":material/rocket_launch: Deploy …"


def versions_view(context: SessionContext, subject: Subject) -> None:
    """Every version with what can be done, then the history."""
    if subject.model is None or not subject.versions:
        empty_state(
            "It has no versions",
            "Versions come with files: add them from Hugging Face, a URL, this machine or an "
            "object store.",
            icon="layers",
        )
        return
    for version in subject.versions:
        _version(context, subject, version)
    _history(context, subject)


def _version(context: SessionContext, subject: Subject, version: VersionView) -> None:
    users = [view for view in subject.users if view.model_version_id == version.id]
    is_current = subject.version is not None and subject.version.id == version.id
    with st.container(border=True, key=f"version-{version.number}"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            state = "" if version.state == "ready" else badge_markdown(version.state)
            current = " :gray[· current]" if is_current else ""
            st.markdown(
                f"**Version {version.number}** {stage_badge(version.stage)} "
                f"{scan_badge(version)} {state}{current}",
                width="stretch",
            )
            _actions(context, subject, version)
        facts = [
            formats.size(version.size_bytes),
            version.quantization,
            f"added {formats.ago(version.created_at)} by {version.created_by_name}",
            version.source,
            f"revision {version.revision}" if version.revision else None,
        ]
        st.caption(" · ".join(escape(fact) for fact in facts if fact))
        if version.error:
            st.error(escape(version.error), icon=":material/error:")
        if users:
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.caption("Deployed as", width="content")
                for view in users:
                    link_to("deployment", view.name, icon="rocket_launch", query={"id": view.id})


def _actions(context: SessionContext, subject: Subject, version: VersionView) -> None:
    actor = context.actor
    may = actor.may("model:govern", version.project_id)
    steps = versions.TRANSITIONS[version.stage] if may else ()
    if version.state != "ready":
        steps = tuple(stage for stage in steps if stage not in ("approved", "production"))
    for position, stage in enumerate(steps[:1]):
        label, icon = _VERBS[version.stage, stage]
        if st.button(label, icon=f":material/{icon}:", key=f"stage-{version.number}-{position}"):
            _stage_dialog(context, version, stage)
    rest = {_VERBS[version.stage, stage][0]: stage for stage in steps[1:]}
    options = list(rest)
    if version.state == "ready" and actor.may("deployment:create", context.project_id):
        options.append(_DEPLOY)
    if version.project_id is not None and len(subject.versions) > 1:
        options.append(_DELETE)
    if not options:
        return
    picked = st.menu_button("", options, icon=":material/more_horiz:", key=f"more-{version.number}")
    if picked == _DEPLOY:
        with errors_shown():
            begin(actor, context.project_id, version.model_id, version.id)
    elif picked == _DELETE:
        confirm_by_name(
            f"version {version.number}",
            "Bud's copies of its files are deleted. Its history stays.",
            lambda: registry.delete_version(actor, version.id),
        )
    elif picked:
        _stage_dialog(context, version, rest[str(picked)])


@dialog("Change the stage", icon=":material/swap_horiz:")
def _stage_dialog(context: SessionContext, version: VersionView, stage: Stage) -> None:
    st.markdown(
        f"Version {version.number}: {stage_badge(version.stage)} → {stage_badge(stage)}  \n"
        f"{_CONSEQUENCES[stage]}"
    )
    needed = versions.needs_comment(version.stage, stage)
    comment = st.text_area(
        "Comment" if needed else "Comment (optional)",
        max_chars=2000,
        placeholder="What was checked, and why it is good enough; it stands in the history.",
        key=f"comment-{version.id}-{stage}",
    )
    if st.button("Change", type="primary", key="stage-go"):
        with errors_shown():
            versions.set_stage(context.actor, version.id, stage, comment or "")
            st.rerun()


_CONSEQUENCES: dict[Stage, str] = {
    "draft": "It is no longer approved. What runs already goes on.",
    "approved": "It may be deployed where the project deploys approved versions only.",
    "production": "It becomes the model's current version, which new deployments take. The one in "
    "production now goes back to approved.",
    "retired": "It is kept for its history. What runs already goes on.",
}


def _history(context: SessionContext, subject: Subject) -> None:
    assert subject.model is not None
    periods = versions.production_history(context.actor, subject.model.id)
    changes = versions.stage_history(context.actor, subject.model.id)
    st.markdown("**In production**")
    if periods:
        table_with_downloads(
            [
                {
                    "Version": period.version_number,
                    "From": formats.when(period.start),
                    "Until": formats.when(period.end) if period.end else "now",
                }
                for period in periods
            ],
            name="model-production",
        )
    else:
        st.caption("No version has been in production yet.")
    st.markdown("**History**")
    if not changes:
        st.caption("No stage has changed yet: approve a version to begin.")
        return
    with st.container(key="model-history", gap="small"):
        for change in reversed(changes):
            comment = f"  \n{escape(change.comment)}" if change.comment else ""
            st.markdown(
                f"Version {change.version_number}: {stage_badge(change.from_stage)} → "
                f"{stage_badge(change.to_stage)} :gray[{escape(change.by_name)}, "
                f"{formats.when(change.at)}]{comment}"
            )
