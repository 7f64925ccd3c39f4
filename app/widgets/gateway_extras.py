"""Inputs of a route's rules for late answers, copies of requests, and kept answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from core.routing.schemas import HedgeMode, Rules

_HEDGES: dict[HedgeMode, str] = {
    "off": "off: one replica is asked",
    "p95": "p95: when the answer is later than 95% of the last ones",
    "delay": "delay: after a time of your own",
}
_DEFAULT_DELAY_MS = 500.0


def extras(now: Rules, key: str, models: Sequence[str]) -> dict[str, Any]:
    """What is given for hedges, shadow traffic and the cache.

    Args:
        now: What the inputs begin with.
        key: Tells several forms apart.
        models: What can get copies.
    """
    used = now.hedge != "off" or bool(now.shadow) or not now.cached
    with st.expander(
        "Late answers, shadow traffic, kept answers", expanded=used, key=f"{key}-more"
    ):
        return _hedge(now, key) | _shadow(now, key, models) | _cached(now, key)


def _hedge(now: Rules, key: str) -> dict[str, Any]:
    hedge = st.segmented_control(
        "Ask a second replica when the answer is late", list(_HEDGES), default=now.hedge,
        required=True, key=f"{key}-hedge", help="; ".join(_HEDGES.values()) + ". The first answer "
        "counts and the other request is cancelled. Hosted models bill its prompt, too.",
    )  # fmt: skip
    given: dict[str, Any] = {"hedge": hedge, "hedge_after_ms": None}
    if hedge == "off":
        return given
    left, right = st.columns(2)
    if hedge == "delay":
        given["hedge_after_ms"] = left.number_input(
            "After (ms)", value=now.hedge_after_ms or _DEFAULT_DELAY_MS, step=50.0,
            format="%g", key=f"{key}-hedge-after",
            help="Up to the first token of a stream, or a whole answer.",
        )  # fmt: skip
    given["hedge_percent"] = right.number_input(
        "Sent twice at most (%)", value=now.hedge_percent, step=1.0, format="%g",
        key=f"{key}-hedge-percent", help="Of the route's requests, so that load cannot run away.",
    )  # fmt: skip
    return given


def _shadow(now: Rules, key: str, models: Sequence[str]) -> dict[str, Any]:
    options = ["", *models, *([now.shadow] if now.shadow and now.shadow not in models else [])]
    left, right = st.columns(2)
    shadow = left.selectbox(
        "Copies of requests go to", options, options.index(now.shadow), key=f"{key}-shadow",
        format_func=lambda name: name or "Nobody",
        help="Nobody gets the answers; Metrics show them apart, to compare the two models.",
    )  # fmt: skip
    given: dict[str, Any] = {"shadow": shadow}
    if shadow:
        given["shadow_percent"] = right.number_input(
            "Of its requests (%)", value=now.shadow_percent, step=1.0, format="%g",
            key=f"{key}-shadow-percent",
        )  # fmt: skip
    return given


def _cached(now: Rules, key: str) -> dict[str, Any]:
    kept = st.toggle(
        "Its answers may be kept", now.cached, key=f"{key}-cached",
        help="Where the project keeps answers: see Cache on this page.",
    )  # fmt: skip
    return {"cached": kept}
