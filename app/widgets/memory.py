"""What a deployment needs of a machine's memory, as a bar beside what is free."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import streamlit as st

from app import formats
from core.deployments.schemas import Fit

# Told apart in both themes, and by people who see few colours (ColorBrewer "Dark2" order).
_COLORS = ("#1b9e77", "#7570b3", "#d95f02", "#e6ab02")
_FREE = "repeating-linear-gradient(45deg, #8885 0 4px, #8882 4px 8px)"
_OVER = "#d6273e"


def fit_bar(fit: Fit) -> None:
    """The memory that a deployment takes, by what takes it, against what is free."""
    per_replica = (
        ("weights", fit.weights_bytes),
        ("KV cache", fit.kv_cache_bytes),
        ("compute buffers", fit.compute_bytes),
        ("process", fit.overhead_bytes),
    )
    parts = [(name, each * fit.replicas) for name, each in per_replica]
    times = f" for {fit.replicas} replicas" if fit.replicas > 1 else ""
    st.markdown(
        f"**Needs {formats.size(fit.needed_bytes)}{times} of {formats.size(fit.free_bytes)} free**"
        f" {':green-badge[:material/check: fits]' if fit.fits else ':red-badge[does not fit]'}"
    )
    memory_bar(parts, fit.free_bytes)
    if fit.reserved_bytes > 0:
        st.caption(
            f"{formats.size(fit.reserved_bytes)} more are promised to other deployments and "
            "left out of what is free."
        )
    if not fit.fits:
        st.error(f"{fit.problem}  \n**What to do:** {fit.remedy}", icon=":material/memory:")


def memory_bar(parts: Sequence[tuple[str, int]], free_bytes: int) -> None:
    """Parts in bytes, stacked to scale; hatched is what stays free."""
    needed = sum(amount for _, amount in parts)
    whole = max(needed, free_bytes, 1)
    blocks = [
        (color, amount, f"{name} {formats.size(amount)}")
        for color, (name, amount) in zip(_COLORS, parts, strict=False)
    ]
    if free_bytes > needed:
        blocks.append(
            (_FREE, free_bytes - needed, f"left free {formats.size(free_bytes - needed)}")
        )
    bar = "".join(
        f'<div title="{escape(text)}" style="width:{amount / whole:.3%};background:{color}"></div>'
        for color, amount, text in blocks
    )
    legend = "".join(
        '<span style="display:inline-flex;align-items:center;gap:.35em;margin-right:1em">'
        f'<i style="width:.75em;height:.75em;border-radius:3px;background:{color}"></i>'
        f"{escape(text)}</span>"
        for color, _, text in blocks
    )
    edge = f"2px solid {_OVER}" if needed > free_bytes else "1px solid #8884"
    label = escape("; ".join(text for _, _, text in blocks))
    st.html(
        f'<div role="img" aria-label="{label}" style="display:flex;height:1.1rem;'
        f'border-radius:6px;overflow:hidden;border:{edge}">{bar}</div>'
        f'<div style="font-size:.8rem;opacity:.85;margin-top:.35rem;line-height:1.7">{legend}</div>'
    )
