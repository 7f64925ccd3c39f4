"""What the deploy wizard and a deployment's own page share: a model's label, engine settings."""

from __future__ import annotations

import streamlit as st

from app import formats
from core.registry.schemas import ModelView, VersionView


def model_label(model: ModelView) -> str:
    """`SmolLM2 · 135M · Q4_1 · 93.8 MiB`."""
    parts = [
        formats.short_count(model.parameters),
        model.quantization,
        formats.size(model.size_bytes),
    ]
    return f"{model.name} · {' · '.join(part for part in parts if part and part != formats.NONE)}"


def version_words(version: VersionView) -> str:
    """`Version 3 (production)`."""
    return f"Version {version.number} ({version.stage})"


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
    # Without bounds: a wrong number gets an answer in words.
    chosen_context = columns[0].number_input(
        "Context (tokens)",
        value=None,
        step=256,
        placeholder="automatic",
        key=keys[0],
        help="The longest conversation of one request, question and answer together"
        + (f"; this model was trained for {longest:,}." if longest else "."),
    )
    chosen_slots = columns[1].number_input(
        "Slots (requests at once)",
        value=None,
        step=1,
        placeholder="automatic",
        key=keys[1],
        help="More slots answer more callers at once, and take more KV cache.",
    )
    chosen_threads = columns[2].number_input(
        "CPU threads",
        value=None,
        step=1,
        placeholder="automatic",
        key=keys[2],
        help="On busy cores more threads can be slower than fewer: measure.",
    )
    return chosen_context, chosen_slots, chosen_threads
