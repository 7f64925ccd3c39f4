"""The deploy wizard: its frame, and what each step shows.

What is chosen lives in a draft of the database, so a reload goes on at the same step. Inputs keep
their values in the session until Back or Next saves them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import streamlit as st

from app import formats
from app.widgets.deploy import engine_settings, model_label, version_words
from app.widgets.layout import (
    empty_state,
    errors_shown,
    escape,
    link_to,
    open_page,
    show_error,
)
from app.widgets.memory import fit_bar
from app.widgets.wizard_predicted import badges, load_words, option_kpis, option_notes, setup_words
from core.deployments import drafts, options
from core.deployments import services as deployments
from core.deployments.options import Option
from core.deployments.planning import POOLED
from core.deployments.schemas import (
    ONE_PERSON,
    STEPS,
    DraftContent,
    DraftStep,
    DraftView,
    Load,
    Task,
)
from core.kernel.actor import Actor
from core.kernel.errors import BudError
from core.registry import services as registry
from core.registry import versions
from core.registry.schemas import ModelView, VersionView
from core.simulation.workloads import WORKLOADS

_TITLES: dict[DraftStep, str] = {
    "model": "Model",
    "targets": "Targets",
    "options": "Options",
    "configuration": "Configuration",
    "confirm": "Confirm",
}
_TASKS: dict[Task, str] = {
    "chat": "Chats and texts",
    "embedding": "Embeddings",
    "rerank": "Rerank",
}
_JUST_RUN, _OWN = "just-run", "own"
_WORKLOADS = {each.id: each for each in WORKLOADS}


def begin(
    actor: Actor, project_id: str, model_id: str = "", version_id: str | None = None
) -> NoReturn:
    """Begin a draft, and open the wizard with it."""
    draft = drafts.start(actor, project_id, model_id, version_id)
    open_page("deploy", draft=draft.id)


def draft_links(actor: Actor, project_id: str) -> None:
    """The drafts that wait to be finished, each with the way back to it."""
    if not actor.may("deployment:create", project_id):
        return
    names = {model.id: model.name for model in registry.list_models(actor, project_id)}
    for draft in drafts.list_drafts(actor, project_id):
        model = names.get(draft.content.model_id, "no model yet")
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            name = f"Go on with the draft: {model}"
            link_to("deploy", name, icon="edit_note", query={"draft": draft.id})
            st.caption(
                f"{_TITLES[draft.step]}, {formats.ago(draft.updated_at)}, "
                f"by {escape(draft.created_by_name)}",
                width="content",
            )


def wizard(actor: Actor, draft: DraftView) -> None:
    """The step at which a draft is, with the ways back and on."""
    _progress(draft.step)
    st.markdown(f"### {_TITLES[draft.step]}")
    _STEPS[draft.step](actor, draft)


def _progress(step: DraftStep) -> None:
    at = STEPS.index(step)
    items = []
    for number, name in enumerate(STEPS):
        state = "done" if number < at else "now" if number == at else "later"
        current = ' aria-current="step"' if number == at else ""
        mark = "✓" if number < at else str(number + 1)
        items.append(f'<li class="{state}"{current}><i>{mark}</i>{_TITLES[name]}</li>')
    st.html(f'{_CSS}<ol class="bud-steps" aria-label="Steps">{"".join(items)}</ol>')


_CSS = """<style>
.bud-steps { display: flex; flex-wrap: wrap; gap: .4rem 1.4rem; list-style: none;
  margin: 0 !important; padding: 0 !important; font-size: .9rem; }
.bud-steps li { display: flex; align-items: center; gap: .45rem;
  margin: 0 !important; opacity: .65; }
