"""What is predicted of a deployment, and what was measured beside it."""

from __future__ import annotations

from datetime import timedelta

import streamlit as st

from app import formats
from app.widgets.layout import Kpi, escape, kpi_row
from app.widgets.simulation_results import band
from core.deployments import calibration
from core.deployments.options import Option
from core.deployments.predictions import Predicted
from core.deployments.schemas import DeploymentView, DraftContent, Fit, Load
from core.kernel.actor import Actor
from core.kernel.errors import BudError
from core.metrics import calibration as measured
from core.metrics.calibration import Comparison, Means

_AT_ONCE = timedelta(seconds=5)
_BAND = "The mean lies between the two bounds below in 80% of the cases."


def setup_words(fit: Fit) -> str:
    """`2 replicas × 4 slots of 2,048 tokens, 1 CPU thread each`."""
    replicas = f"{fit.replicas} replica{'' if fit.replicas == 1 else 's'}"
    slots = f"{fit.slots} slot{'' if fit.slots == 1 else 's'}"
    threads = f"{fit.threads} CPU thread{'' if fit.threads == 1 else 's'}"
    each = " each" if fit.replicas > 1 else ""
    return f"{replicas} × {slots} of {formats.tokens(fit.context_tokens)}, {threads}{each}"


def load_words(load: Load) -> str:
    """`1,155 tokens in, 211 out, 4 requests in flight`."""
    requests = f"{load.concurrency:,} request{'' if load.concurrency == 1 else 's'} in flight"
    return f"{formats.tokens(load.isl)} in, {load.osl:,} out, {requests}"


def badges(option: Option, content: DraftContent) -> str:
    """Whether it can run and meets the targets, and what it is best at; as Markdown."""
    if option.ruled_out:
        return ":red-badge[:material/block: ruled out]"
    found = [f":violet-badge[{strength}]" for strength in option.strengths]
    if option.misses:
        found.insert(0, f":orange-badge[misses {' and '.join(option.misses)}]")
    elif option.predicted and (content.ttft_ms or content.tpot_ms):
        found.insert(0, ":green-badge[:material/check: meets the targets]")
    return " ".join(found)


def option_kpis(option: Option, *, key: str) -> None:
    """Its predicted numbers with their bands, its memory and its cost."""
    kpis = _speeds(option.predicted) if option.predicted else []
    if option.fit is not None:
        kpis.append(
            Kpi(
                "Memory",
                formats.size(option.fit.needed_bytes),
                "Weights, KV cache, buffers and process, of all replicas.",
                f"of {formats.size(option.fit.free_bytes)} free",
            )
        )
    usd = option.usd_per_million_output_tokens
    if option.predicted is not None:
        kpis.append(
            Kpi(
                "USD/M out",
                formats.usd(usd.mean) if usd else None,
                "USD for a million output tokens under this load.",
                band(usd, formats.usd) if usd else "price not set",
            )
        )
    kpi_row(kpis, key=key)


def _speeds(predicted: Predicted) -> list[Kpi]:
    return [
        Kpi(
            "TTFT",
            formats.ms(predicted.ttft_ms.mean),
            f"Predicted mean time to first token. {_BAND}",
            band(predicted.ttft_ms, formats.ms),
        ),
        Kpi(
            "TPOT",
            formats.ms(predicted.tpot_ms.mean),
            f"Predicted mean time per output token after the first. {_BAND}",
            band(predicted.tpot_ms, formats.ms),
        ),
        Kpi(
            "Tokens/s",
            formats.rate(predicted.tokens_per_s.mean),
            f"Predicted output tokens of the whole deployment under this load. {_BAND}",
            band(predicted.tokens_per_s, formats.rate),
        ),
    ]


def option_notes(option: Option) -> None:
    """Why it cannot run, and what else to know of it."""
    if option.ruled_out:
        st.error(escape(option.ruled_out), icon=":material/block:")
    elif option.note:
        st.warning(escape(option.note), icon=":material/info:")


def repredicted(actor: Actor, view: DeploymentView, plan: Fit) -> None:
    """What a deployment will do with other settings, one line."""
    try:
        found = measured.repredict(actor, view.id, plan)
    except BudError as error:
        st.caption(f"Not predicted: {escape(error.what)}")
        return
    by = f", calibrated by {view.calibration.requests:,} requests" if view.calibration else ""
    st.caption(
        f"Predicted{by}, for {load_words(found.load)}: "
        f"TTFT {formats.ms(found.ttft_ms.mean)}, TPOT {formats.ms(found.tpot_ms.mean)}, "
        f"{formats.tokens_per_s(found.tokens_per_s.mean)}."
    )


def predicted_beside_measured(actor: Actor, view: DeploymentView) -> None:
    """What a deployment's newest requests took, beside what is predicted for the same ones."""
    if view.task != "chat":
        return  # it has no tokens to time
    st.markdown("### Predicted and measured")
    try:
        found = measured.compare(actor, view.id)
    except BudError as error:
        st.caption(f"Not predicted: {escape(error.what)}")
        return
    if found is None:
        st.caption(_nothing_to_compare(view))
        return
    kpi_row(_compared(found), key="predicted-measured")
    st.caption(
        f"{_which(found.requests)}: {found.isl:,.0f} tokens in, {found.osl:,.0f} out, "
        f"{found.concurrency:.1f} in flight."
    )
    if view.calibration is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        requests = view.calibration.requests
        st.markdown(f":violet-badge[calibrated by {requests:,} requests]", width="content")
        if st.button("Reset the calibration", icon=":material/restart_alt:", key="calibration"):
            calibration.reset(actor, view.id)
            st.rerun()


def _nothing_to_compare(view: DeploymentView) -> str:
    chat = "Chat with it, and both stand here."
    if view.demo:
        return f"Its requests are made up, and are not held against a prediction. {chat}"
    if view.measured_since > view.created_at + _AT_ONCE:
        since = formats.when(view.measured_since)
        return f"No streamed requests since its settings were changed, {since}. {chat}"
    return f"No streamed requests yet. {chat}"


def _which(requests: int) -> str:
    if requests == 1:
        return "One streamed request"
    return f"Means of the newest {requests:,} streamed requests"


def _compared(found: Comparison) -> list[Kpi]:
    expected: Means = found.calibrated or found.predicted
    word = "calibrated" if found.calibrated else "predicted"
    pairs = (
        ("TTFT", found.measured.ttft_ms, expected.ttft_ms, formats.ms),
        ("TPOT", found.measured.tpot_ms, expected.tpot_ms, formats.ms),
        ("Tokens/s", found.measured.tokens_per_s, expected.tokens_per_s, formats.rate),
    )
    return [
        Kpi(
            f"{name} measured",
            form(own),
            f"Measured over these requests; {word} for the same ones below.",
            f"{word} {form(other)}",
        )
        for name, own, other, form in pairs
    ]
