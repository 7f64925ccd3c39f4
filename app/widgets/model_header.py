"""The head of a model's page: what it is, whether it may be used, and what can be done with it."""

from __future__ import annotations

from functools import partial
from typing import get_args

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app.session import SessionContext
from app.widgets.dialogs import confirm_by_name, dialog
from app.widgets.layout import errors_shown, escape, link_to, open_page, page_header
from app.widgets.leaderboards_model import simulated
from app.widgets.model_marks import scan_badge, stage_badge, verdict_badge
from app.widgets.model_subject import Subject, is_favourite, own_models
from app.widgets.models_add import HUB, MACHINE, Prefilled, add_dialog
from app.widgets.states import badge_markdown
from app.widgets.wizard import begin
from core import jobs
from core.deployments import hosted
from core.deployments import services as deployments
from core.deployments.schemas import HostedTask
from core.registry import annotations as notes
from core.registry import catalogue, versions
from core.registry import services as registry
from core.registry.schemas import ModelView

_RENAME = ":material/edit: Rename …"
_SCAN = ":material/shield: Scan again"
_DELETE = ":material/delete: Delete …"


def header(context: SessionContext, subject: Subject, use: str) -> DeltaGenerator:
    """Title, marks, and the actions; gives where `other_ways` belongs."""
    with page_header(subject.name, _purpose(subject), _badges(subject, use)):
        _favourite(context, subject)
        if subject.model is None:
            _add(context, subject)
        else:
            _own_actions(context, subject, subject.model)
    return st.container(horizontal=True, gap="small", key="model-ways")


def _purpose(subject: Subject) -> str:
    if subject.model is None:
        entry = subject.entry or {}
        moving = f" · {_MOVING}" if catalogue.is_moving(subject.id) else ""
        maker = escape(entry["organisation"])
        return f"{maker} · an entry of the catalogue, {escape(subject.id)}{moving}"
    if subject.model.kind == "hosted":
        return f"Runs at its provider · {escape(subject.model.source)}"
    return f"From {escape(subject.model.source)}"


_MOVING = "a name that its maker moves from model to model; no source says which it means now"


def _badges(subject: Subject, use: str) -> list[str]:
    found = []
    model, version = subject.model, subject.version
    if model is not None and model.state in ("adding", "failed"):
        found.append(badge_markdown(model.state))
    if model is not None and model.kind == "hosted":
        found.append(":blue-badge[:material/cloud: hosted]")
    elif model is not None and model.state == "listed":
        found.append(":gray-badge[:material/list: facts only, no files]")
    if version is not None and version.state == "ready":
        found += [stage_badge(version.stage), scan_badge(version)]
    stated = subject.licence
    return [*found, verdict_badge(stated.key if stated else None, use)]


def _favourite(context: SessionContext, subject: Subject) -> None:
    marked = is_favourite(context.actor, context.project_id, subject)
    if st.button(
        "",
        icon=":material/star:" if marked else ":material/star_border:",
        help="Take it from your favourites" if marked else "Mark it as your favourite",
        type="tertiary",
        key="model-favourite",
    ):
        with errors_shown():
            notes.set_favourite(
                context.actor, context.project_id, subject.annotated, marked=not marked
            )
            st.rerun()


def _add(context: SessionContext, subject: Subject) -> None:
    """An entry of the catalogue: get its files, or keep its facts."""
    entry = subject.entry or {}
    if st.button("Keep its facts", icon=":material/playlist_add:", help=_KEEP, key="model-keep"):
        with errors_shown():
            model = registry.add_from_catalogue(
                context.actor,
                context.project_id,
                entry["id"],
                subject.name,
                parameters=entry["parameters"],
                context_tokens=entry["context_tokens"],
                licence=entry["licence_note"],
            )
            open_page("model", id=model.id)
    if entry["hub_id"] and st.button(
        "Add its files …", type="primary", icon=":material/download:", key="model-add"
    ):
        add_dialog(context, Prefilled(HUB, entry["hub_id"], entry["id"]))


_KEEP = "It stands in the project without files: to be judged, tagged and compared there."


def _own_actions(context: SessionContext, subject: Subject, model: ModelView) -> None:
    actor = context.actor
    if model.project_id is not None:
        _more(context, subject, model)
    if model.kind == "hosted":
        if st.button("Serve …", type="primary", icon=":material/cloud_upload:", key="model-serve"):
            _serve(context, model)
        return
    if model.project_id is not None and st.button(
        "Add a version …", icon=":material/add:", key="model-add-version"
    ):
        hub_id = (subject.entry or {}).get("hub_id") or ""
        source = HUB if hub_id else MACHINE
        add_dialog(context, Prefilled(source, hub_id, model.catalogue_id, model.id))
    why_not, remedy = why_not_deployable(context, subject)
    if st.button(
        "Deploy",
        type="primary",
        icon=":material/rocket_launch:",
        disabled=bool(why_not),
        help=f"{why_not} {remedy}".strip() or None,
        key="model-deploy",
    ):
        begin(actor, context.project_id, model.id)


