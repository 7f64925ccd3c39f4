"""Forms in which guardrails are made and changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import streamlit as st

from app import guardrail_words as words
from app.widgets import dialog, show_error
from core.contracts.guardrails import AppliesTo, Kind, OnFailure, PersonalEntity, SecretEntity
from core.guardrails import services as guardrails
from core.guardrails.schemas import KINDS, GuardrailView, KindOfGuardrail, ModeSet
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.errors import BudError

_REFUSES, _MASKS = "Refuse it", "Mask it"
_SIDES: dict[AppliesTo, str] = {
    "input": "Prompts",
    "output": "Answers",
    "both": "Prompts and answers",
}
_FAILURES: dict[OnFailure, str] = {
    "closed": "Refuse it (fail closed)",
    "open": "Let it through (fail open)",
}
_NOTES: dict[Kind, str] = {
    "pii": "Numbers and addresses that have a form, with their check digits. Names have none: they "
    "are not found.",
    "secrets": "Keys of known issuers, private keys, tokens, and passwords that are named so.",
    "injection": "Heuristics with a score. They stop what is copied from the web, not somebody who "
    "tries for long.",
    "deny_list": "Whole words and phrases, in any case.",
    "max_length": "Prompts and answers over this are refused.",
    "json_schema": "An answer must be JSON that the schema allows. A stream is held back until it "
    "is whole.",
    "classifier": "A server of yours or of a provider is asked about each text. It gets what the "
    "other guardrails have masked already. Answers are held back until it has spoken.",
}
_SCHEMA = '{\n  "type": "object",\n  "required": ["city"]\n}'


@dialog("New guardrail", width="medium", icon=":material/shield:")
def new_guardrail(actor: Actor, project_id: str) -> None:
    """Choose a kind, then fill in its form."""
    kind = st.selectbox(
        "What it looks for", list(KINDS), format_func=lambda each: KINDS[each].title,
        key="guardrail-kind",
    )  # fmt: skip
    name = st.text_input(
        "Name", placeholder="Such as no-cards; callers are told", max_chars=guardrails.LONGEST_NAME,
        key="guardrail-name",
    )  # fmt: skip
    taken = {each.name for each in guardrails.list_guardrails(actor, project_id)}
    if (name or "").strip() in taken:
        st.warning(f"There is a guardrail {name!r} already: click its row to change it.")
        return
    _form(actor, project_id, name or "", kind, None)


@dialog("Change guardrail", width="medium", icon=":material/shield:")
def change_guardrail(actor: Actor, rule: GuardrailView) -> None:
    """Fill in the form anew."""
    st.markdown(f"**{rule.name}** · {words.title(rule)}")
    _form(actor, rule.project_id, rule.name, rule.kind, rule)


def _form(actor: Actor, project_id: str, name: str, kind: Kind, rule: GuardrailView | None) -> None:
    known = KINDS[kind]
    st.caption(_NOTES[kind])
    with st.form(f"guardrail-{kind}", border=False):
        settings = _settings(kind, rule.settings if rule else {})
        key = _key(rule) if kind == "classifier" else None
        sides = st.segmented_control(
            "It looks in", list(known.sides), default=rule.applies_to if rule else known.sides[0],
            required=True, format_func=lambda each: _SIDES[each],
        )  # fmt: skip
        action = _action(known, rule)
        budget_ms, on_failure = _failure(known, rule)
        mode = _mode(rule)
        if not st.form_submit_button("Save" if rule else "Set the guardrail", type="primary"):
            return
    try:
        guardrails.set_guardrail(
            actor, project_id, name, kind, settings, mode=mode, action=action, applies_to=sides,
            budget_ms=budget_ms, on_failure=on_failure, credential=key,
        )  # fmt: skip
    except BudError as error:
        show_error(error)
        return
    st.rerun()


def _settings(kind: Kind, now: Mapping[str, Any]) -> dict[str, Any]:
    if kind in ("pii", "secrets"):
        known = get_args(PersonalEntity if kind == "pii" else SecretEntity)
        chosen = st.multiselect(
            "What of it", list(known), default=list(now.get("entities", ())),
            format_func=lambda each: words.ENTITIES[each], placeholder="Everything",
        )  # fmt: skip
        return {"entities": chosen}
    if kind == "injection":
        threshold = st.slider(
            "Score from which it acts", 0.05, 1.0, float(now.get("threshold", 0.5)), 0.05,
            help="Each sign adds to the score. Lower finds more, and more that is harmless.",
        )  # fmt: skip
        return {"threshold": threshold}
    if kind == "deny_list":
        return {
            "words": _lines("Words and phrases", "project falcon", now.get("words", ())),
            "patterns": _lines("Patterns (RE2)", r"falcon-\d+", now.get("patterns", ())),
        }
    if kind == "max_length":
        return _length(now)
    if kind == "json_schema":
        schema = st.text_area(
            "JSON schema", now.get("schema", ""), placeholder=_SCHEMA, height=200,
            help="Draft 2020-12. References stay inside of it; patterns are RE2's.",
        )  # fmt: skip
        return {"schema": schema or ""}
    return _classifier(now)


def _length(now: Mapping[str, Any]) -> dict[str, Any]:
    most = st.number_input("At most", 1, value=int(now.get("most", 20_000)), step=1000)
    unit = st.segmented_control(
        "Counted in", ["characters", "tokens"], default=now.get("unit", "characters"),
        required=True, help="Tokens are estimated at four bytes each, as limits do.",
    )  # fmt: skip
    return {"most": int(most), "unit": unit}


def _classifier(now: Mapping[str, Any]) -> dict[str, Any]:
    url = st.text_input(
        "Address", now.get("url", ""), placeholder="https://classifier.example.org/v1/moderations",
        help="https. A host in a private network must be in BUD_PRIVATE_HOSTS. Redirects are not "
        "followed.",
    )  # fmt: skip
    forms = {
        "moderations": "OpenAI moderations: {input} → {results: [{flagged}]}",
        "text": "Plain: {text} → {flagged}",
    }
    form = st.selectbox(
        "Form", list(forms), index=list(forms).index(now.get("form", "moderations")),
        format_func=lambda each: forms[each],
    )  # fmt: skip
    model = st.text_input("Model to name (moderations only)", now.get("model", ""))
    return {"url": url or "", "form": form, "model": model or ""}


def _key(rule: GuardrailView | None) -> Secret | None:
    has_one = rule is not None and rule.has_credential
    text = st.text_input(
        "Key", type="password", autocomplete="off",
        placeholder="Kept as it is" if has_one else "None",
        help="Sent as a bearer token; sealed, and never shown again.",
    )  # fmt: skip
    return Secret(text) if text else None


def _action(known: KindOfGuardrail, rule: GuardrailView | None) -> Any:
    if not known.masks:
        return "block"
    chosen = st.segmented_control(
        "With what it finds", [_REFUSES, _MASKS],
        default=_MASKS if rule and rule.action == "mask" else _REFUSES, required=True,
        help="Masked, a mark such as [redacted: card] stands in its place.",
    )  # fmt: skip
    return "mask" if chosen == _MASKS else "block"


def _failure(known: KindOfGuardrail, rule: GuardrailView | None) -> tuple[float, Any]:
    budget_ms = st.number_input(
        "Time budget (ms)", 1.0, guardrails.MOST_BUDGET_MS,
        rule.budget_ms if rule else known.budget_ms, step=10.0, format="%g",
        help="How long it may work on one side of a request.",
    )  # fmt: skip
    on_failure = st.segmented_control(
        "When it cannot say", list(_FAILURES),
        default=rule.on_failure if rule else known.on_failure,
        format_func=lambda each: _FAILURES[each],
        help="Its time is over, or its classifier does not answer.",
    )  # fmt: skip
    return float(budget_ms), on_failure


def _mode(rule: GuardrailView | None) -> Any:
    modes: dict[ModeSet, str] = {"report": "Report only", "enforce": "Enforce", "off": "Off"}
    return st.segmented_control(
        "Mode", list(modes), default=rule.mode if rule else "report", required=True,
        format_func=lambda each: modes[each],
        help="Report only changes nothing for callers: see first what it would find.",
    )  # fmt: skip


def _lines(label: str, example: str, now: Any) -> list[str]:
    text = st.text_area(label, "\n".join(now), placeholder=f"One a line, such as {example}",
                        height=90)  # fmt: skip
    return [line.strip() for line in (text or "").splitlines() if line.strip()]
