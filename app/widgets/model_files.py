"""The files of a version, what the scan of them says, and an admin's override."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from app import formats
from app.session import SessionContext
from app.widgets.dialogs import dialog
from app.widgets.layout import empty_state, errors_shown, escape
from app.widgets.model_marks import scan_badge, severity_badge
from app.widgets.model_subject import Subject
from app.widgets.tables import downloads, table_with_downloads
from core.registry import services as registry
from core.registry import versions
from core.registry.schemas import VersionView

_MOST_FINDINGS = 40


def files_view(context: SessionContext, subject: Subject) -> None:
    """The scan report and the files of the version that is chosen."""
    if not subject.versions:
        empty_state(
            "It has no files here",
            "A hosted model runs at its provider; an entry of the catalogue has facts only. Add "
            "its files to have them scanned.",
            icon="folder_off",
        )
        return
    by_number = {version.number: version for version in subject.versions}
    current = subject.version or subject.versions[0]
    number = current.number
    if len(by_number) > 1:
        number = int(
            st.selectbox(
                "Version",
                list(by_number),
                index=list(by_number).index(current.number),
                key="files-of",
                width=140,
            )
            or number
        )
    version = by_number[number]
    _report(context, version)
    _files(version)


def _report(context: SessionContext, version: VersionView) -> None:
    with st.container(border=True, key="scan-report"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"#### Security scan {scan_badge(version)}", width="stretch")
            if version.project_id is not None and version.state == "ready":
                _rescan(context, version)
        st.caption(_scanned_when(version))
        for reason in version.scan_reasons:
            st.warning(f"Not scanned: {escape(reason)}", icon=":material/help:")
        for finding in version.findings[:_MOST_FINDINGS]:
            remedy = f"  \n:gray[{escape(finding.remedy)}]" if finding.remedy else ""
            st.markdown(
                f"{severity_badge(finding.severity)} **{escape(finding.file)}** "
                f":gray[{escape(finding.kind)}]  \n{escape(finding.what)}{remedy}"
            )
        if len(version.findings) > _MOST_FINDINGS:
            st.caption(f"{len(version.findings) - _MOST_FINDINGS} more are in the report below.")
        _override(context, version)
    if version.findings:
        downloads(
            lambda: pd.DataFrame([finding.model_dump() for finding in version.findings]),
            name="scan-findings",
            rows="The whole report",
        )


def _scanned_when(version: VersionView) -> str:
    if version.scanned_at is None:
        return "It has not been scanned yet, which is not to say that it is clean."
    found = len(version.findings)
    said = "nothing found" if not found else f"{found} finding{'' if found == 1 else 's'}"
    return (
        f"Scanned {formats.when(version.scanned_at)}: {said}. Read without running anything: "
        "pickles, archives, headers, templates, code, links and secrets."
    )


def _rescan(context: SessionContext, version: VersionView) -> None:
    if context.actor.may("model:update", version.project_id) and st.button(
        "Scan again", icon=":material/refresh:", key="scan-again"
    ):
        with errors_shown():
            registry.scan(context.actor, version.id)
            st.rerun()


def _override(context: SessionContext, version: VersionView) -> None:
    """The override there is, or the way to make one."""
    may = context.actor.may("model:govern", version.project_id)
    if version.override_at is not None:
        st.warning(
            f"**Overridden** by {escape(version.override_by_name or '')}, "
            f"{formats.when(version.override_at)}: {escape(version.override_reason or '')}",
            icon=":material/gavel:",
        )
        if may and st.button("Withdraw the override", icon=":material/undo:"):
            with errors_shown():
                versions.withdraw_override(context.actor, version.id)
                st.rerun()
        return
    is_forbidden = version.severity == "critical" or version.scan_state != "scanned"
    if version.state != "ready" or not is_forbidden:
        return
    if not may:
        st.caption("An admin of the project can override this with a reason; that is audited.")
    elif st.button("Override …", icon=":material/gavel:", key="scan-override"):
        _override_dialog(context, version)


@dialog("Deploy it in spite of the scan", icon=":material/gpp_bad:")
def _override_dialog(context: SessionContext, version: VersionView) -> None:
    st.markdown(
        f"Version {version.number} may then be deployed in this project. Your name and the reason "
        "are kept. A later scan that finds anything else ends the override."
    )
    reason = st.text_area("Why these findings are acceptable here", max_chars=2000)
    if st.button("Override", type="primary", key="override-go"):
        with errors_shown():
            versions.override_scan(context.actor, version.id, reason or "")
            st.rerun()


def _files(version: VersionView) -> None:
    st.markdown("**Files**")
    if not version.files:
        st.caption("None yet: its job has not fetched them.")
        return
    rows: list[dict[str, Any]] = [
        {"File": file.name, "Size": formats.size(file.size_bytes), "SHA-256": file.sha256}
        for file in version.files
    ]
    table_with_downloads(
        rows,
        name="model-files",
        columns={
            "File": st.column_config.TextColumn(width=380),
            "Size": st.column_config.TextColumn(width=100),
            "SHA-256": st.column_config.TextColumn(width=480),
        },
        height=38 + 35 * min(len(rows), 12),
    )
    where = version.artifact_uri or version.path
    revision = f" · revision {escape(version.revision)}" if version.revision else ""
    st.caption(f"From {escape(version.source)}{revision} · kept at {escape(where or '—')}")
