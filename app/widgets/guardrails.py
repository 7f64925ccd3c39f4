"""The guardrails of a project with what they did; turned on and off, changed, taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

import streamlit as st

from app import guardrail_words as words
from app.widgets import (
    Kpi,
    confirm_by_name,
    empty_state,
    errors_shown,
    escape,
    formats,
    kpi_row,
    link_to,
    table_with_downloads,
)
from app.widgets.guardrails_edit import change_guardrail, new_guardrail
from core.guardrails import services as guardrails
from core.guardrails.schemas import GuardrailView, ModeSet
from core.kernel.actor import Actor
from core.metrics import services as metrics
from core.metrics.schemas import GuardrailCount, Window

_DAY = "24h"
_MODES: dict[ModeSet, str] = {"enforce": "Enforce", "report": "Report only", "off": "Off"}
_MODES_HELP = (
    "Enforce: it refuses or masks. Report only: nothing changes for callers, and what it would "
    "have done is counted here. The gateway follows within a second."
)
_OUTCOMES = {
    "blocked": ("Refused", "Requests and answers that a guardrail refused."),
    "masked": ("Masked", "Requests and answers in which something was taken out."),
    "reported": ("Reported", "What guardrails that only report would have refused or masked."),
    "could_not": (
        "Unsure",
        "Out of time, or a classifier that did not answer: refused or let through, as the "
        "guardrail says.",
    ),
}


def guardrail_list(actor: Actor, project_id: str) -> None:
    """The guardrails; a chosen one can be turned on or off, changed or taken away."""
    found = guardrails.list_guardrails(actor, project_id)
    may_change = actor.may("guardrail:update", project_id)
    if not found:
        _nothing(actor, project_id, may_change=may_change)
        return
    counts = metrics.guardrail_counts(actor, project_id, Window.preset(_DAY))
    _numbers(counts)
    chosen = _table(found, words.by_rule(counts))
    if chosen is None or chosen >= len(found):
        st.caption(
            "Click a row to see a guardrail whole, to turn it on or off, or to change it."
            if may_change
            else "Click a row to see a guardrail whole. An admin of the project can change it."
        )
        return
    _details(actor, found[chosen], may_change=may_change)


def _nothing(actor: Actor, project_id: str, *, may_change: bool) -> None:
    clicked = empty_state(
        "No guardrail yet",
        "Prompts and answers go through as they are. A guardrail finds personal data, secrets, "
        "prompt injection or words, asks a classifier, or holds answers to a JSON schema. Begin "
        "with one that only reports: it changes nothing for callers."
        if may_change
        else "Prompts and answers go through as they are. An admin of the project can set "
        "guardrails.",
        icon="shield",
        action="New guardrail" if may_change else None,
    )
    if clicked:
        new_guardrail(actor, project_id)


def _numbers(counts: Sequence[GuardrailCount]) -> None:
    totals = dict.fromkeys(_OUTCOMES, 0)
    for row in counts:
        key = "could_not" if row.outcome in ("let_through", "refused") else row.outcome
        if key in totals:
            totals[key] += row.requests
    kpi_row(
        [
            Kpi(f"{title} (24 h)", formats.count(totals[key]), what)
            for key, (title, what) in _OUTCOMES.items()
        ],
        key="guardrails",
    )


def _table(found: Sequence[GuardrailView], did: Mapping[str, words.Counted]) -> int | None:
    none = words.Counted(())
    return table_with_downloads(
        [
            {
                "Name": rule.name,
                "Looks for": words.looks_for(rule),
                "In": words.SIDES[rule.applies_to],
                "Does": words.does(rule),
                "Found 24 h": did.get(rule.name, none).acted,
                "Checked 24 h": did.get(rule.name, none).checked,
                "Unsure 24 h": did.get(rule.name, none).could_not,
                "Mean (ms)": did.get(rule.name, none).mean_ms,
                "Budget (ms)": rule.budget_ms,
                "Cannot say": _CANNOT[rule.on_failure],
                "Set by": rule.set_by_name,
                "Set": rule.set_at,
                "Id": rule.id,
            }
            for rule in found
        ],
        name="guardrails",
        columns={
            "Looks for": st.column_config.TextColumn(width="medium"),
            "Found 24 h": st.column_config.NumberColumn(
                format="localized", help="Prompts and answers in which it found something."
            ),
            "Checked 24 h": st.column_config.NumberColumn(format="localized"),
            "Unsure 24 h": st.column_config.NumberColumn(format="localized"),
            "Mean (ms)": st.column_config.NumberColumn(format="%.2f"),
            "Budget (ms)": st.column_config.NumberColumn(format="%.0f"),
            "Cannot say": st.column_config.TextColumn(
                help="What holds when its time is over, or its classifier does not answer."
            ),
            "Set by": None,
            "Set": None,
            "Id": None,
        },
        selectable=True,
    )


_CANNOT = {"closed": "refuses", "open": "lets through"}


def _details(actor: Actor, rule: GuardrailView, *, may_change: bool) -> None:
    with st.container(border=True, key="guardrail-details"):
        st.markdown(
            f"**{escape(rule.name)}** looks in {words.SIDES[rule.applies_to]} for "
            f"{escape(words.looks_for(rule))}"
        )
        st.caption(f"Set {formats.when(rule.set_at)} by {escape(rule.set_by_name)}.")
        _settings(rule)
        if may_change:
            _mode(actor, rule)
            with st.container(horizontal=True):
                if st.button("Change …", icon=":material/edit:"):
                    change_guardrail(actor, rule)
                if st.button("Delete …", icon=":material/delete:"):
                    confirm_by_name(
                        rule.name,
                        "What it refused or masked goes through, within a second.",
                        lambda: guardrails.delete_guardrail(actor, rule.id),
                    )
        link_to(
            "gateway",
            "What was refused, under Errors of the gateway",
            icon="block",
            query={"view": "Errors"},
        )


def _settings(rule: GuardrailView) -> None:
    """What does not fit into one line."""
    if rule.kind == "json_schema":
        st.code(rule.settings["schema"], language="json", height=200)
    if rule.kind == "deny_list":
        st.code("\n".join([*rule.settings["words"], *rule.settings["patterns"]]), language=None)
    if rule.kind == "classifier":
        key = "with a key, which is sealed" if rule.has_credential else "without a key"
        st.caption(f"Asked in the form {rule.settings['form']}, {key}.")


def _mode(actor: Actor, rule: GuardrailView) -> None:
    mode = st.segmented_control(
        "Mode", list(get_args(ModeSet)), default=rule.mode, required=True,
        format_func=lambda each: _MODES[each], key=f"guardrail-mode-{rule.id}-{rule.mode}",
        help=_MODES_HELP,
    )  # fmt: skip
    if mode != rule.mode:
        with errors_shown():
            guardrails.set_mode(actor, rule.id, mode)
            st.rerun()
