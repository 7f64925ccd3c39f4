"""A chat's messages: what was said, with the numbers of each answer."""

from __future__ import annotations

import time
from collections.abc import Sequence

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import formats
from app.widgets.layout import escape
from core.playground.answers import Answer, Snapshot
from core.playground.schemas import MessageView, Turn

_FRAME_S = 0.06
_SLOWEST_FRAME_S = 0.25
# Each frame sends the text anew, so long answers are drawn less often.
_CHARACTERS_PER_FRAME_S = 60_000
# Why no cost is shown, by where it would come from.
_NO_COST = {"not set": " (no price is set)", "not known yet": " (no answer began)"}
_CURSOR = " ▍"


def show_turn(turn: Turn, live: Sequence[Answer]) -> dict[str, LiveSlot]:
    """Show a question with its answers, side by side when there are two.

    Returns:
        A slot for each answer that is still being written, by message id.
    """
    with st.chat_message("user", avatar=":material/person:"):
        # As it was typed: a question is text, not formatting.
        st.text(turn.question.content)
    running = {answer.message_id for answer in live}
    slots: dict[str, LiveSlot] = {}
    places = st.columns(len(turn.answers)) if len(turn.answers) > 1 else [st.container()]
    for place, answer in zip(places, turn.answers, strict=False):
        with place, st.chat_message("assistant", avatar=":material/smart_toy:"):
            st.caption(f"**{escape(answer.model)}**")
            if answer.id in running:
                slots[answer.id] = LiveSlot()
            else:
                _show_answer(answer)
    return slots


class LiveSlot:
    """Where an answer that is being written appears."""

    def __init__(self) -> None:
        self._reasoning = st.empty()
        self._content = st.empty()
        self._numbers = st.empty()
        self._shown: Snapshot | None = None
        self._started_s = time.monotonic()

    def show(self, snapshot: Snapshot) -> None:
        """Draw what is new."""
        if snapshot.content or snapshot.reasoning:
            if snapshot == self._shown:
                return
            self._shown = snapshot
            _show_reasoning(self._reasoning, snapshot.reasoning, expanded=not snapshot.content)
            self._content.markdown(snapshot.content + (_CURSOR if snapshot.is_streaming else ""))
            self._numbers.caption(f"TTFT {formats.ms(snapshot.ttft_ms)}")
        elif snapshot.is_streaming:
            waited_s = time.monotonic() - self._started_s
            self._numbers.caption(f"Reading the prompt … {waited_s:.0f} s")


def follow(slots: dict[str, LiveSlot], live: Sequence[Answer]) -> None:
    """Draw answers as they are written, until all have ended.

    The answers go on without this: an interrupted script run loses nothing.
    """
    while True:
        snapshots = {answer.message_id: answer.snapshot() for answer in live}
        for message_id, slot in slots.items():
            if message_id in snapshots:
                slot.show(snapshots[message_id])
        if not any(snapshot.is_streaming for snapshot in snapshots.values()):
            return
        longest = max(len(snapshot.content) for snapshot in snapshots.values())
        time.sleep(min(_FRAME_S + longest / _CHARACTERS_PER_FRAME_S, _SLOWEST_FRAME_S))


def _show_answer(answer: MessageView) -> None:
    _show_reasoning(st.empty(), answer.reasoning, expanded=False)
    if answer.content:
        st.markdown(answer.content)
    elif answer.state == "done":
        st.caption("The model answered with nothing.")
    if answer.error:
        remedy = f"  \n**What to do:** {escape(answer.remedy)}" if answer.remedy else ""
        st.error(f"{escape(answer.error)}{remedy}", icon=":material/error:")
    st.caption(numbers_line(answer))


def _show_reasoning(place: DeltaGenerator, text: str, *, expanded: bool) -> None:
    if text:
        with place.expander("Thinking", expanded=expanded, icon=":material/psychology:"):
            st.markdown(text)


def numbers_line(answer: MessageView) -> str:
    """TTFT, rate, tokens and cost of an answer, and how it ended."""
    rate = formats.tokens_per_s(answer.tokens_per_s)
    spoken, written = formats.count(answer.input_tokens), formats.count(answer.output_tokens)
    parts = [
        f"TTFT {formats.ms(answer.ttft_ms)}",
        rate if answer.tokens_per_s is not None else f"{rate} tokens/s",
        f"{spoken} in, {written} out tokens",
        f"cost {_cost(answer)}",
    ]
    endings = {
        "stopped": ":orange-badge[stopped]",
        "interrupted": ":orange-badge[interrupted: Bud was restarted]",
        "failed": ":red-badge[failed]",
    }
    if answer.state in endings:
        parts.append(endings[answer.state])
    elif answer.finish_reason == "length":
        parts.append(":orange-badge[cut at max tokens]")
    return " · ".join(part.replace("$", "\\$").replace("~", "\\~") for part in parts)


def _cost(answer: MessageView) -> str:
    if answer.cost_usd is None:
        return f"{formats.NONE}{_NO_COST.get(answer.cost_basis, '')}"
    bound = "at most " if answer.cost_basis == "machine time" else ""
    return f"{bound}{formats.usd(answer.cost_usd)}"