def why_not_deployable(context: SessionContext, subject: Subject) -> tuple[str, str]:
    """Why the current version may not be deployed, and what to do; empty when it may."""
    if subject.version is None or subject.version.state != "ready":
        return "It has no files that are ready.", "Add them first."
    why_not, remedy = versions.blocked(context.actor, context.project_id, subject.version)
    return (f"{why_not[0].upper()}{why_not[1:]}", remedy) if why_not else ("", "")


def _more(context: SessionContext, subject: Subject, model: ModelView) -> None:
    options = [_RENAME, *([_SCAN] if model.state == "ready" else []), _DELETE]
    chosen = st.menu_button("", options, icon=":material/more_horiz:", key="model-more")
    if chosen == _RENAME:
        _rename(context, model)
    elif chosen == _SCAN and subject.version is not None:
        with errors_shown():
            registry.scan(context.actor, subject.version.id)
            st.rerun()
    elif chosen == _DELETE:
        confirm_by_name(
            model.name,
            "All its versions go, with Bud's copies of their files. The originals stay.",
            lambda: registry.delete_model(context.actor, model.id),
            after=lambda: open_page("models"),
        )


@dialog("Rename the model", icon=":material/edit:")
def _rename(context: SessionContext, model: ModelView) -> None:
    name = st.text_input("Name", model.name, max_chars=120, key=f"rename-{model.id}")
    if st.button("Rename", type="primary", key="rename-go"):
        with errors_shown():
            registry.rename_model(context.actor, model.id, name or "")
            st.rerun()


@dialog("Serve the model", icon=":material/cloud_upload:")
def _serve(context: SessionContext, model: ModelView) -> None:
    st.caption("Callers of the project use it by this name; its provider's account pays.")
    suggested = deployments.suggest_name(context.actor, context.project_id, model)
    name = st.text_input("Name", suggested, max_chars=63, key=f"serve-{model.id}")
    task = st.selectbox(
        "For", get_args(HostedTask), key=f"serve-task-{model.id}",
        help="What callers ask of it: the provider does not say.",
    )  # fmt: skip
    if st.button("Serve", type="primary", key="serve-go"):
        with errors_shown():
            hosted.serve(context.actor, model.id, name or "", task=task or "chat")
            st.rerun()


def _withdraw(context: SessionContext, model: ModelView) -> None:
    """For each name that callers use it by: chat with it, or take it away."""
    for view in hosted.list_hosted(context.actor, context.project_id):
        if view.model_id != model.id:
            continue
        if view.task == "chat":
            link_to("playground", f"Chat: {view.name}", icon="forum", query={"model": view.name})
        if st.button(f"Withdraw {view.name} …", icon=":material/cloud_off:", key=view.id):
            confirm_by_name(
                view.name,
                "Callers get an error from then on. The model stays in the project.",
                partial(hosted.withdraw, context.actor, view.id),
                verb="Withdraw",
            )


def other_ways(context: SessionContext, subject: Subject, at: DeltaGenerator) -> None:
    """Links to what else shows this model: What if, Compare, Playground, its other entry.

    After the page's content: what the simulator knows takes seconds to be read the first time.
    """
    entry = subject.entry or {}
    names = [subject.id, subject.catalogue_id or subject.id]
    simulation = next(
        (
            found
            for name in names
            if (found := simulated(context, name, entry.get("hub_id"))) is not None
        ),
        None,
    )
    with at:
        if simulation is not None:
            link_to("what_if", "What if", icon="tune", query={"model": simulation})
        if subject.catalogue_id is not None:
            link_to(
                "compare", "Compare", icon="compare_arrows", query={"models": subject.catalogue_id}
            )
        if subject.model is not None and subject.model.kind == "hosted":
            _withdraw(context, subject.model)
        for view in subject.users:
            if view.task == "chat" and view.ready_replicas:
                link_to(
                    "playground", f"Chat: {view.name}", icon="forum", query={"model": view.name}
                )
            link_to("deployment", view.name, icon="rocket_launch", query={"id": view.id})
        if subject.model is not None and subject.catalogue_id is not None:
            link_to(
                "model", "In the catalogue", icon="menu_book",
                query={"catalogue": subject.catalogue_id},
            )  # fmt: skip
        if subject.model is None:
            for model in own_models(context.actor, context.project_id, subject):
                link_to(
                    "model", f"In this project: {model.name}", icon="deployed_code",
                    query={"id": model.id},
                )  # fmt: skip


def problem(context: SessionContext, subject: Subject) -> None:
    """What went wrong when it was added, and why it may not be deployed."""
    model = subject.model
    if model is None:
        return
    if model.error:
        st.error(escape(model.error), icon=":material/error:")
        _retry(context, model)
    elif model.kind == "local" and model.state == "ready":
        why_not, remedy = why_not_deployable(context, subject)
        if why_not:
            st.error(
                f"This version may not be deployed. {escape(why_not)}  \n**What to do:** "
                f"{escape(remedy)}",
                icon=":material/gpp_bad:",
            )


def _retry(context: SessionContext, model: ModelView) -> None:
    history = jobs.list_jobs(
        context.actor, context.project_id, subject=f"model:{model.id}", limit=1
    )
    if history and history[0].state in ("failed", "cancelled"):
        if st.button("Try again", icon=":material/refresh:"):
            with errors_shown():
                jobs.retry(context.actor, history[0].id)
                st.rerun()
        link_to("jobs", "See the job", icon="task", query={"id": history[0].id})
