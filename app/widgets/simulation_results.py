"""What an answer of the simulator looks like: numbers with bands, charts, tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import streamlit as st

from app import charts, formats
from app.widgets.layout import Kpi, escape, kpi_row
from app.widgets.simulation_inputs import engine_name, load_button
from app.widgets.tables import table_with_downloads
from core.simulation.schemas import Answer, Change, Offer, Outcome, Value
from core.simulation.what_if import pareto

_LATENCIES: dict[str, tuple[str, Callable[[Outcome], float]]] = {
    "End to end": ("end-to-end latency (s)", lambda each: each.e2e_ms.mean / 1e3),
    "TTFT": ("time to first token (ms)", lambda each: each.ttft_ms.mean),
    "TPOT": ("time per output token (ms)", lambda each: each.tpot_ms.mean),
}
_MOST_REGIONS = 12
# What each engine calls the longest request; llama.cpp's is of all slots together.
_LONGEST = re.compile(r"--(?:max-model-len|context-length|max_seq_len) (\d+)")


def headline(answer: Answer) -> None:
    """What was asked, how sure the answer is, and what is wrong with it."""
    outcome = answer.outcome
    color = "green" if outcome.nearby else "orange"
    icon = "straighten" if outcome.nearby else "explore"
    badges = [f":{color}-badge[:material/{icon}: {outcome.support}]"]
    if not outcome.fits:
        badges.append(":red-badge[:material/memory: does not fit]")
    basis = answer.basis
    with st.container(gap=None):
        st.markdown(f"#### {escape(answer.title)}  \n{' '.join(badges)}")
        st.caption(
            f"Learnt from {basis.rows:,} measured rows, the newest of {basis.data_date}; "
            f"version {escape(basis.version)}."
        )
    if not outcome.fits:
        fits = "; ".join(answer.remedies) or "nothing that was tried"
        held = outcome.memory
        st.error(
            f"One device would need {held.needed_gb:,.1f} GB and can use {held.usable_gb:,.1f} GB. "
            "The numbers below are what it would do if it did fit.  \n"
            f"**What would fit:** {escape(fits)}.",
            icon=":material/memory:",
        )
    for note in answer.notes:
        st.warning(escape(note), icon=":material/info:")


def kpis(outcome: Outcome) -> None:
    """The numbers that matter most, each with its 80% band."""
    held = outcome.memory
    usd = outcome.usd_per_million_output_tokens
    kpi_row(
        [
            Kpi(
                "TTFT",
                _latency(outcome.ttft_ms.mean),
                f"Mean time to first token. {_BAND}",
                band(outcome.ttft_ms, _latency),
            ),
            Kpi(
                "TPOT",
                _latency(outcome.tpot_ms.mean),
                f"Mean time per output token after the first. {_BAND}",
                band(outcome.tpot_ms, _latency),
            ),
            Kpi(
                "Tok/s/user",
                _rate(outcome.tokens_per_s_per_user.mean),
                f"Output tokens a second that one caller sees. {_BAND}",
                band(outcome.tokens_per_s_per_user, _rate),
            ),
            Kpi(
                "Tok/s/GPU",
                _rate(outcome.tokens_per_s_per_gpu.mean),
                f"Output tokens; {_rate(outcome.total_tokens_per_s_per_gpu)} with the input. "
                f"{_BAND}",
                band(outcome.tokens_per_s_per_gpu, _rate),
            ),
            Kpi(
                "Requests/s",
                _rate(outcome.requests_per_s),
                "Of the whole deployment.",
                f"{formats.count(outcome.devices)} device{'' if outcome.devices == 1 else 's'}",
            ),
            Kpi(
                "USD/M out",
                None if usd is None else formats.usd(usd.mean),
                "USD for a million output tokens at this load, at the cheapest known price; "
                f"{formats.usd(outcome.usd_per_million_tokens)} for a million of input and "
                f"output together. {_BAND}",
                _usd_note(outcome),
            ),
            Kpi(
                "Memory/GPU",
                f"{held.needed_gb:,.1f} GB",
                "Weights, KV cache of the requests in flight, activations and runtime, of what "
                "the engine may use. 1 GB is 1e9 bytes.",
                f"of {held.usable_gb:,.0f} GB",
            ),
            Kpi(
                "Most in flight",
                formats.count(outcome.most_concurrency),
                "Requests of this length whose KV cache fits in the whole deployment at once; "
                "more than these wait.",
                "fit at once",
            ),
        ],
        key="what-if",
    )


_BAND = "The mean of a run lies between the two bounds below in 80% of the cases."


def band(value: Value, form: Callable[[float], str]) -> str:
    """`66 – 112 ms`: the bounds of a mean."""
    low, high = form(value.low), form(value.high)
    unit = high.rpartition(" ")[2]
    same_unit = not unit[:1].isdigit() and low.endswith(f" {unit}")
    return f"{low.removesuffix(f' {unit}') if same_unit else low} – {high}"


def _usd_note(outcome: Outcome) -> str:
    usd = outcome.usd_per_million_output_tokens
    if usd is not None:
        in_cents = f"${usd.low:,.2f} – ${usd.high:,.2f}"
        return in_cents if usd.low >= 0.1 else band(usd, formats.usd)
    return "price not set" if outcome.usd_per_hour is None else "does not fit"


def _latency(latency_ms: float) -> str:
    # Minutes and seconds would not fit into a card.
    return f"{latency_ms / 1e3:,.0f} s" if latency_ms >= 60_000 else formats.ms(latency_ms)


def _rate(number: float) -> str:
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:,.1f}" if number >= 1 else f"{number:.2g}"


def trade_off(answers: Sequence[Answer], *, key: str) -> None:
    """Latency against throughput: each layout of one answer, or each of several answers."""
    chosen = st.segmented_control(
        "Latency",
        list(_LATENCIES),
        default="End to end",
        key=f"{key}-latency",
        required=True,
        label_visibility="collapsed",
    )
    x_title, latency = _LATENCIES[chosen or "End to end"]
    if len(answers) == 1:
        lines = {curve.layout: curve.points for curve in answers[0].curves}
    else:
        lines = {
            f"{number}. {answer.title}": answer.curves[0].points
            for number, answer in enumerate(answers, 1)
        }
    curves = {
        name: [
            (
                latency(point.outcome),
                point.outcome.tokens_per_s_per_gpu.mean,
                f"{name}<br>{point.concurrency:,} requests in flight"
                f"<br>{_rate(latency(point.outcome))} {x_title[-3:].strip('( )')}"
                f"<br>{_rate(point.outcome.tokens_per_s_per_gpu.mean)} tokens/s per GPU",
            )
            for point in points
        ]
        for name, points in lines.items()
    }
    every = [(x, y) for points in curves.values() for x, y, _ in points]
    on_front = pareto([x for x, _ in every], [y for _, y in every])
    front = sorted(point for point, is_on in zip(every, on_front, strict=True) if is_on)
    asked = answers[0].outcome
    figure = charts.trade_off(
        curves,
        x_title=x_title,
        y_title="output tokens/s per GPU",
        front=front,
        marked=(latency(asked), asked.tokens_per_s_per_gpu.mean),
    )
    charts.show(figure, "Latency against throughput, from 1 request in flight up", key=key)
    st.caption(
        "Each line is one way to use the GPUs, each dot a number of requests in flight. Up is "
        "cheaper, left is quicker; the broad band joins what nothing else beats in both."
    )


def memory(answer: Answer) -> None:
    """What fills a device."""
    held, outcome = answer.outcome.memory, answer.outcome
    parts = {
        "weights": held.weights_gb,
        "KV cache": held.kv_gb,
        "activations": held.activations_gb,
        "runtime": held.runtime_gb,
    }
    figure = charts.waterfall(parts, held.free_gb, held.usable_gb, unit="GB")
    charts.show(figure, "Memory of one device (GB)", key="memory")
    fuller = " Of the side with less to spare." if answer.query.mode == "disagg" else ""
    st.caption(
        f"The device has {held.device_gb:,.1f} GB; the engine may use {held.usable_gb:,.1f} GB. "
        f"The KV cache of the whole deployment holds {outcome.most_concurrency:,} requests of this "
        f"length at once.{fuller}"
    )


def decode_step(answer: Answer) -> None:
    """Where the time of one decode step goes."""
    figure = charts.bars(dict(answer.step_ms), unit="ms")
    charts.show(figure, "Where the time of a decode step goes", key="step")
    st.caption(
        "Times of the analytic model: reading the weights and the KV cache, computing, sending "
        "between GPUs, and what kernels and the scheduler cost. They overlap in part, so they add "
        "up to more than a step."
    )


def changes(answer: Answer) -> None:
    """What single changes would buy; a click loads one."""
    now = answer.outcome
    possible = [each for each in answer.changes if each.outcome is not None]
    st.caption(
        "Against what is asked now. Small differences may be within the error bands. Choose a row "
        "to load it."
    )
    picked = table_with_downloads(
        [_change_row(now, change, change.outcome) for change in possible if change.outcome],
        name="what-if-changes",
        columns={
            name: st.column_config.NumberColumn(format="%+.0f %%")
            for name in ("TTFT", "TPOT", "Tokens/s", "USD/M out")
        },
        selectable=True,
        height=35 * (len(possible) + 1) + 2,
    )
    if picked is not None and picked < len(possible):
        load_button(possible[picked].name, possible[picked].query, key="load-change")
    refused = [each for each in answer.changes if each.outcome is None]
    if refused:
        reasons = "  \n".join(f"{escape(each.name)}: {escape(each.reason)}." for each in refused)
        st.caption(f"**Not possible**  \n{reasons}")


def _change_row(now: Outcome, change: Change, new: Outcome) -> Mapping[str, object]:
    usd, old_usd = new.usd_per_million_output_tokens, now.usd_per_million_output_tokens
    output = now.tokens_per_s_per_gpu.mean * now.devices
    return {
        "Change": change.name,
        "TTFT": _percent(now.ttft_ms.mean, new.ttft_ms.mean),
        "TPOT": _percent(now.tpot_ms.mean, new.tpot_ms.mean),
        "Tokens/s": _percent(output, new.tokens_per_s_per_gpu.mean * new.devices),
        "USD/M out": None if usd is None or old_usd is None else _percent(old_usd.mean, usd.mean),
        "GPUs": new.devices,
        "Fits": "yes" if new.fits else "no",
        "How sure": new.support,
    }


def _percent(old: float, new: float) -> float:
    return (new / old - 1) * 100


def costs(answer: Answer) -> None:
    """What the devices cost, by cloud and region."""
    if not answer.offers:
        st.info(
            "Price not set: no cloud price is known for this device. Give one under Layout, cache "
            "and price, or set one of your own with `bud hardware price`.",
            icon=":material/payments:",
        )
        return
    by_place: dict[str, float | None] = {}
    for offer in answer.offers:
        by_place.setdefault(_place(offer), offer.usd_per_million_output_tokens)
    shown = dict(list(by_place.items())[:_MOST_REGIONS])
    if answer.outcome.fits:
        figure = charts.bars(shown, unit="USD/M output tokens")
        charts.show(figure, "Cost by cloud and region, at its cheapest instance", key="costs")
    table_with_downloads(
        [
            {
                "Cloud": offer.cloud,
                "Region": offer.region,
                "USD/h": offer.usd_per_hour,
                "USD/M output": offer.usd_per_million_output_tokens,
                "Instance": offer.instance,
                "Instances": offer.instances,
                "Idle GPUs": offer.idle_devices,
                "USD/M in and out": offer.usd_per_million_tokens,
                "Price of": offer.price_date,
                "Source": offer.source,
            }
            for offer in answer.offers
        ],
        name="what-if-costs",
        columns={
            "USD/h": st.column_config.NumberColumn(format="%.2f"),
            "USD/M output": st.column_config.NumberColumn(format="$%.3f"),
            "USD/M in and out": st.column_config.NumberColumn(format="$%.3f"),
        },
    )
    st.caption("On-demand list prices. Instances are rented whole, so idle GPUs are paid for.")


def _place(offer: Offer) -> str:
    return f"{offer.cloud.upper()} {offer.region}".strip()


def launch(answer: Answer) -> None:
    """How the engine is started."""
    if not answer.launch:
        st.info(f"Bud does not know how {engine_name(answer.query.engine)} is started.")
        return
    st.caption("For a shell. Check the model's name and the ports before you run it.")
    st.code(answer.launch, language="bash")
    longest = _LONGEST.search(answer.launch)
    if longest:
        st.caption(
            f"The engine refuses requests of over {int(longest[1]):,} tokens, input and output "
            "together: twice the mean asked for here. Raise it for longer ones; they take more of "
            "the KV cache."
        )
