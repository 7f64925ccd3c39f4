"""Tries a text: what each guardrail of a project would do with it, and how long that takes."""

from __future__ import annotations

import time
from functools import lru_cache

from core.contracts.guardrails import Check, Classifier, Guardrail, Side
from core.detection.examination import Examination, Examiner, Passage, TimeUp, examiner, told
from core.detection.masking import as_plain_json, masked, masked_json
from core.guardrails import services
from core.guardrails.adapters import classifier
from core.guardrails.models import GuardrailRow
from core.guardrails.schemas import Tried
from core.kernel.actor import Actor
from core.kernel.errors import BudError, InvalidInput
from core.kernel.keys import keyring

LONGEST_TEXT = 100_000


def try_text(
    actor: Actor, project_id: str, text: str, side: Side = "input", name: str | None = None
) -> list[Tried]:
    """What the guardrails of a project would do with a text, also those that are off.

    Nothing is kept. A classifier is asked.

    Args:
        actor: A member of the project.
        project_id: The project.
        text: What a user asks (input) or a model answers (output).
        side: Which of the two.
        name: Only this guardrail; default: all that look at this side.

    Raises:
        InvalidInput: The text is empty or too long.
    """
    if not text.strip() or len(text) > LONGEST_TEXT:
        raise InvalidInput(
            f"A text to try has 1 to {LONGEST_TEXT:,} characters.", value=f"{len(text):,}",
            remedy="Give another.",
        )  # fmt: skip
    rows = [
        row
        for row in services.readable_rows(actor, project_id)
        if row.applies_to in (side, "both") and name in (None, row.name, row.id)
    ]
    return [_tried(row, text, side) for row in rows]


def _tried(row: GuardrailRow, text: str, side: Side) -> Tried:
    rule = services.as_contract(row)
    seen, problem, began_s = Examination(), "", time.perf_counter()
    try:
        if isinstance(rule.check, Classifier):
            seen = _asked(rule, text)
        else:
            # The first time things are made that a gateway has made long ago.
            _seen(rule, text, side)
            began_s = time.perf_counter()
            seen = _seen(rule, text, side)
    except (TimeUp, BudError, ValueError) as error:
        problem = str(error) or "It took too long."
    ms = (time.perf_counter() - began_s) * 1000
    would = "mask" if rule.action == "mask" else "block"
    return Tried.model_validate(
        {
            "name": row.name,
            "kind": row.kind,
            "mode": row.mode,
            "side": side,
            "would": "fail" if problem else would if seen.why else "pass",
            "why": problem or seen.why,
            "found": dict(seen.found),
            "masked": _masked(text, seen) if would == "mask" else "",
            "ms": ms,
            "budget_ms": row.budget_ms,
            "on_failure": row.on_failure,
        }
    )


def _seen(rule: Guardrail, text: str, side: Side) -> Examination:
    ready = _ready(rule.check)
    assert ready is not None
    role = "user" if side == "input" else "assistant"
    passage = Passage(as_plain_json(text) or text, role, is_answer=side == "output")
    steps = ready.steps([passage], rule.budget_ms / 1000)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            seen: Examination = end.value
            return seen


@lru_cache(maxsize=64)
def _ready(check: Check) -> Examiner | None:
    return examiner(check)


def _asked(rule: Guardrail, text: str) -> Examination:
    check = rule.check
    assert isinstance(check, Classifier)
    context = f"guardrail:{rule.id}"
    credential = (
        keyring().open(check.credential, context=context).reveal() if check.credential else ""
    )
    flagged, found = classifier.ask(check, credential, text, rule.budget_ms / 1000)
    return (
        Examination(found, why=f"its classifier says no: {told(found)}")
        if flagged
        else Examination()
    )


def _masked(text: str, seen: Examination) -> str:
    found = seen.spans.get(0, ())
    if not found:
        return ""
    plain = as_plain_json(text)
    return masked(text, found) if plain is None else masked_json(plain, found)
