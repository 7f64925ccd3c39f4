"""Several scenarios side by side, and the models that meet some targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from app import charts, formats
from app.session import SessionContext
from app.widgets import simulation_results as results
from app.widgets.layout import Kpi, errors_shown, escape, kpi_row
from app.widgets.simulation_inputs import inputs, layout_label, load_button
from app.widgets.simulation_saved import actions, saved_note
from app.widgets.tables import table_with_downloads
from core.leaderboards import services as leaderboards
from core.leaderboards.schemas import Quality
from core.leaderboards.tasks import Task, find
from core.simulation import licences
from core.simulation import services as simulation
from core.simulation.schemas import Answer, Candidate, Outcome, Targets, WhatIf
from core.simulation.what_if import pareto

_USES: dict[str, frozenset[str] | None] = {
    "Any": None,
    "Commercial use": frozenset({licences.PERMISSIVE, licences.CONDITIONAL}),
    "Permissive": frozenset({licences.PERMISSIVE}),
}
_SMALLER = {"FP8": "fp8", "INT4": "int4", "FP4": "fp4"}


def compare_view(context: SessionContext, query: WhatIf) -> None:
    """The question beside saved ones and beside other models: four in all."""
    actor, project_id = context.actor, context.project_id
    saved = {each.name: each.query for each in simulation.list_scenarios(actor, project_id)}
    models = {each.name: each.id for each in simulation.models(actor) if each.index is not None}
    left, right = st.columns(2)
    with_saved = left.multiselect(
        "Saved scenarios",
        list(saved),
        key="with",
        bind="query-params",
        placeholder="Choose saved scenarios" if saved else "None saved yet",
    )
    with_models = right.multiselect(
        "The same with another model",
        list(models),
        key="models",
        bind="query-params",
        placeholder="Choose models",
        # Else Enter takes all that matches what was typed.
        select_all=False,
    )
    queries = [query, *(saved[name] for name in with_saved)]
    queries += [query.model_copy(update={"model": models[name]}) for name in with_models]
    with errors_shown():
        answers = simulation.compare(actor, project_id, queries)
        if len(answers) == 1:
            st.caption("Choose up to three more. The first is what Predict asks now.")
        _side_by_side(answers)
        actions(context, answers, key="compare")
        saved_note()
        results.trade_off(answers, key="compare")


def _side_by_side(answers: Sequence[Answer]) -> None:
    columns = [f"{number}. {answer.model_name}" for number, answer in enumerate(answers, 1)]
    rows = [
        {"": name, **dict(zip(columns, (read(answer) for answer in answers), strict=True))}
        for name, read in _COMPARED.items()
    ]
    table_with_downloads(rows, name="what-if-compare", height=35 * (len(rows) + 1) + 2)


_COMPARED: dict[str, Callable[[Answer], str]] = {
    "Hardware": lambda each: f"{each.outcome.devices} × {each.hardware_name}",
    "Layout": lambda each: layout_label(each.query),
    "Load": lambda each: (
        f"{each.query.isl:,} in, {each.query.osl:,} out, {each.query.concurrency:,} in flight"
    ),
    "TTFT": lambda each: _banded(each.outcome, "ttft_ms"),
    "TPOT": lambda each: _banded(each.outcome, "tpot_ms"),
    "End to end": lambda each: _banded(each.outcome, "e2e_ms"),
    "Tokens/s per user": lambda each: formats.rate(each.outcome.tokens_per_s_per_user.mean),
    "Tokens/s per GPU": lambda each: formats.rate(each.outcome.tokens_per_s_per_gpu.mean),
    "Requests/s": lambda each: formats.rate(each.outcome.requests_per_s),
    "USD per hour": lambda each: formats.usd(each.outcome.usd_per_hour),
    "USD per M output tokens": lambda each: _usd(each.outcome),
    "Memory per GPU": lambda each: (
        f"{each.outcome.memory.needed_gb:,.1f} of {each.outcome.memory.usable_gb:,.0f} GB"
    ),
    "Most in flight": lambda each: formats.count(each.outcome.most_concurrency),
    "Fits": lambda each: "yes" if each.outcome.fits else "no",
    "How sure": lambda each: each.outcome.support,
}


def _banded(outcome: Outcome, name: str) -> str:
    value = getattr(outcome, name)
    return f"{formats.ms(value.mean)} ({results.band(value, formats.ms)})"


def _usd(outcome: Outcome) -> str:
    usd = outcome.usd_per_million_output_tokens
    return formats.usd(None if usd is None else usd.mean)


def choose_view(context: SessionContext) -> None:
    """Which models meet targets on some hardware, at what cost."""
    left, right = st.columns([1, 2], gap="medium")
    with left, st.container(border=True, key="what-if-inputs"):
        query = inputs(context.actor, ("device", "most gpus", "workload"))
    with right, errors_shown():
        targets, precisions, use, task = _targets()
        found = simulation.choose_model(
            context.actor,
            context.project_id,
            query,
            targets,
            precisions=precisions,
            uses=_USES[use],
            task=task.key,
        )
        _candidates(found, task)


def _targets() -> tuple[Targets, list[str], str, Task]:
    with st.container(border=True, key="what-if-targets"):
        st.markdown("**Targets** :gray[empty asks for nothing]")
        columns = st.columns(4)
        asked = [
            column.number_input(label, value=None, key=key, bind="query-params", placeholder="any")
            for column, label, key in zip(
                columns,
                ("TTFT at most (ms)", "TPOT at most (ms)", "Output tokens/s", "USD per M output"),
                ("max_ttft", "max_tpot", "min_tokens_s", "max_usd"),
                strict=True,
            )
        ]
        left, right = st.columns([2, 3])
        smaller = left.multiselect(
            "Weights beside the published",
            list(_SMALLER),
            default=["FP8"],
            key="weights",
            bind="query-params",
            help="Smaller weights are quicker and may answer worse: check the quality.",
        )
        use = right.segmented_control(
            "Licence",
            list(_USES),
            default="Any",
            key="licence",
            bind="query-params",
            required=True,
            help="Any keeps models of an unknown licence too. Commercial use also keeps licences "
            "with conditions, such as Llama's: read them.",
        )
        title = st.selectbox(
            "Quality at",
            [task.title for task in leaderboards.tasks()],
            key="quality",
            bind="query-params",
            width=260,
            help="From the leaderboards; they say how sure it is.",
        )
    given = [value or None for value in asked]
    return Targets(*given), [_SMALLER[each] for each in smaller], use or "Any", find(str(title))


def _candidates(found: Sequence[Candidate], task: Task) -> None:
    meeting = [each for each in found if each.meets]
    cheapest = meeting[0] if meeting else None
    kpi_row(
        [
            Kpi(
                "Models that meet them",
                formats.count(len(meeting)),
                note=f"of {len(found)} that fit",
            ),
            Kpi(
                "Cheapest",
                None if cheapest is None else _usd(cheapest.outcome),
                "USD per million output tokens.",
                None if cheapest is None else cheapest.model_name,
            ),
        ],
        key="choose",
    )
    if not found:
        st.warning("No model fits on this hardware. Allow more GPUs or smaller weights.")
        return
    if not meeting:
        nearest = found[0]
        st.warning(
            f"None meets every target. The nearest is {escape(nearest.model_name)}, which misses "
            f"{' and '.join(nearest.misses)}."
        )
    picked = table_with_downloads(
        [_candidate_row(each) for each in found],
        name="what-if-models",
        columns={
            "USD/M output": st.column_config.NumberColumn(format="$%.3f"),
            "TTFT (ms)": st.column_config.NumberColumn(format="%.0f"),
            "TPOT (ms)": st.column_config.NumberColumn(format="%.1f"),
            "Tokens/s": st.column_config.NumberColumn(format="%.0f"),
            "Quality": st.column_config.NumberColumn(
                format="%.0f",
                help="Combined score of public boards; 50 is the middle of their models.",
            ),
        },
        selectable=True,
        height=460,
    )
    st.caption(
        f"Each model in its best layout on at most so many GPUs. Choose a row to look closer. "
        f"Quality at {task.title.lower()} is that of the leaderboards, of the instruction-tuned "
        f"version; {sum(each.quality is None for each in found)} models stand on no such board."
    )
    _quality_against_cost(found, task)
    if picked is not None and picked < len(found):
        load_button(found[picked].model_name, found[picked].query, key="load-candidate")


def _quality_against_cost(found: Sequence[Candidate], task: Task) -> None:
    """Quality against what a million tokens cost, of the models for which both are known."""
    points = [
        (each.outcome.usd_per_million_output_tokens.mean, each.quality.score, each)
        for each in found
        if each.quality is not None and each.outcome.usd_per_million_output_tokens is not None
    ]
    if not points:
        return
    groups: dict[str, list[tuple[float, float, str]]] = {}
    for usd, score, each in sorted(points, key=lambda point: not point[2].meets):
        name = "meets the targets" if each.meets else "misses some"
        groups.setdefault(name, []).append((usd, score, f"{each.model_name}: {score:.0f}"))
    best = pareto([point[0] for point in points], [point[1] for point in points])
    front = sorted(point[:2] for point, is_best in zip(points, best, strict=True) if is_best)
    figure = charts.trade_off(
        groups,
        x_title="USD per million output tokens",
        y_title=f"quality at {task.title.lower()}",
        front=front,
        joined=False,
    )
    figure.update_yaxes(rangemode="normal")
    charts.show(figure, "Quality against cost", key="quality-cost")


def _band(quality: Quality) -> str:
    return f"{quality.low:.0f} – {quality.high:.0f}"


def _candidate_row(each: Candidate) -> dict[str, object]:
    outcome = each.outcome
    usd = outcome.usd_per_million_output_tokens
    return {
        "Model": each.model_name,
        "Quality": None if each.quality is None else each.quality.score,
        "Quality band": formats.NONE if each.quality is None else _band(each.quality),
        "USD/M output": None if usd is None else usd.mean,
        "TTFT (ms)": outcome.ttft_ms.mean,
        "TPOT (ms)": outcome.tpot_ms.mean,
        "Tokens/s": outcome.tokens_per_s_per_gpu.mean * outcome.devices,
        "GPUs": outcome.devices,
        "Meets": "all" if each.meets else f"not {', '.join(each.misses)}",
        "Licence": each.licence,
        "Parameters": formats.short_count(each.parameters),
        "Layout": layout_label(each.query),
        "How sure": outcome.support,
    }