.bud-steps i { font-style: normal; font-weight: 650; width: 1.5rem; height: 1.5rem;
  border-radius: 50%; display: grid; place-items: center; background: #8883; }
.bud-steps .now { opacity: 1; font-weight: 650; }
.bud-steps .now i { background: #0b7a55; color: #fff; }
.bud-steps .done i { background: #18a67333; }
</style>"""


def _navigation(
    actor: Actor,
    draft: DraftView,
    changes: dict[str, Any],
    *,
    next_label: str = "Next",
    is_primary: bool = True,
    can_go_on: bool = True,
) -> None:
    """Back and Next; both save what was chosen, and neither loses it when it is refused."""
    at = STEPS.index(draft.step)
    with st.container(horizontal=True, gap="small", key="wizard-navigation"):
        back = at > 0 and st.button("Back", icon=":material/arrow_back:", key="wizard-back")
        go_on = st.button(
            next_label,
            type="primary" if is_primary else "secondary",
            icon=":material/arrow_forward:",
            disabled=not can_go_on,
            key="wizard-next",
        )
    if back:
        with errors_shown():
            _go(actor, draft, STEPS[at - 1], changes)
    if go_on:
        with errors_shown():
            _go(actor, draft, STEPS[at + 1], changes)


def _go(actor: Actor, draft: DraftView, step: DraftStep, changes: dict[str, Any]) -> NoReturn:
    drafts.save(actor, draft.id, step, **changes)
    st.rerun()


def _key(draft: DraftView, name: str) -> str:
    return f"wizard-{draft.id}-{name}"


def _model_step(actor: Actor, draft: DraftView) -> None:
    models = [m for m in registry.list_models(actor, draft.project_id) if m.state == "ready"]
    if not models:
        empty_state("No model is ready yet", "Add one first.", action="Open Models", page="models")
        return
    ids = [model.id for model in models]
    known = draft.content.model_id
    chosen = st.radio(
        "Model",
        models,
        index=ids.index(known) if known in ids else 0,
        format_func=model_label,
        key=_key(draft, "model"),
        label_visibility="collapsed",
    )
    if chosen is None:
        return
    facts = {
        "Context": formats.tokens(chosen.context_tokens),
        "Can do": ", ".join(chosen.capabilities),
        "Licence": chosen.licence or "unknown",
    }
    st.caption(" · ".join(f"{name}: {escape(value)}" for name, value in facts.items()))
    version = _version_choice(actor, draft, chosen)
    changes = {
        "model_id": chosen.id,
        "model_version_id": version and version.id,
        "task": _task_choice(draft, chosen),
    }
    why_not, remedy = versions.blocked(actor, draft.project_id, version) if version else ("", "")
    if why_not:
        st.warning(f"It may not be deployed: {escape(why_not)} {escape(remedy)}")
    _navigation(actor, draft, changes, can_go_on=not why_not)


def _version_choice(actor: Actor, draft: DraftView, model: ModelView) -> VersionView | None:
    """Which version of a model: the current one at first; None where it has none to choose."""
    ready = [each for each in versions.list_versions(actor, model.id) if each.state == "ready"]
    if not ready:
        return None
    ids = [version.id for version in ready]
    known = (draft.content.model_version_id, model.version_id)
    if len(ready) == 1:
        st.caption(f"{version_words(ready[0])}, the only one that is ready.")
        return ready[0]
    return st.selectbox(
        "Version",
        ready,
        index=next((ids.index(each) for each in known if each in ids), 0),
        format_func=lambda version: _version_label(version, is_current=version.id == known[1]),
        key=_key(draft, f"version-{model.id}"),
        help="The current version is the one in production, or else the newest that is ready. "
        "A deployment keeps to its version when another goes into production.",
    )


def _task_choice(draft: DraftView, model: ModelView) -> Task | None:
    """What callers shall ask of it; None is what the model is made for."""
    own = options.task_of(draft.project_id, DraftContent(model_id=model.id), model)
    able = options.tasks(model)
    if len(able) < 2:
        return None
    known = draft.content.task if draft.content.task in able else own
    st.session_state.setdefault(_key(draft, f"task-{model.id}"), known)
    chosen = st.segmented_control(
        "Answers",
        able,
        format_func=_TASKS.__getitem__,
        required=True,
        key=_key(draft, f"task-{model.id}"),
        help="A deployment does one of them; deploy the model twice for both. To rerank takes a "
        "model made for it, such as bge-reranker: its file has a head that scores documents.",
    )
    return None if chosen == own else chosen


def _version_label(version: VersionView, *, is_current: bool) -> str:
    facts = (version.quantization, formats.size(version.size_bytes))
    current = " · current" if is_current else ""
    return " · ".join([version_words(version), *(fact for fact in facts if fact)]) + current


def _targets_step(actor: Actor, draft: DraftView) -> None:
    names = {_JUST_RUN: "Just run it", **{each.id: each.name for each in WORKLOADS}}
    names[_OWN] = "Own numbers"
    _seed_load(draft)
    if _task(actor, draft) in POOLED:
        _texts_step(actor, draft)
        return
    chosen = st.selectbox(
        "Workload",
        list(names),
        format_func=names.__getitem__,
        key=_key(draft, "workload"),
        on_change=_take_workload,
        args=(draft,),
        help="What callers will send. It decides what is predicted, not what is allowed.",
    )
    why = "One person who tries it: short prompts, one request at a time, no targets."
    if chosen in _WORKLOADS:
        why = _WORKLOADS[chosen].why
    st.caption(why if chosen != _OWN else "As set below.")
    columns = st.columns(3)
    # Without bounds: a wrong number gets an answer in words.
    isl = columns[0].number_input("Input tokens", step=1, key=_key(draft, "isl"))
    osl = columns[1].number_input("Output tokens", step=1, key=_key(draft, "osl"))
    concurrency = columns[2].number_input(
        "Requests in flight", step=1, key=_key(draft, "concurrency")
    )
    ttft_ms, tpot_ms = _target_inputs(draft)
    load = Load(
        isl=isl,
        osl=osl,
        concurrency=concurrency,
        prefix_hit_share=_WORKLOADS[chosen].prefix_hit_share if chosen in _WORKLOADS else 0.0,
    )
    changes = {"workload": chosen, "load": load, "ttft_ms": ttft_ms, "tpot_ms": tpot_ms}
    _navigation(actor, draft, changes)


def _task(actor: Actor, draft: DraftView) -> Task:
    content = draft.content
    model = versions.pinned(actor, content.model_id, content.model_version_id)
    return options.task_of(draft.project_id, content, model)


def _texts_step(actor: Actor, draft: DraftView) -> None:
    """The targets of a deployment that writes nothing: how long its texts are, and how many."""
    st.caption("It reads texts and writes none: their length decides the memory it takes.")
    columns = st.columns(3)
    isl = columns[0].number_input("Tokens of a text", step=1, key=_key(draft, "isl"))
    concurrency = columns[1].number_input(
        "Requests in flight", step=1, key=_key(draft, "concurrency")
    )
    load = draft.content.load.model_copy(update={"isl": isl, "concurrency": concurrency})
    _navigation(actor, draft, {"load": load, "ttft_ms": None, "tpot_ms": None})


def _target_inputs(draft: DraftView) -> tuple[float | None, float | None]:
    left, right = st.columns(2)
    for name in ("ttft_ms", "tpot_ms"):
        st.session_state.setdefault(_key(draft, name), getattr(draft.content, name))
    ttft_ms = left.number_input(
        "First token within (ms)",
        value=None,
        step=100.0,
        format="%.0f",
        placeholder="no target",
        key=_key(draft, "ttft_ms"),
        help="The target for the mean time to first token (TTFT).",
    )
    tpot_ms = right.number_input(
        "Each further token within (ms)",
        value=None,
        step=5.0,
        format="%.0f",
        placeholder="no target",
        key=_key(draft, "tpot_ms"),
        help="The target for the mean time per output token (TPOT). People read at about 100 ms "
        "a token or slower.",
    )
    return ttft_ms, tpot_ms


def _seed_load(draft: DraftView) -> None:
    load = draft.content.load
    values: dict[str, Any] = {"workload": draft.content.workload or _JUST_RUN}
    values |= {"isl": load.isl, "osl": load.osl, "concurrency": load.concurrency}
    for name, value in values.items():
        st.session_state.setdefault(_key(draft, name), value)


def _take_workload(draft: DraftView) -> None:
    chosen = st.session_state[_key(draft, "workload")]
    load: Any = ONE_PERSON if chosen == _JUST_RUN else _WORKLOADS.get(chosen)
    if load is None:
        return
    for name in ("isl", "osl", "concurrency"):
        st.session_state[_key(draft, name)] = getattr(load, name)
    if chosen == _JUST_RUN:
        for name in ("ttft_ms", "tpot_ms"):
            st.session_state[_key(draft, name)] = None


def _options_step(actor: Actor, draft: DraftView) -> None:
    pooled = _task(actor, draft) in POOLED
    order = "the least memory first" if pooled else "the best first"
    st.caption(f"{_planned_words(actor, draft, draft.content)}; {order}.")
    try:
        with st.spinner("Predicting; the first time this machine is measured for five seconds …"):
            found = options.ranked(actor, draft.project_id, draft.content)
    except BudError as error:
        show_error(error)
        found = []
    for number, option in enumerate(found):
        _option_card(actor, draft, option, number)
    # Choosing an option is the way on; the other way is for those who know what they want.
    nothing_fits = all(option.ruled_out for option in found)
    _navigation(actor, draft, {}, next_label="Set it up by hand", is_primary=nothing_fits)


def _option_card(actor: Actor, draft: DraftView, option: Option, number: int) -> None:
    with st.container(border=True, key=f"wizard-option-{number}"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(
                f"**:material/computer: {escape(option.cluster_name)}** "
                f"{badges(option, draft.content)}",
                width="stretch",
            )
            chosen = not option.ruled_out and st.button(
                "Choose",
                type="primary" if number == 0 else "secondary",
                key=f"wizard-choose-{number}",
            )
        if option.fit is not None and not option.ruled_out:
            st.caption(setup_words(option.fit))
            option_kpis(option, key=f"option-{number}")
        option_notes(option)
    if chosen and option.fit is not None:
        fit = option.fit
        names = ("context_tokens", "slots", "threads", "replicas")
        changes = {name: getattr(fit, name) for name in names} | {"cluster_id": option.cluster_id}
        _forget_configuration(draft)
        with errors_shown():
            _go(actor, draft, "configuration", changes)


def _forget_configuration(draft: DraftView) -> None:
    """Let the inputs of the next step begin with what was chosen here."""
    prefix = _key(draft, "set-")
    for key in [str(key) for key in st.session_state if str(key).startswith(prefix)]:
        del st.session_state[key]


def _configuration_step(actor: Actor, draft: DraftView) -> None:
    changes = _configuration(actor, draft)
    edited = draft.content.model_copy(update=changes)
    can_go_on = False
    name_is_good = _name_is_good(actor, draft.project_id, changes["name"])
    st.caption(f"{_planned_words(actor, draft, edited)}, again at each change.")
    try:
        option = options.evaluate(actor, draft.project_id, edited)
    except BudError as error:
        show_error(error)
    else:
        _evaluated(option, edited)
        can_go_on = name_is_good and not option.ruled_out
    _navigation(actor, draft, changes, can_go_on=can_go_on)


def _name_is_good(actor: Actor, project_id: str, name: str) -> bool:
    """Whether a deployment may have this name; shows why not."""
    try:
        deployments.check_name(actor, project_id, name)
    except BudError as error:
        show_error(error)
        return False
    return True


def _evaluated(option: Option, content: DraftContent) -> None:
    with st.container(border=True, key="wizard-evaluated"):
        st.markdown(
            f"**:material/computer: {escape(option.cluster_name)}** {badges(option, content)}"
        )
        option_kpis(option, key="configuration")
        if option.note and not option.ruled_out:
            option_notes(option)
        if option.fit is not None:
            fit_bar(option.fit)


def _configuration(actor: Actor, draft: DraftView) -> dict[str, Any]:
    content = draft.content
    model = versions.pinned(actor, content.model_id, content.model_version_id)
    left, right = st.columns([3, 1])
    for name, value in (("name", content.name), ("replicas", content.replicas)):
        st.session_state.setdefault(_key(draft, f"set-{name}"), value)
    name = left.text_input(
        "Name",
        key=_key(draft, "set-name"),
        max_chars=63,
        help="The model name that callers use.",
    )
    replicas = right.number_input("Replicas", step=1, key=_key(draft, "set-replicas"))
    context_tokens, slots, threads = engine_settings(
        model,
        key=_key(draft, "set"),
        context_tokens=content.context_tokens,
        slots=content.slots,
        threads=content.threads,
    )
    return {
        "name": (name or "").strip(),
        "replicas": replicas,
        "context_tokens": context_tokens,
        "slots": slots,
        "threads": threads,
    }


def _confirm_step(actor: Actor, draft: DraftView) -> None:
    content = draft.content
    option = None
    try:
        model = versions.pinned(actor, content.model_id, content.model_version_id)
        option = options.evaluate(actor, draft.project_id, content)
        with st.container(border=True, key="wizard-summary"):
            st.markdown(
                f"**{escape(content.name)}** runs {escape(model_label(model))} on "
                f"**{escape(option.cluster_name)}**. {badges(option, content)}"
            )
            if model.version_id is not None:
                version = versions.get_version(actor, model.version_id)
                st.caption(f"{version_words(version)} of {escape(model.name)}.")
            if option.fit is not None:
                st.caption(setup_words(option.fit))
            able = options.capabilities(draft.project_id, content, model)
            st.caption(f"Callers can ask it for: {', '.join(able)}.")
            words = _planned_words(actor, draft, content)
            st.caption(f"{words}.{_targets_words(content)}")
            option_kpis(option, key="confirm")
            option_notes(option)
    except BudError as error:
        show_error(error)
    with st.container(horizontal=True, gap="small", key="wizard-navigation"):
        back = st.button("Back", icon=":material/arrow_back:", key="wizard-back")
        deploy = st.button(
            "Deploy",
            type="primary",
            icon=":material/rocket_launch:",
            disabled=option is None or bool(option.ruled_out),
            key="wizard-deploy",
        )
    if back:
        with errors_shown():
            _go(actor, draft, "configuration", {})
    if deploy:
        with errors_shown():
            open_page("deployment", id=drafts.confirm(actor, draft.id).id)


def _planned_words(actor: Actor, draft: DraftView, content: DraftContent) -> str:
    if _task(actor, draft) not in POOLED:
        return f"Predicted for {load_words(content.load)}"
    texts = f"texts of {formats.tokens(content.load.isl)}, {content.load.concurrency:,} in flight"
    return f"Planned for {texts}; speeds are predicted only where tokens are written"


def _targets_words(content: DraftContent) -> str:
    named = (("first token", content.ttft_ms), ("each further token", content.tpot_ms))
    asked = [f"{name} within {formats.ms(most)}" for name, most in named if most is not None]
    return f" Targets: {', '.join(asked)}." if asked else ""


_STEPS: dict[DraftStep, Callable[[Actor, DraftView], None]] = {
    "model": _model_step,
    "targets": _targets_step,
    "options": _options_step,
    "configuration": _configuration_step,
    "confirm": _confirm_step,
}
