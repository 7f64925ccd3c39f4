"""What states look like and mean; the same words on every page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import streamlit as st

from core.deployments.states import STATES

Color = Literal["red", "orange", "yellow", "blue", "green", "violet", "gray"]


@dataclass(frozen=True)
class StateLook:
    """The look of a state and its meaning in a sentence."""

    color: Color
    icon: str
    meaning: str


_UNKNOWN = StateLook("gray", "help", "Bud does not know this state.")


def _deployment(state: str, color: Color, icon: str) -> StateLook:
    return StateLook(color, icon, STATES[state].meaning)


_LOOKS = {
    # deployments
    "planned": _deployment("planned", "gray", "schedule"),
    "starting": _deployment("starting", "blue", "hourglass_top"),
    "ready": _deployment("ready", "green", "check_circle"),
    "degraded": _deployment("degraded", "orange", "warning"),
    "restarting": _deployment("restarting", "orange", "autorenew"),
    "stopping": _deployment("stopping", "gray", "hourglass_bottom"),
    "stopped": _deployment("stopped", "gray", "stop_circle"),
    "failed": _deployment("failed", "red", "error"),
    "deleting": _deployment("deleting", "gray", "delete"),
    # jobs and steps
    "queued": StateLook("gray", "schedule", "Waits for its turn."),
    "pending": StateLook("gray", "radio_button_unchecked", "Not begun yet."),
    "running": StateLook("blue", "progress_activity", "Works now."),
    "succeeded": StateLook("green", "check_circle", "Done."),
    "cancelled": StateLook("gray", "cancel", "Cancelled on request."),
    # models
    "adding": StateLook("blue", "downloading", "Is being copied and checked."),
    # keys and users
    "active": StateLook("green", "check_circle", "Works."),
    "enabled": StateLook("green", "check_circle", "Can log in."),
    "disabled": StateLook("gray", "block", "Cannot log in."),
    "revoked": StateLook("gray", "block", "Refused by the gateway."),
    "expired": StateLook("orange", "event_busy", "Past its end; refused by the gateway."),
}


def look(state: str) -> StateLook:
    """The look of `state`."""
    return _LOOKS.get(state, _UNKNOWN)


def meaning(state: str) -> str:
    """What `state` means, in a sentence."""
    return look(state).meaning


def badge_markdown(state: str) -> str:
    """The badge as Markdown, for use inside a line of text."""
    found = look(state)
    return f":{found.color}-badge[:material/{found.icon}: {state}]"


def state_badge(state: str, help_text: str | None = None) -> None:
    """A badge with the state in words, colour and icon; hovering says what it means."""
    found = look(state)
    st.badge(
        state,
        icon=f":material/{found.icon}:",
        color=found.color,
        help=help_text or found.meaning,
    )
