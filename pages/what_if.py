"""What if: predict a deployment before paying for it, and say how sure."""

from __future__ import annotations

import streamlit as st

from app import session
from app.widgets import errors_shown, page_header, rerun_page
from app.widgets import simulation_results as results
from app.widgets.simulation_choice import choose_view, compare_view
from app.widgets.simulation_inputs import inputs, is_next_asked, open_question
from app.widgets.simulation_jobs import replay_view, search_view
from app.widgets.simulation_saved import actions, saved_note, saved_popover
from app.widgets.simulation_training import train_view
from core.hardware import services as hardware
from core.simulation import services as simulation
from core.simulation.schemas import Answer

context = session.current()
actor, project_id = context.actor, context.project_id

_POLL_S = 1.0
_PREDICT, _COMPARE, _CHOOSE = "Predict", "Compare", "Choose a model"
_SEARCH, _REPLAY, _TRAIN = "Find the best", "Replay", "Train"
_VIEWS = (_PREDICT, _COMPARE, _CHOOSE, _SEARCH, _REPLAY, _TRAIN)
_SHOWN = {
    "Trade-off": lambda answer: results.trade_off([answer], key="trade-off"),
    "Changes": results.changes,
    "Memory": results.memory,
    "Cost": results.costs,
    "Decode step": results.decode_step,
    "Launch": results.launch,
}


@st.fragment
def _predict() -> None:
    """Inputs and answer, run again alone when a slider moves."""
    left, right = st.columns([1, 2], gap="medium")
    with left, st.container(border=True, key="what-if-inputs"):
        query = inputs(actor, ("model", "engine", "device", "gpus", "workload", "layout"))
    with right, errors_shown():
        answer = simulation.ask(actor, project_id, query)
        results.headline(answer)
        results.kpis(answer.outcome)
        actions(context, [answer], key="predict")
        saved_note()
        _details(answer)


def _details(answer: Answer) -> None:
    chosen = st.segmented_control(
        "Look at",
        list(_SHOWN),
        default="Trade-off",
        key="show",
        bind="query-params",
        required=True,
        label_visibility="collapsed",
    )
    _SHOWN[chosen or "Trade-off"](answer)


@st.fragment(run_every=_POLL_S)
def _while_measured() -> None:
    st.info(
        "This machine is being measured once, for some seconds, so that it stands beside the "
        "others. The page goes on by itself.",
        icon=":material/speed:",
    )
    if not hardware.is_being_measured():
        rerun_page()


def main() -> None:
    """Show the page."""
    with page_header(
        "What if", "Predict a deployment before paying for it: how fast, at what cost, how sure."
    ):
        saved_popover(context)
    if hardware.is_being_measured():
        _while_measured()
        return
    opened = st.container()
    if is_next_asked():
        st.session_state["view"] = _PREDICT
    view = st.segmented_control(
        "View",
        _VIEWS,
        default=_PREDICT,
        key="view",
        bind="query-params",
        required=True,
        label_visibility="collapsed",
    )
    with opened:
        query = open_question(actor)
    if view == _COMPARE:
        compare_view(context, query)
    elif view == _CHOOSE:
        choose_view(context)
    elif view == _SEARCH:
        search_view(context)
    elif view == _REPLAY:
        replay_view(context)
    elif view == _TRAIN:
        train_view(context)
    else:
        _predict()


with errors_shown():
    main()
