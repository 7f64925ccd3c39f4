"""Whether a licence allows a use: the answers that the use meets, weighed.

A permission that is refused blocks the use. A permission with conditions, and a duty that the use
meets, make the verdict conditional. A limit counts when its number is passed, or is not known.
"""

from __future__ import annotations

from core.registry.licences import index
from core.registry.licences.answers import answers
from core.registry.licences.questions import QUESTIONS
from core.registry.licences.schemas import (
    Answer,
    Effect,
    Impact,
    Licence,
    Outcome,
    Reason,
    Reply,
    Verdict,
)
from core.registry.licences.uses import Use

PROPRIETARY = "proprietary-license"

# Which uses meet a question, where the answer does not say so itself: any of them.
_ALWAYS = "always"
_MET_BY: dict[str, tuple[str, ...]] = {
    "modify": ("modifies",),
    "distribute_modified": ("modifies+distributes",),
    "core_restrictions": (_ALWAYS,),
    "derivative_limits": ("modifies",),
    "naming_rules": ("distributes",),
    "copyleft": ("modifies+distributes",),
    "commercial_use": ("commercial",),
    "user_threshold": ("commercial",),
    "revenue_threshold": ("commercial",),
    "royalties": (_ALWAYS,),
    "attribution": ("distributes",),
    "notices": ("distributes",),
    "publish_changes": ("modifies+distributes",),
    "hosted_api_use": ("hosts",),
    "rate_limits": (_ALWAYS,),
    "training_on_outputs": ("trains",),
    "privacy_terms": (_ALWAYS,),
    "use_restrictions": (_ALWAYS,),
}
# Nothing that a use does meets these; they stand in the answers.
_BACKGROUND = {"patent_grant", "patent_retaliation", "revocation", "liability"}
_EFFECTS: tuple[Effect, ...] = ("blocks", "unclear", "requires", "allows")
_IMPACTS: tuple[Impact, ...] = ("high", "medium", "low", "none")
_PERMISSION_EFFECTS: dict[Reply, Effect] = {
    "yes": "allows",
    "no": "blocks",
    "conditional": "requires",
}
_SUMMARIES: dict[Outcome, str] = {
    "yes": "The licence allows this use, and asks for nothing in return.",
    "conditional": "The licence allows this use if you do what it asks for.",
    "no": "The licence does not allow this use.",
    "needs review": "Nobody has answered for this licence yet: read its text.",
}


def verdict(key: str | None, use: Use) -> Verdict:
    """Whether the licence allows the use, and why. It is no legal advice.

    Args:
        key: The licence, as `by_id` and `identify` give it; None when it is not known.
        use: What is to be done with the model.

    Raises:
        NotFound: There is no licence with this key.
    """
    if key is None:
        return _needs_review("", "No licence is stated, or its name is not known.")
    licence = index.licence(key)
    found = answers(key)
    if key == PROPRIETARY:
        return _needs_review(key, "The model is not published; its provider's terms decide.")
    if licence.builds_on:
        return _of_what_is_built_on(licence, use)
    if not found:
        what = _SUMMARIES["needs review"] if licence.has_text else "Bud does not have its text."
        return _needs_review(key, f"{what} {licence.note}".strip())
    reasons = [
        reason
        for question, answer in found.items()
        if question not in _BACKGROUND and (reason := _reason(question, answer, use)) is not None
    ]
    reasons.sort(key=_weight)
    outcome = _outcome({reason.effect for reason in reasons})
    return Verdict(key, outcome, _SUMMARIES[outcome], tuple(reasons))


def _of_what_is_built_on(licence: Licence, use: Use) -> Verdict:
    """What is added may forbid more and allows nothing: only a "no" is sure without its text."""
    known = verdict(licence.builds_on, use)
    if known.outcome != "no":
        return _needs_review(licence.key, f"Bud does not have its text. {licence.note}")
    name = index.licence(licence.builds_on).short_name
    summary = f"It holds the terms of {name}, which do not allow this use."
    return Verdict(licence.key, "no", summary, known.reasons)


def _needs_review(key: str, why: str) -> Verdict:
    return Verdict(key, "needs review", why, ())


def _weight(reason: Reason) -> tuple[int, int]:
    return _EFFECTS.index(reason.effect), _IMPACTS.index(reason.impact)


def _outcome(effects: set[Effect]) -> Outcome:
    if "blocks" in effects:
        return "no"
    return "conditional" if effects & {"unclear", "requires"} else "yes"


def _reason(question: str, answer: Answer, use: Use) -> Reason | None:
    effect = _effect(question, answer, use)
    if effect is None:
        return None
    return Reason(
        question=question,
        effect=effect,
        impact=answer.impact,
        text=answer.explanation,
        section=answer.section,
        quotation=answer.quotation,
        document=answer.document,
    )


def _effect(question: str, answer: Answer, use: Use) -> Effect | None:
    """What an answer does to the use; None when the use does not meet it."""
    if answer.in_eu:
        return answer.in_eu if use.in_eu else None
    if not _is_met(question, answer, use):
        return None
    if answer.limit is not None:
        return _beyond(question, answer.limit, answer, use)
    if QUESTIONS[question].is_permission:
        return _PERMISSION_EFFECTS[answer.reply]
    if answer.reply == "no":
        return None
    is_outside = question == "core_restrictions" and answer.reply == "yes"
    return "blocks" if is_outside else "requires"


def _is_met(question: str, answer: Answer, use: Use) -> bool:
    conditions = _MET_BY[question] if answer.when is None else answer.when
    return any(condition == _ALWAYS or use.meets(condition) for condition in conditions)


def _beyond(question: str, limit: int, answer: Answer, use: Use) -> Effect | None:
    number = use.monthly_users if question == "user_threshold" else use.annual_revenue_usd
    if number is None:
        return "unclear"
    return answer.above if number > limit else None
