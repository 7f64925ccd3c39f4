"""Models: what can be deployed, and what is being added."""

from __future__ import annotations

import streamlit as st

from app import session
from app.widgets import (
    Kpi,
    badge_markdown,
    confirm_by_name,
    dialog,
    empty_state,
    errors_shown,
    escape,
    formats,
    job_steps,
    kpi_row,
    link_to,
    page_header,
    table_with_downloads,
)
from app.widgets.wizard import begin
from core import jobs
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentView
from core.registry import services as registry
from core.registry.schemas import ModelView

context = session.current()
actor, project_id = context.actor, context.project_id

_FACT_PX = 180
_LONG_FACT = 30


@dialog("Add a model", width="medium", icon=":material/add:")
def _add_dialog() -> None:
    source = st.segmented_control(
        "From", ["This machine", "Hugging Face"], default="This machine", required=True
    )
    with st.form("add-model", border=False):
        if source == "This machine":
            where = st.text_input(
                "Path",
                placeholder="/models/my-model.gguf, or the folder it is in",
                help="A GGUF file on the machine that Bud runs on; it is copied and checked.",
            )
            file = None
        else:
            where = st.text_input("Hugging Face id", placeholder="owner/name")
            file = st.text_input(
                "File",
                placeholder="automatic: Q4_K_M, else the smallest GGUF",
                help="The name of one GGUF file in the repository.",
            )
        name = st.text_input("Name", placeholder="automatic", max_chars=120)
        added = st.form_submit_button("Add", type="primary")
    if not added:
        return
    if not (where or "").strip():
        st.error("Say where the model is.", icon=":material/error:")
        return
    with errors_shown():
        if source == "This machine":
            registry.add_local(actor, project_id, where.strip(), name or None)
        else:
            registry.add_from_hub(actor, project_id, where, file or None, name or None)
        st.rerun()


def _row(model: ModelView, users: list[DeploymentView]) -> dict[str, object]:
    return {
        "Name": model.name,
        "State": model.state,
        "Parameters": formats.short_count(model.parameters),
        "Quantisation": model.quantization or formats.NONE,
        "Context": formats.tokens(model.context_tokens),
        "Size": formats.size(model.size_bytes),
        "Can do": ", ".join(model.capabilities) or formats.NONE,
        "Licence": model.licence or formats.NONE,
        "Deployed as": ", ".join(view.name for view in users) or formats.NONE,
    }


def _details(model: ModelView, users: list[DeploymentView]) -> None:
    with st.container(border=True, key="model-details"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"#### {escape(model.name)} {badge_markdown(model.state)}", width="stretch")
            if model.state == "ready" and st.button(
                "Deploy", type="primary", icon=":material/rocket_launch:", key="details-deploy"
            ):
                begin(actor, project_id, model.id)
            if not model.is_shared and st.button("Delete …", icon=":material/delete:"):
                confirm_by_name(
                    model.name,
                    "Bud's copy of the model's files is deleted. The original stays.",
                    lambda: registry.delete_model(actor, model.id),
                    after=lambda: st.query_params.pop("id", None),
                )
        if model.error:
            st.error(escape(model.error), icon=":material/error:")
            _retry(model)
        _metadata(model)
        if users:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown("Deployed as", width="content")
                for view in users:
                    link_to("deployment", view.name, icon="rocket_launch", query={"id": view.id})


def _retry(model: ModelView) -> None:
    history = jobs.list_jobs(actor, project_id, subject=f"model:{model.id}", limit=1)
    if history and history[0].state in ("failed", "cancelled"):
        if st.button("Try again", icon=":material/refresh:"):
            with errors_shown():
                jobs.retry(actor, history[0].id)
                st.rerun()
        link_to("jobs", "See the job", icon="task", query={"id": history[0].id})


def _metadata(model: ModelView) -> None:
    facts = {
        "Architecture": model.architecture,
        "Parameters": formats.short_count(model.parameters),
        "Quantisation": model.quantization,
        "Trained context": formats.tokens(model.context_tokens),
        "Size of the file": formats.size(model.size_bytes),
        "Layers": formats.count(model.layers),
        "Attention heads (KV)": f"{formats.count(model.heads)} ({formats.count(model.kv_heads)})",
        "Head length, key and value": f"{formats.count(model.key_length)} and "
        f"{formats.count(model.value_length)}",
        "Embedding length": formats.count(model.embedding_length),
        "Vocabulary": formats.tokens(model.vocabulary),
        "Chat template": {True: "yes", False: "no"}.get(model.chat_template or False),
        "Can do": ", ".join(model.capabilities) or None,
        "Licence": model.licence,
        "Added": formats.when(model.created_at),
        "From": model.source,
        "SHA-256": model.sha256,
    }
    with st.container(horizontal=True, key="model-facts", gap="medium"):
        for name, value in facts.items():
            with st.container(
                width=_FACT_PX if len(value or "") < _LONG_FACT else "content", gap=None
            ):
                st.caption(name)
                st.markdown(escape(value or formats.NONE))


def _adding() -> None:
    """The jobs that add models now, and those that have just failed."""
    for job in jobs.list_jobs(actor, project_id, active_only=True):
        if job.kind.startswith("model."):
            job_steps(actor, job.id)


def _matches(model: ModelView, words: str) -> bool:
    facts = (model.name, model.architecture, model.quantization, model.licence, model.source)
    text = " ".join(fact for fact in facts if fact).lower()
    return all(word in text for word in words.lower().split())


def main() -> None:
    """Show the page."""
    with page_header("Models", "Everything this project can deploy, with what its file says."):
        if st.button("Add model", icon=":material/add:"):
            _add_dialog()
        if st.button("Deploy", type="primary", icon=":material/rocket_launch:"):
            begin(actor, project_id)
    models = registry.list_models(actor, project_id)
    views = deployments.list_deployments(actor, project_id)
    users = {model.id: [view for view in views if view.model_id == model.id] for model in models}
    _adding()
    if not models:
        empty_state("No model yet", "Add a GGUF file of this machine, or one of Hugging Face.")
        return
    kpi_row(
        [
            Kpi("Models", formats.count(len(models))),
            Kpi("Ready", formats.count(sum(model.state == "ready" for model in models))),
            Kpi("Deployed", formats.count(sum(bool(found) for found in users.values()))),
            Kpi("On disk", formats.size(sum(model.size_bytes or 0 for model in models))),
        ]
    )
    words = st.text_input(
        "Search",
        key="q",
        bind="query-params",
        type="search",
        live=True,
        placeholder="Name, architecture, quantisation, licence or source",
    )
    shown = [model for model in models if _matches(model, words or "")]
    if not shown:
        empty_state(
            "Nothing matches", "Search for something else, or add the model.", icon="search"
        )
        return
    chosen = table_with_downloads(
        [_row(model, users[model.id]) for model in shown], name="models", selectable=True
    )
    model = shown[chosen] if chosen is not None and chosen < len(shown) else _linked(shown)
    if model is None:
        st.caption("Click a row to see what the model's file says.")
    else:
        _details(model, users[model.id])


def _linked(models: list[ModelView]) -> ModelView | None:
    """The model that the link names, or the only one there is."""
    named = [model for model in models if model.id == st.query_params.get("id")]
    if named:
        return named[0]
    return models[0] if len(models) == 1 else None


with errors_shown():
    main()
