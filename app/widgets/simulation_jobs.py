"""Searches and replays of the What-if page: they run as jobs, and the page stays usable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import streamlit as st

from app import charts, formats
from app.session import SessionContext
from app.widgets.jobs import job_steps
from app.widgets.layout import Kpi, empty_state, errors_shown, escape, kpi_row
from app.widgets.simulation_inputs import engine_name, hardware_names, inputs, load_button
from app.widgets.tables import table_with_downloads
from core.simulation import replays, searches
from core.simulation.options import Option, SearchResult
from core.simulation.replay import Policy
from core.simulation.replay_requests import ReplayRequest, ReplayView, TraceView
from core.simulation.replay_results import LatencyTargets, ReplayResult, Spread, Timeline
from core.simulation.scenarios import ENGINES
from core.simulation.search_requests import SearchRequest, SearchView, question

_PRECISIONS = ("fp8", "int4", "fp4", "int8")
_RUN = "run"
_UPLOAD_MB = 50

_View = TypeVar("_View", SearchView, ReplayView)


def search_view(context: SessionContext) -> None:
    """Find the best configuration under targets."""
    left, right = st.columns([1, 2], gap="medium")
    with left, st.container(border=True, key="what-if-inputs"):
        request = _search_request(context)
        if st.button("Find the best", type="primary", key="search-go", width="stretch"):
            with errors_shown():
                _open_run(searches.start(context.actor, context.project_id, request).id)
    with right, errors_shown():
        found = searches.list_searches(context.actor, context.project_id)
        chosen = _chosen_run(found, "Searches")
        if chosen is None:
            empty_state(
                "No search yet",
                "Set what must be met and what may be used, then press Find the best.",
                icon="manage_search",
                key="searches",
            )
            return
        job_steps(context.actor, chosen.job_id)
        if chosen.result is not None:
            _search_result(chosen, chosen.result)


def _search_request(context: SessionContext) -> SearchRequest:
    query = inputs(context.actor, ("model", "workload"))
    names = hardware_names(context.actor)
    hardware = st.multiselect(
        "Hardware that may be used",
        list(names),
        default=[query.hardware] if query.hardware in names else [],
        format_func=lambda each: names.get(each, each),
        select_all=False,
        key="search-hardware",
    )
    # Without bounds: a browser keeps what is out of them to itself, and the search goes on without.
    left, right = st.columns(2)
    most = left.number_input("GPUs at most", value=8, step=1, key="search-gpus")
    budget = right.number_input(
        "USD/h at most", value=None, placeholder="any", step=0.5, key="search-budget"
    )
    left, right = st.columns(2)
    ttft = left.number_input(
        "TTFT at most (ms)", value=None, placeholder="any", step=100.0, format="%g",
        key="search-ttft",
    )  # fmt: skip
    tpot = right.number_input(
        "TPOT at most (ms)", value=None, placeholder="any", step=5.0, format="%g",
        key="search-tpot",
    )  # fmt: skip
    cautious = st.checkbox(
        "Also in the worse cases",
        key="search-cautious",
        help="The upper bounds of the bands must meet the targets, and not the means alone.",
    )
    engines = st.multiselect(
        "Engines",
        ENGINES,
        default=["vllm", "sglang", "trtllm"],
        format_func=engine_name,
        key="search-engines",
    )
    precisions = st.multiselect(
        "Weights beside the published",
        _PRECISIONS,
        default=["fp8"],
        format_func=str.upper,
        key="search-precisions",
    )
    return SearchRequest(
        query=query,
        hardware=tuple(hardware),
        max_gpus=most,
        max_usd_per_hour=budget or 0.0,
        ttft_ms=ttft or 0.0,
        tpot_ms=tpot or 0.0,
        is_cautious=cautious,
        engines=tuple(engines),
        precisions=tuple(precisions),
    )


def _open_run(run_id: str) -> None:
    st.query_params[_RUN] = run_id
    st.rerun()


def _chosen_run(found: Sequence[_View], label: str) -> _View | None:
    """The run that the link names, or the newest; None when there is none."""
    if not found:
        return None
    ids = [each.id for each in found]
    titles = {
        each.id: f"{each.title} · {formats.ago(each.created_at)}, {each.created_by_name}"
        for each in found
    }
    asked = st.query_params.get(_RUN)
    chosen = st.selectbox(
        label,
        ids,
        index=ids.index(asked) if asked in ids else 0,
        format_func=lambda each: titles[each],
        label_visibility="collapsed",
    )
    return found[ids.index(chosen)]


def _search_result(view: SearchView, result: SearchResult) -> None:
    best = result.best
    note = st.success if best is not None and best.meets_slo else st.warning
    is_aimless = best is not None and not view.request.slo.targets
    note("No target was set: the cheapest is first." if is_aimless else escape(result.verdict))
    looked = "every one" if result.is_exhaustive else "the best of them, by a genetic search"
    st.caption(
        f"{result.points:,} configurations; looked at {result.evaluated:,} ({looked}); "
        f"{result.feasible:,} of these can run."
    )
    if best is None:
        return
    _search_chart(result)
    picked = table_with_downloads(
        [_option_row(each) for each in result.front],
        name="what-if-search",
        columns={
            "USD/M output": st.column_config.NumberColumn(format="$%.3f"),
            "USD/h": st.column_config.NumberColumn(format="%.2f"),
            "TTFT (ms)": st.column_config.NumberColumn(format="%.0f"),
            "TPOT (ms)": st.column_config.NumberColumn(format="%.1f"),
            "Tokens/s": st.column_config.NumberColumn(format="%.0f"),
        },
        selectable=True,
    )
    st.caption("The best first: none here is beaten in targets, cost and throughput at once.")
    row = picked if picked is not None and picked < len(result.front) else 0
    option = result.front[row]
    load_button(
        option.configuration.layout, question(view.request, option), key="load-search-option"
    )


def _search_chart(result: SearchResult) -> None:
    priced = [each for each in result.front if each.usd_per_million_output_tokens is not None]
    if not priced:
        return
    groups: dict[str, list[tuple[float, float, str]]] = {}
    for each in priced:
        name = "meets the targets" if each.meets_slo else "misses a target"
        usd = each.usd_per_million_output_tokens or 0.0
        said = f"{each.configuration.layout}<br>{engine_name(each.configuration.engine)}"
        said += f"<br>TPOT {formats.ms(each.tpot_ms.mean)}, TTFT {formats.ms(each.ttft_ms.mean)}"
        groups.setdefault(name, []).append((each.tpot_ms.mean, usd, said))
    figure = charts.trade_off(
        {name: sorted(points) for name, points in groups.items()},
        x_title="time per output token (ms)",
        y_title="USD per million output tokens",
        joined=False,
    )
    charts.show(figure, "Cost against speed of the configurations found", key="search")


def _option_row(option: Option) -> dict[str, object]:
    chosen = option.configuration
    machine = chosen.machine
    return {
        "Layout": chosen.layout,
        "USD/M output": option.usd_per_million_output_tokens,
        "TTFT (ms)": option.ttft_ms.mean,
        "TPOT (ms)": option.tpot_ms.mean,
        "Tokens/s": option.tokens_per_s,
        "GPUs": option.devices,
        "USD/h": option.usd_per_hour,
        "Engine": engine_name(chosen.engine),
        "Weights": chosen.precision.upper() or "published",
        "Hardware": machine.instance or machine.system,
        "Sequences a step": chosen.max_sequences,
        "Tokens a step": chosen.chunk_tokens,
        "Meets": "all" if option.meets_slo else "; ".join(str(miss) for miss in option.misses),
        "Measured rows nearby": option.nearby,
    }


def replay_view(context: SessionContext) -> None:
    """Replay a trace of requests over the configuration."""
    left, right = st.columns([1, 2], gap="medium")
    with left, st.container(border=True, key="what-if-inputs"):
        request = _replay_request(context)
        if st.button("Replay", type="primary", key="replay-go", width="stretch"):
            with errors_shown():
                _open_run(replays.start(context.actor, context.project_id, request).id)
    with right, errors_shown():
        chosen = _chosen_run(replays.list_replays(context.actor, context.project_id), "Replays")
        if chosen is None:
            empty_state(
                "No replay yet",
                "Choose a trace and a configuration, then press Replay.",
                icon="replay",
                key="replays",
            )
            return
        job_steps(context.actor, chosen.job_id)
        if chosen.result is not None:
            _replay_result(chosen.result)


def _replay_request(context: SessionContext) -> ReplayRequest:
    query = inputs(context.actor, ("model", "engine", "device", "gpus", "layout"))
    trace = _trace(context)
    left, right = st.columns(2)
    rate = left.number_input(
        "Arrivals ×",
        0.01,
        1000.0,
        1.0,
        step=0.5,
        help="2 lets the requests arrive twice as fast as in the trace.",
        key="replay-rate",
    )
    most = right.number_input(
        "Most copies",
        min_value=1,
        value=None,
        placeholder="none",
        key="replay-most",
        help="Copies of the model that the autoscaler may start when these are busy; empty is none "
        "beside those above.",
    )
    left, right = st.columns(2)
    ttft = left.number_input("TTFT target (ms)", 1, value=1000, step=100, key="replay-ttft")
    tpot = right.number_input("TPOT target (ms)", 1, value=50, step=5, key="replay-tpot")
    return ReplayRequest(
        query=query,
        trace=trace,
        rate=rate or 1.0,
        policy=Policy(max_replicas=most),
        targets=LatencyTargets(ttft_ms=ttft, tpot_ms=tpot),
    )


def _trace(context: SessionContext) -> str:
    traces = {each.id: each for each in replays.list_traces(context.actor, context.project_id)}
    added = st.session_state.pop("replay-added", None)
    if added in traces:
        st.session_state["replay-trace"] = added
    chosen: str = st.selectbox(
        "Trace", list(traces), format_func=lambda each: traces[each].name, key="replay-trace"
    )
    st.caption(_trace_line(traces[chosen]))
    with st.popover("Upload a trace", icon=":material/upload:"):
        st.caption(
            "A CSV file with the columns arrival_s, input_tokens and output_tokens, or the "
            f"formats of the Azure and Mooncake traces; up to {_UPLOAD_MB} MB."
        )
        file = st.file_uploader(
            "File", type=["csv", "jsonl"], max_upload_size=_UPLOAD_MB, key="replay-file"
        )
        if st.button("Add", key="replay-add", disabled=file is None) and file is not None:
            with errors_shown():
                made = replays.add_trace(
                    context.actor, context.project_id, file.name, file.getvalue()
                )
                st.session_state["replay-added"] = made.id
                st.rerun()
    return chosen


def _trace_line(trace: TraceView) -> str:
    source = f" {escape(trace.source)}" if trace.source else ""
    return (
        f"{trace.requests:,} requests in {formats.duration(trace.duration_s)}; "
        f"{trace.mean_input_tokens:,.0f} tokens in and {trace.mean_output_tokens:,.0f} out in the "
        f"mean.{source}"
    )


def _replay_result(result: ReplayResult) -> None:
    tpot = result.tpot_ms
    kpi_row(
        [
            Kpi(
                "Targets met",
                formats.percent(result.attainment),
                "Share of all requests, refused ones included, that met every target: "
                f"{_attained(result.attained)}.",
                f"of {formats.count(result.requests)}",
            ),
            Kpi("TTFT p50", formats.ms(result.ttft_ms.p50), note=_p99(result.ttft_ms)),
            Kpi("TPOT p50", None if tpot is None else formats.ms(tpot.p50), note=_p99(tpot)),
            Kpi("Latency p50", formats.ms(result.e2e_ms.p50), note=_p99(result.e2e_ms)),
            Kpi(
                "GPU hours",
                f"{result.device_hours:,.2f}",
                f"{result.mean_replicas:,.1f} copies in the mean, {result.peak_replicas} at most.",
                f"{result.mean_replicas:,.1f} copies",
            ),
            Kpi(
                "Cost",
                formats.usd(result.cost_usd),
                "“—” means that no price is set.",
                None
                if result.usd_per_million_output_tokens is None
                else f"{formats.usd(result.usd_per_million_output_tokens)}/M out",
            ),
        ],
        key="replay",
    )
    for reason, count in result.refused.items():
        st.warning(f"{count:,} requests were refused: {escape(reason)}.")
    _timeline(result.timeline)
    _percentiles(result)


def _attained(attained: Mapping[str, float]) -> str:
    names = {"ttft_ms": "TTFT", "tpot_ms": "TPOT", "e2e_ms": "latency"}
    return ", ".join(f"{names[name]} {share:.0%}" for name, share in attained.items())


def _p99(spread: Spread | None) -> str | None:
    return None if spread is None else f"p99 {formats.ms(spread.p99)}"


def _timeline(timeline: Timeline) -> None:
    minutes = [each / 60 for each in timeline.start_s]
    in_flight = {"running": timeline.running, "queued": timeline.queued}
    _over_time(minutes, "Requests running and queued", "requests", in_flight)
    met = [None if share is None else 100 * share for share in timeline.attainment]
    _over_time(minutes, "Arrivals that met every target", "%", {"met": met})
    # The last bin is seldom a whole one.
    if len({round(copies, 1) for copies in timeline.replicas[:-1]}) > 1:
        _over_time(minutes, "Copies of the model", "copies", {"copies": timeline.replicas})


def _over_time(
    minutes: Sequence[float],
    title: str,
    unit: str,
    values: Mapping[str, Sequence[float | None]],
) -> None:
    figure = charts.lines(
        minutes, values, unit=unit, group_colors=charts.colors(values), number_format=",.1f"
    )
    figure.update_xaxes(
        title={"text": "minutes since the beginning", "standoff": 6},
        tickformatstops=None,
        hoverformat=",.1f",
        automargin=True,
    )
    figure.update_traces(mode="lines")
    charts.show(figure, title, key=f"replay-{title}")


def _percentiles(result: ReplayResult) -> None:
    spreads = {
        "TTFT (ms)": result.ttft_ms,
        "TPOT (ms)": result.tpot_ms,
        "Latency (ms)": result.e2e_ms,
        "Queue (ms)": result.queue_ms,
    }
    columns = ("mean", "p50", "p90", "p95", "p99")
    table_with_downloads(
        [
            {"": name, **{column: getattr(spread, column) for column in columns}}
            for name, spread in spreads.items()
            if spread is not None
        ],
        name="what-if-replay",
        columns={name: st.column_config.NumberColumn(format="%.1f") for name in columns},
    )
