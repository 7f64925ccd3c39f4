"""Runs rules over texts, within their budgets, and keeps what each of them did."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from core.contracts.guardrails import GuardrailResult, Outcome, Side
from core.detection.examination import Examination, Passage, Steps, TimeUp, told
from core.detection.finding import Found, united
from core.kernel import clock
from gateway.errors import GatewayError
from gateway.guardrails.classifier import CannotSay
from gateway.guardrails.rules import Rail
from gateway.guardrails.texts import Placed

# So long the event loop waits for a check at most, but for one slice of a text.
_TURN_S = 0.001
# So many marks are put into a text while others wait.
_MANY = 500
_SIDES: dict[Side, str] = {"input": "request", "output": "answer"}


class Results:
    """What the rules of one request did, in order."""

    def __init__(self) -> None:
        self.all: list[GuardrailResult] = []

    def add(
        self,
        rail: Rail,
        side: Side,
        outcome: Outcome,
        ms: float,
        found: Counter[str] | None = None,
    ) -> None:
        """Keep one."""
        result = GuardrailResult(
            rule=rail.rule.name, side=side, outcome=outcome, ms=round(ms, 3), found=found or {}
        )
        self.all.append(result)


async def enforce(
    rails: Sequence[Rail], side: Side, passages: Sequence[Placed], results: Results
) -> bool:
    """Run rules over texts; whether some were masked. Classifiers get them masked already.

    Raises GatewayError: a rule refuses.
    """
    spans: dict[int, list[Found]] = {}
    is_masked = False
    for rail in rails:
        if rail.classifier is not None and spans:
            is_masked = await _mask(passages, spans)
            spans = {}
        seen, ms = await judged(rail, side, passages, results)
        if seen is None:
            continue
        if not seen.why:
            results.add(rail, side, "passed", ms)
        elif rail.masks:
            results.add(rail, side, "masked", ms, seen.found)
            for place, found in seen.spans.items():
                known = spans.get(place)
                spans[place] = found if known is None else united([*known, *found])
        else:
            results.add(rail, side, "blocked", ms, seen.found)
            raise refusal(rail, side, seen.why)
    return await _mask(passages, spans) or is_masked


async def judged(
    rail: Rail, side: Side, passages: Sequence[Passage], results: Results
) -> tuple[Examination | None, float]:
    """What an enforced rule says, and in how many ms; None where it cannot, and lets through.

    Raises GatewayError: it cannot say, and then refuses.
    """
    began_s = clock.monotonic_s()
    try:
        return await examine(rail, passages)
    except CannotSay as problem:
        ms = (clock.monotonic_s() - began_s) * 1000
        give_up(rail, side, str(problem), ms, results)
        return None, ms


def give_up(rail: Rail, side: Side, why: str, ms: float, results: Results) -> None:
    """An enforced rule cannot say. Raises GatewayError: it refuses then."""
    if rail.rule.on_failure == "open":
        results.add(rail, side, "let_through", ms)
        return
    results.add(rail, side, "refused", ms)
    raise GatewayError(
        "guardrail",
        f"Guardrail {rail.rule.name!r} cannot check this {_SIDES[side]}: {why}. It refuses what it "
        "cannot check. Try again, or send less.",
        status=503,
        code="guardrail_unavailable",
    )


def pass_unchecked(rail: Rail, side: Side, why: str, results: Results) -> None:
    """An enforced rule can never say anything here. Raises GatewayError: it refuses then."""
    if rail.rule.on_failure == "open":
        results.add(rail, side, "let_through", 0.0)
        return
    results.add(rail, side, "refused", 0.0)
    raise GatewayError(
        "guardrail",
        f"Guardrail {rail.rule.name!r} refuses what it cannot check: {why}. Let it report only, or "
        "let through what it cannot check.",
        code="guardrail_unavailable",
    )


def refusal(rail: Rail, side: Side, why: str) -> GatewayError:
    """What a caller is told; never any of the text."""
    return GatewayError(
        "guardrail", f"Guardrail {rail.rule.name!r} does not allow this {_SIDES[side]}: {why}."
    )


def holds(found: Counter[str]) -> str:
    """Why a rule refuses a text in which it found something."""
    return f"it holds {told(found)}"


async def report(
    rails: Sequence[Rail], side: Side, passages: Sequence[Passage], results: Results
) -> None:
    """Run rules that only tell."""
    for rail in rails:
        began_s = clock.monotonic_s()
        try:
            seen, ms = await examine(rail, passages)
        except CannotSay:
            ms = (clock.monotonic_s() - began_s) * 1000
            results.add(rail, side, "let_through", ms)
        else:
            results.add(rail, side, "reported" if seen.why else "passed", ms, seen.found)


async def examine(rail: Rail, passages: Sequence[Passage]) -> tuple[Examination, float]:
    """What a rule says, and how long it worked, in ms. Raises CannotSay."""
    budget_s, began_s = rail.rule.budget_ms / 1000, clock.monotonic_s()
    if rail.problem:
        raise CannotSay(rail.problem)
    if rail.classifier is not None:
        seen = await rail.classifier.examine([each.text for each in passages], budget_s)
        return seen, (clock.monotonic_s() - began_s) * 1000
    assert rail.examiner is not None
    steps = rail.examiner.steps(passages, budget_s)
    if rail.examiner.heavy:
        try:
            seen = await asyncio.to_thread(_to_its_end, steps)
        except TimeUp:
            raise over_budget(rail) from None
        return seen, (clock.monotonic_s() - began_s) * 1000
    return await _in_turns(rail, steps, budget_s)


def over_budget(rail: Rail) -> CannotSay:
    """Its time is over."""
    return CannotSay(f"it took longer than its {rail.rule.budget_ms:g} ms")


async def _in_turns(rail: Rail, steps: Steps, budget_s: float) -> tuple[Examination, float]:
    """Step by step, others in between; only its own work counts for its budget."""
    worked_s = turn_s = 0.0
    while True:
        began_s = clock.monotonic_s()
        try:
            next(steps)
        except StopIteration as end:
            seen: Examination = end.value
            return seen, (worked_s + clock.monotonic_s() - began_s) * 1000
        took_s = clock.monotonic_s() - began_s
        worked_s, turn_s = worked_s + took_s, turn_s + took_s
        if worked_s > budget_s:
            raise over_budget(rail)
        if turn_s > _TURN_S:
            await asyncio.sleep(0)
            turn_s = 0.0


def _to_its_end(steps: Steps) -> Examination:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            seen: Examination = end.value
            return seen


async def _mask(passages: Sequence[Placed], spans: dict[int, list[Found]]) -> bool:
    for place, found in spans.items():
        if len(found) > _MANY:
            await asyncio.to_thread(passages[place].mask, found)
        else:
            passages[place].mask(found)
    return bool(spans)
