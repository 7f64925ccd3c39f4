"""Guardrails in words, for pages and the command line."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from core.contracts.guardrails import GuardrailResult
from core.guardrails.schemas import KINDS, GuardrailView, Tried
from core.metrics.schemas import GuardrailCount

SIDES = {"input": "prompts", "output": "answers", "both": "prompts and answers"}
ENTITIES = {
    "email": "e-mail addresses",
    "phone": "phone numbers",
    "card": "payment cards",
    "iban": "bank accounts (IBAN)",
    "ip_address": "IP addresses",
    "us_ssn": "US social security numbers",
    "uk_nino": "UK National Insurance numbers",
    "es_dni": "Spanish DNI and NIE",
    "fr_nir": "French social security numbers",
    "br_cpf": "Brazilian CPF",
    "in_aadhaar": "Indian Aadhaar numbers",
    "api_key": "API keys of known forms",
    "private_key": "private keys",
    "jwt": "JSON Web Tokens",
    "url_password": "passwords in URLs",
    "bearer": "Authorization headers",
    "password": "passwords and keys that are named so",
}
_ACTED = frozenset({"masked", "blocked", "reported"})
_COULD_NOT = frozenset({"let_through", "refused"})
_WOULD = {"pass": "lets it through", "mask": "masks it", "block": "refuses it"}


def looks_for(rule: GuardrailView) -> str:
    """What a guardrail looks for."""
    of = rule.settings
    match rule.kind:
        case "pii" | "secrets":
            entities = of.get("entities") or ()
            everything = "all personal data" if rule.kind == "pii" else "all secrets"
            return ", ".join(ENTITIES[each] for each in entities) or everything
        case "injection":
            return f"prompt injection, from a score of {of['threshold']:g} on"
        case "deny_list":
            words, patterns = len(of["words"]), len(of["patterns"])
            parts = [_counted(words, "word"), _counted(patterns, "pattern")]
            return " and ".join(part for part in parts if part)
        case "max_length":
            about = ", estimated" if of["unit"] == "tokens" else ""
            return f"over {of['most']:,} {of['unit']}{about}"
        case "json_schema":
            return "what its JSON schema does not allow"
        case "classifier":
            return f"what {of['url']} flags"


def does(rule: GuardrailView) -> str:
    """What a guardrail does with what it finds."""
    if rule.mode == "off":
        return "nothing: off"
    if rule.mode == "report":
        return "reports it"
    return "masks it" if rule.action == "mask" else "refuses it"


def title(rule: GuardrailView) -> str:
    """Its kind, as people call it."""
    return KINDS[rule.kind].title


def would(tried: Tried) -> str:
    """What a guardrail would do with a text that was tried, were it enforced."""
    if tried.would == "fail":
        then = "refuses it" if tried.on_failure == "closed" else "lets it through"
        return f"cannot say: {then}"
    return _WOULD[tried.would]


def told(fact: str) -> str:
    """What guardrails did with a request, but for those that let it pass.

    Args:
        fact: As it stands in the request's fact.
    """
    results = msgspec.json.decode(fact, type=list[GuardrailResult]) if fact else []
    return "; ".join(
        f"{each.rule} {each.outcome.replace('_', ' ')} ({each.side})"
        for each in results
        if each.outcome != "passed"
    )


class Counted:
    """What one guardrail did in a time.

    Attributes:
        checked: How often it looked at a prompt or an answer.
        acted: How often it found something: masked, refused or reported.
        could_not: How often it could not say.
        mean_ms: Of its work; None when there was none.
    """

    def __init__(self, counts: Iterable[GuardrailCount]) -> None:
        rows = list(counts)
        self.checked = sum(row.requests for row in rows)
        self.acted = sum(row.requests for row in rows if row.outcome in _ACTED)
        self.could_not = sum(row.requests for row in rows if row.outcome in _COULD_NOT)
        worked_ms = sum(row.mean_ms * row.requests for row in rows)
        self.mean_ms = worked_ms / self.checked if self.checked else None


def by_rule(counts: Iterable[GuardrailCount]) -> dict[str, Counted]:
    """What each guardrail did, by its name."""
    rows: dict[str, list[GuardrailCount]] = {}
    for count in counts:
        rows.setdefault(count.rule, []).append(count)
    return {name: Counted(of) for name, of in rows.items()}


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}" if number else ""
