"""The view of what was added to the project: its state, versions, scans, licences and uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from app import formats
from app.session import SessionContext
from app.widgets.jobs import job_steps
from app.widgets.layout import Kpi, empty_state, errors_shown, kpi_row, open_page
from app.widgets.model_marks import licence_key, scan_words
from app.widgets.model_subject import USE
from app.widgets.models_catalogue import VERDICT_MARKS
from app.widgets.models_providers import accounts_view
from app.widgets.models_query import outcome
from app.widgets.tables import downloads
from core import jobs
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentView
from core.registry import annotations as notes
from core.registry import licences, versions
from core.registry import services as registry
from core.registry.schemas import ModelView, VersionView

_STAR = "★"
_TABLE = "table-models"
_RECENT_JOBS = 20
_RUNS_AT = {"listed": "facts only", "hosted": "hosted"}


def project_view(context: SessionContext) -> None:
    """What this project has."""
    actor, project_id = context.actor, context.project_id
    models = registry.list_models(actor, project_id)
    current = versions.current_versions(actor, project_id)
    used = _users(deployments.list_deployments(actor, project_id))
    _adding(context)
    _kpis(models, current, used)
    words, use, only = _filters(context)
    tags, favourites = notes.tags(actor, project_id), notes.favourites(actor, project_id)
    shown = [
        model
        for model in models
        if _matches(model, words, tags) and _is_asked(model, only, current, favourites)
    ]
    if shown:
        rows = [
            _row(
                model,
                current.get(model.id),
                used.get(model.id, []),
                use,
                tags.get(f"model:{model.id}", []),
                is_favourite=f"model:{model.id}" in favourites,
            )
            for model in shown
        ]
        _table(context, shown, rows, use)
    else:
        empty_state(
            "Nothing matches",
            "Search for something else, look in the catalogue, or add the model.",
            icon="search_off",
        )
    accounts_view(context, Counter(model.provider_id or "" for model in models))


def rules_popover(context: SessionContext) -> None:
    """Which versions the project may deploy; only its admins change that."""
    actor, project_id = context.actor, context.project_id
    rules = versions.policy(actor, project_id)
    may = actor.may("model:govern", project_id)
    with st.popover("Rules", icon=":material/policy:"):
        st.markdown("**What may be deployed in this project**")
        approved = st.toggle(
            "Approved versions only",
            rules.approved_only,
            disabled=not may,
            help="Drafts and retired versions are refused.",
        )
        unscanned = st.toggle(
            "Scanned versions only",
            rules.block_unscanned,
            disabled=not may,
            help="A version that a scanner could not read to its end is refused.",
        )
        st.caption(
            "Critical findings are refused in any case, unless an admin overrides them with a "
            "reason. What runs already goes on."
        )
        if (approved, unscanned) != (rules.approved_only, rules.block_unscanned):
            with errors_shown():
                versions.set_policy(
                    actor, project_id, approved_only=approved, block_unscanned=unscanned
                )
                st.rerun()


def _users(views: list[DeploymentView]) -> dict[str, list[DeploymentView]]:
    found: dict[str, list[DeploymentView]] = {}
    for view in views:
        found.setdefault(view.model_id, []).append(view)
    return found


def _adding(context: SessionContext) -> None:
    """The jobs that work on models now."""
    for job in jobs.list_jobs(context.actor, context.project_id, active_only=True):
        if job.kind.startswith("model."):
            job_steps(context.actor, job.id)


def _kpis(
    models: list[ModelView],
    current: Mapping[str, VersionView],
    used: Mapping[str, list[DeploymentView]],
) -> None:
    critical = sum(version.severity == "critical" for version in current.values())
    kpi_row(
        [
            Kpi("Models", formats.count(len(models))),
            Kpi("Ready", formats.count(sum(model.state == "ready" for model in models))),
            Kpi(
                "In production",
                formats.count(sum(each.stage == "production" for each in current.values())),
            ),
            Kpi("Deployed", formats.count(sum(model.id in used for model in models))),
            Kpi(
                "Critical scans",
                formats.count(critical),
                "Versions that are not deployed unless an admin overrides the scan.",
            ),
            Kpi("Files", formats.size(sum(model.size_bytes or 0 for model in models))),
        ]
    )


_ONLY = ("Any", "Favourites", "Ready", "In production", "Hosted", "Needs attention")


def _filters(context: SessionContext) -> tuple[str, str, str]:
    with st.container(horizontal=True, vertical_alignment="bottom", key="project-filters"):
        words = st.text_input(
            "Search",
            key="q",
            bind="query-params",
            type="search",
            live=True,
            placeholder="Name, architecture, quantisation, licence, source or tag",
        )
        use = st.selectbox(
            "Licence for",
            list(licences.USES),
            key="use",
            bind="query-params",
            help="What you want to do; verdicts are for this use. No legal advice.",
            width=250,
        )
        only = st.selectbox("Show", _ONLY, key="only", bind="query-params", width=160)
        rules_popover(context)
    return words or "", use or next(iter(licences.USES)), only or _ONLY[0]


def _matches(model: ModelView, words: str, tags: Mapping[str, list[str]]) -> bool:
    facts = (model.name, model.architecture, model.quantization, model.licence, model.source)
    own = tags.get(f"model:{model.id}", [])
    text = " ".join([*(fact for fact in facts if fact), *own]).lower()
    return all(word in text for word in words.lower().split())


def _is_asked(
    model: ModelView, only: str, current: Mapping[str, VersionView], favourites: set[str]
) -> bool:
    version = current.get(model.id)
    return {
        "Favourites": f"model:{model.id}" in favourites,
        "Ready": model.state == "ready",
        "In production": version is not None and version.stage == "production",
        "Hosted": model.kind == "hosted",
        "Needs attention": model.state == "failed"
        or (version is not None and version.severity in ("high", "critical")),
    }.get(only, True)


def _row(
    model: ModelView,
    version: VersionView | None,
    users: list[DeploymentView],
    use: str,
    tags: list[str],
    *,
    is_favourite: bool,
) -> dict[str, object]:
    return {
        _STAR: "★" if is_favourite else "☆",
        "Name": model.name,
        "State": _RUNS_AT.get("hosted" if model.kind == "hosted" else model.state, model.state),
        "Stage": version.stage if version is not None else formats.NONE,
        "Version": version.number if version is not None else None,
        "Scan": scan_words(version),
        "Licence says": VERDICT_MARKS[outcome(licence_key(model), use)],
        "Deployed as": ", ".join(view.name for view in users) or formats.NONE,
        "Parameters": formats.short_count(model.parameters),
        "Quantisation": model.quantization or formats.NONE,
        "Context": formats.tokens(model.context_tokens),
        "Size": formats.size(model.size_bytes),
        "Can do": ", ".join(model.capabilities) or formats.NONE,
        "Licence": model.licence or formats.NONE,
        "Tags": ", ".join(tags) or formats.NONE,
        "From": model.source,
        "Added": model.created_at.date(),
        "id": model.id,
    }


_COLUMNS: dict[str, Any] = {
    _STAR: st.column_config.TextColumn(width=36, help="Click to mark a favourite of yours."),
    "Name": st.column_config.TextColumn(width=210),
    "State": st.column_config.TextColumn(width=75),
    "Stage": st.column_config.TextColumn(width=85),
    "Version": st.column_config.NumberColumn(width=65),
    "Scan": st.column_config.TextColumn(width=95, help="The severity of the worst finding."),
    "Licence says": st.column_config.TextColumn(
        width=115, help="For the use that is chosen above. No legal advice."
    ),
    "id": None,
}


def _table(
    context: SessionContext, models: list[ModelView], rows: list[dict[str, object]], use: str
) -> None:
    frame = pd.DataFrame(rows)
    chosen: Any = st.dataframe(
        frame,
        hide_index=True,
        placeholder=formats.NONE,
        column_config=_COLUMNS,
        key=f"{_TABLE}-{st.session_state.get(_TABLE, 0)}",
        on_select="rerun",
        selection_mode="single-cell",
    )
    st.caption("Click a row to open the model, its star to mark it.")
    rows_label = f"{len(frame):,} row{'' if len(frame) == 1 else 's'}"
    downloads(lambda: frame, name="models", rows=rows_label)
    if not chosen.selection.cells:
        return
    # A choice stays with its table: a new one begins once it was acted on.
    st.session_state[_TABLE] = st.session_state.get(_TABLE, 0) + 1
    row, column = chosen.selection.cells[0]
    model, is_marked = models[int(row)], rows[int(row)][_STAR] == "★"
    if column != _STAR:
        open_page("model", id=model.id, **{USE: use})
    notes.set_favourite(
        context.actor, context.project_id, f"model:{model.id}", marked=not is_marked
    )
    st.rerun()
