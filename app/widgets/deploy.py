"""The dialog that deploys a model on this machine."""

from __future__ import annotations

import streamlit as st

from app import formats
from app.widgets.dialogs import dialog
from app.widgets.layout import errors_shown, link_to, open_page, show_error
from app.widgets.memory import fit_bar
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentRequest
from core.kernel.actor import Actor
from core.kernel.errors import BudError
from core.registry import services as registry
from core.registry.schemas import ModelView


@dialog("Deploy a model", width="medium", icon=":material/rocket_launch:")
def deploy_dialog(actor: Actor, project_id: str, model_id: str | None = None) -> None:
    """Choose a model and how it runs, with a live check whether it fits; then deploy it."""
    models = [m for m in registry.list_models(actor, project_id) if m.state == "ready"]
    if not models:
        st.info("No model is ready yet. Add one first.", icon=":material/info:")
        link_to("models", "Open Models", icon="deployed_code")
        return
    ids = [model.id for model in models]
    chosen: ModelView = st.selectbox(
        "Model",
        models,
        index=ids.index(model_id) if model_id in ids else 0,
        format_func=_model_label,
        key="deploy-model",
    )
    request = _request(actor, project_id, chosen)
    try:
        fit = deployments.check_fit(actor, request)
    except BudError as error:
        show_error(error)
        return
    st.caption(
        f"Each replica: {formats.tokens(fit.context_tokens)} of context, "
        f"{fit.slots} request{'s' if fit.slots > 1 else ''} at once, "
        f"{fit.threads} CPU thread{'s' if fit.threads > 1 else ''}."
    )
    fit_bar(fit)
    if st.button("Deploy", type="primary", disabled=not fit.fits, key="deploy-go"):
        with errors_shown():
            made = deployments.deploy(actor, request)
            open_page("deployment", id=made.id)


def _model_label(model: ModelView) -> str:
    parts = [
        formats.short_count(model.parameters),
        model.quantization,
        formats.size(model.size_bytes),
    ]
    return f"{model.name} · {' · '.join(part for part in parts if part and part != formats.NONE)}"


def _request(actor: Actor, project_id: str, model: ModelView) -> DeploymentRequest:
    left, right = st.columns([3, 1])
    name = left.text_input(
        "Name",
        deployments.suggest_name(actor, project_id, model),
        key=f"deploy-name-{model.id}",
        max_chars=63,
        help="The model name that callers use.",
    )
    replicas = right.number_input("Replicas", 1, 32, 1, key="deploy-replicas")
    task = None
    if "embedding" in model.capabilities and len(model.capabilities) > 1:
        task = st.segmented_control(
            "Answers", ["chat", "embedding"], default="chat", required=True, key="deploy-task"
        )
    with st.expander("Context, slots and threads: chosen from this machine", key="deploy-more"):
        context_tokens, slots, threads = engine_settings(model, key="deploy")
    return DeploymentRequest(
        project_id=project_id,
        name=(name or "").strip(),
        model_id=model.id,
        task=task,
        context_tokens=context_tokens,
        slots=slots,
        threads=threads,
        replicas=replicas,
    )


def engine_settings(
    model: ModelView,
    *,
    key: str,
    context_tokens: int | None = None,
    slots: int | None = None,
    threads: int | None = None,
) -> tuple[int | None, int | None, int | None]:
    """Inputs for context (tokens), slots and threads; empty leaves the choice to Bud."""
    longest = model.context_tokens
    keys = [f"{key}-{name}-{model.id}" for name in ("context", "slots", "threads")]
    for widget_key, value in zip(keys, (context_tokens, slots, threads), strict=True):
        # Not as the input's default, to which it would go back when it is emptied.
        st.session_state.setdefault(widget_key, value)
    columns = st.columns(3)
    chosen_context = columns[0].number_input(
        "Context (tokens)",
        min_value=1,
        value=None,
        step=256,
        placeholder="automatic",
        key=keys[0],
        help="The longest conversation of one request, question and answer together"
        + (f"; this model was trained for {longest:,}." if longest else "."),
    )
    chosen_slots = columns[1].number_input(
        "Slots (requests at once)",
        min_value=1,
        value=None,
        placeholder="automatic",
        key=keys[1],
        help="More slots answer more callers at once, and take more KV cache.",
    )
    chosen_threads = columns[2].number_input(
        "CPU threads",
        min_value=1,
        value=None,
        placeholder="automatic",
        key=keys[2],
        help="On busy cores more threads can be slower than fewer: measure.",
    )
    return chosen_context, chosen_slots, chosen_threads
