"""The inputs of the What-if page, and the question that its link carries.

The question lives in the link. It is written there by this module and not by the widgets'
`bind`, which would drop a wrong value silently: a link that asks for 0 GPUs must be told so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from app.widgets.layout import escape, show_error
from core.kernel.actor import Actor
from core.kernel.errors import BudError
from core.simulation import questions, sensitivity
from core.simulation import services as simulation
from core.simulation.scenarios import ENGINES, PRECISIONS
from core.simulation.schemas import WhatIf
from core.simulation.workloads import WORKLOADS, Workload

_QUERY, _WRITTEN, _NEXT = "what-if-query", "what-if-written", "what-if-next"
_OPENED = "what-if-opened"
_SCENARIO = "what-if-scenario"
_CUSTOM = "own numbers"
_LENGTHS = sorted(
    {
        *(16, 32, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192),
        *(12_288, 16_384, 24_576, 32_768, 49_152, 65_536, 98_304, 131_072, 200_000),
        *(tokens for each in WORKLOADS for tokens in (each.isl, each.osl)),
    }
)
_LOADS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
_SHARES = sorted(
    {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95}
    | {each.prefix_hit_share for each in WORKLOADS}
)
_SHARDS = (1, 2, 4, 8, 16, 32, 64)
_MODES = {"agg": "Together", "disagg": "Separate"}


def engine_name(engine: str) -> str:
    """An engine as its makers write it."""
    return questions.ENGINE_NAMES.get(engine, engine)


def open_question(actor: Actor) -> WhatIf:
    """The question of this run: another than before when the link or a click says so."""
    pending: WhatIf | None = st.session_state.pop(_NEXT, None)
    if pending is not None:
        _seed(pending)
        write_link(pending)
        return pending
    parameters = _link_parameters()
    is_known = parameters == st.session_state.get(_WRITTEN)
    if _QUERY not in st.session_state or (parameters and not is_known):
        _seed(_from_link(actor, parameters))
    query: WhatIf = st.session_state[_QUERY]
    write_link(query)
    return query


def ask_next(query: WhatIf) -> None:
    """Show another question from the next run on."""
    st.session_state[_NEXT] = query
    st.rerun()


def is_next_asked() -> bool:
    """Whether this run shows a question that a click of the last one chose."""
    return _NEXT in st.session_state


def load_button(name: str, query: WhatIf, *, key: str) -> None:
    """A button that shows another question."""
    if st.button(f"Load: {escape(name)}", icon=":material/arrow_forward:", key=key):
        ask_next(query)


def _link_parameters() -> dict[str, str]:
    known = {*WhatIf.model_fields, "scenario"}
    return {name: st.query_params[name] for name in st.query_params if name in known}


def _from_link(actor: Actor, parameters: dict[str, str]) -> WhatIf:
    st.session_state.pop(_SCENARIO, None)
    try:
        if "scenario" in parameters:
            view = simulation.get_scenario(actor, parameters["scenario"])
            st.session_state[_SCENARIO] = (view.id, view.query)
            return simulation.canonical(actor, view.query)
        return simulation.canonical(actor, questions.from_link(parameters))
    except BudError as error:
        show_error(error)
        return WhatIf()


def write_link(query: WhatIf) -> None:
    """Make the address that of the question: it is what a person copies and sends."""
    scenario_id, saved = st.session_state.get(_SCENARIO, ("", None))
    wanted = {"scenario": scenario_id} if query == saved else questions.to_link(query)
    shown = _link_parameters()
    for name in shown.keys() - wanted.keys():
        del st.query_params[name]
    changed = {name: text for name, text in wanted.items() if shown.get(name) != text}
    if changed:
        # At once: each write is a step of the browser's history.
        st.query_params.update(changed)
    st.session_state[_WRITTEN] = wanted


def link_of(query: WhatIf) -> str:
    """The whole address of a question, as it is looked at now: its project, its view."""
    base = (st.context.url or "").split("?")[0]
    known = {*WhatIf.model_fields, "scenario"}
    around = {name: st.query_params[name] for name in st.query_params if name not in known}
    carried = urlencode(questions.to_link(query) | around)
    return f"{base}?{carried}" if carried else base


def _key(field: str) -> str:
    return f"what-if-{field}"


def _seed(query: WhatIf) -> None:
    st.session_state[_QUERY] = st.session_state[_OPENED] = query
    for field in WhatIf.model_fields:
        st.session_state.pop(_key(field), None)


def _bound(field: str) -> str:
    """The key of a field's widget, which is about to be shown with the question's value.

    Streamlit forgets the values of widgets that a run did not show; what is set before the run
    that shows the widget would outlive it.
    """
    st.session_state.setdefault(_key(field), getattr(st.session_state[_QUERY], field))
    return _key(field)


def _now(field: str) -> Any:
    """The value of a field, whether its widget is shown or not."""
    return st.session_state.get(_key(field), getattr(st.session_state[_QUERY], field))


def inputs(actor: Actor, parts: Sequence[str]) -> WhatIf:
    """The asked parts of a question, as they are now; the other parts stay as they were.

    Args:
        actor: Who asks.
        parts: Of `PARTS`, in the order in which they are shown.
    """
    given: dict[str, Any] = {}
    for part in parts:
        given |= PARTS[part](actor)
    query: WhatIf = st.session_state[_QUERY].model_copy(update=given)
    st.session_state[_QUERY] = query
    write_link(query)
    return query


def _model(actor: Actor) -> dict[str, Any]:
    names = {each.id: each.name for each in simulation.models(actor) if each.index is not None}
    model = st.selectbox(
        "Model",
        _with_chosen("model", list(names)),
        format_func=lambda each: names.get(each, each),
        key=_bound("model"),
        help="Those of the registry first, then those whose architecture ships with Bud.",
    )
    return {"model": model}


def _engine(_actor: Actor) -> dict[str, Any]:
    left, right = st.columns(2)
    precision = left.selectbox(
        "Weights",
        _with_chosen("precision", ["", *PRECISIONS]),
        format_func=lambda each: each.upper() if each else "published",
        key=_bound("precision"),
    )
    engine = right.selectbox(
        "Engine",
        _with_chosen("engine", list(ENGINES)),
        format_func=engine_name,
        key=_bound("engine"),
    )
    return {"precision": precision, "engine": engine}


def hardware_names(actor: Actor) -> dict[str, str]:
    """Devices and cloud instances that can be asked for, with their names for people."""
    devices = [each for each in simulation.systems(actor) if each.index is not None]
    return {each.id: each.name for each in devices} | simulation.instances()


def _device(actor: Actor) -> dict[str, Any]:
    names = hardware_names(actor)
    hardware = st.selectbox(
        "Hardware",
        _with_chosen("hardware", list(names)),
        format_func=lambda each: names.get(each, each),
        key=_bound("hardware"),
        help="A device at its cheapest known price, or a cloud instance at its own.",
    )
    return {"hardware": hardware}


def _gpus(_actor: Actor) -> dict[str, Any]:
    if _now("mode") == "disagg":
        return {}
    left, right = st.columns(2)
    # Without bounds: 0 GPUs get an answer in words.
    gpus = left.number_input("GPUs", step=1, key=_bound("gpus"))
    tp = right.selectbox(
        "TP",
        _with_chosen("tp", _SHARDS),
        key=_bound("tp"),
        help="Tensor parallel: GPUs that share each layer of one copy of the model. The other "
        "GPUs hold more copies.",
    )
    return {"gpus": gpus, "tp": tp}


def _most_gpus(_actor: Actor) -> dict[str, Any]:
    return {"gpus": st.number_input("GPUs at most", step=1, key=_bound("gpus"))}


def _with_chosen(field: str, options: Sequence[Any]) -> list[Any]:
    """The options, and what was opened even if it is none of them.

    Not the value of the moment: the options of a slider must not change under the hand.
    """
    chosen = getattr(st.session_state[_OPENED], field)
    found = list(options)
    if chosen in found:
        return found
    return sorted([*found, chosen]) if isinstance(chosen, int | float) else [*found, chosen]


def _workload(_actor: Actor) -> dict[str, Any]:
    names = {each.id: each.name for each in WORKLOADS}
    matching = _matching_workload()
    st.session_state[_key("workload")] = matching
    chosen = st.selectbox(
        "Workload",
        [*names, _CUSTOM] if matching == _CUSTOM else list(names),
        format_func=lambda each: names.get(each, each),
        key=_key("workload"),
        on_change=_take_workload,
    )
    st.caption(next((each.why for each in WORKLOADS if each.id == chosen), "As set below."))
    isl = _ladder("isl", "Input tokens", _LENGTHS)
    osl = _ladder("osl", "Output tokens", _LENGTHS)
    concurrency = _ladder("concurrency", "Requests in flight", _LOADS)
    share = st.select_slider(
        "Input found in the prefix cache",
        _with_chosen("prefix_hit_share", _SHARES),
        format_func=lambda each: f"{each:.0%}",
        key=_bound("prefix_hit_share"),
    )
    return {"isl": isl, "osl": osl, "concurrency": concurrency, "prefix_hit_share": share}


def _ladder(field: str, label: str, steps: Sequence[int]) -> int:
    chosen: int = st.select_slider(
        label, _with_chosen(field, steps), format_func=lambda each: f"{each:,}", key=_bound(field)
    )
    return chosen


def _load_of(workload: Workload) -> dict[str, Any]:
    return {
        "isl": workload.isl,
        "osl": workload.osl,
        "concurrency": workload.concurrency,
        "prefix_hit_share": workload.prefix_hit_share,
    }


def _matching_workload() -> str:
    for each in WORKLOADS:
        # Concurrency is what a person moves first; the kind of use stays the same.
        lengths = {k: v for k, v in _load_of(each).items() if k != "concurrency"}
        if all(_now(field) == value for field, value in lengths.items()):
            return each.id
    return _CUSTOM


def _take_workload() -> None:
    chosen = st.session_state[_key("workload")]
    for each in WORKLOADS:
        if each.id == chosen:
            for field, value in _load_of(each).items():
                st.session_state[_key(field)] = value


def _advanced(_actor: Actor) -> dict[str, Any]:
    with st.expander("Layout, cache and price", icon=":material/tune:", key="what-if-advanced"):
        mode = st.segmented_control(
            "Prefill and decode",
            list(_MODES),
            format_func=lambda each: _MODES[each],
            key=_bound("mode"),
            required=True,
            on_change=_take_mode,
            help="Separate: some workers read prompts and hand their KV cache to others.",
        )
        given: dict[str, Any] = {"mode": mode}
        given |= _split_layout() if mode == "disagg" else _whole_layout()
        left, right = st.columns(2)
        given["ep"] = left.selectbox(
            "EP",
            _with_chosen("ep", _SHARDS),
            key=_bound("ep"),
            help="Expert parallel, for models with experts: GPUs that these are spread over.",
        )
        given["dp"] = right.selectbox(
            "DP",
            _with_chosen("dp", _SHARDS),
            key=_bound("dp"),
            help="Data-parallel attention, for models with experts: ranks among the TP GPUs, each "
            "of which attends to its own requests.",
        )
        left, right = st.columns(2)
        given["kv_precision"] = left.selectbox(
            "KV cache",
            questions.KV_PRECISIONS,
            format_func=lambda each: "auto" if each == "auto" else each.upper(),
            key=_bound("kv_precision"),
        )
        given["speculation"] = right.selectbox(
            "Speculation",
            questions.SPECULATIONS,
            format_func=lambda each: "MTP" if each == "mtp" else each,
            key=_bound("speculation"),
        )
        left, right = st.columns(2)
        given["max_sequences"] = left.number_input(
            "Sequences/step",
            step=1,
            key=_bound("max_sequences"),
            help="The most of one copy in a step (max-num-seqs); 0 leaves it to the engine.",
        )
        given["chunk_tokens"] = right.number_input(
            "Tokens/step",
            step=256,
            key=_bound("chunk_tokens"),
            help="The most in a step (max-num-batched-tokens); 0 leaves it to the engine.",
        )
        given["usd_per_gpu_hour"] = left.number_input(
            "USD/GPU hour",
            step=0.1,
            format="%.4f",
            key=_bound("usd_per_gpu_hour"),
            help="0 takes the cheapest known price.",
        )
    return given


def _take_mode() -> None:
    """Begin a separated layout with the same GPUs as the one before."""
    query: WhatIf = st.session_state[_QUERY]
    if st.session_state[_key("mode")] == "disagg" and query.mode == "agg":
        layout = sensitivity.split(query)
        st.session_state[_OPENED] = query.model_copy(update=layout)
        for field, value in layout.items():
            st.session_state[_key(field)] = value


def _whole_layout() -> dict[str, Any]:
    pp = st.selectbox(
        "PP",
        _with_chosen("pp", (1, 2, 4, 8)),
        key=_bound("pp"),
        help="Pipeline parallel: groups of GPUs that hold some layers each.",
    )
    return {"pp": pp}


def _split_layout() -> dict[str, Any]:
    given = {}
    for side in ("prefill", "decode"):
        left, right = st.columns(2)
        workers, tp = f"{side}_workers", f"{side}_tp"
        given[workers] = left.number_input(
            f"{side.capitalize()} workers", step=1, key=_bound(workers)
        )
        given[tp] = right.selectbox(f"TP of {side}", _with_chosen(tp, _SHARDS), key=_bound(tp))
    return given


def layout_label(query: WhatIf) -> str:
    """`2 × TP 4, FP8, vLLM`."""
    precision = query.precision.upper() if query.precision else "published weights"
    return f"{questions.layout_name(query)}, {precision}, {engine_name(query.engine)}"


PARTS: dict[str, Callable[[Actor], dict[str, Any]]] = {
    "model": _model,
    "engine": _engine,
    "device": _device,
    "gpus": _gpus,
    "most gpus": _most_gpus,
    "workload": _workload,
    "layout": _advanced,
}
