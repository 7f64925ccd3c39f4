"""Takes secrets and personal data out of texts, by patterns.

It finds what has a form: keys, tokens, addresses, numbers of cards and accounts. A name or a
medical record has none, so what is left may still be private.

RE2 looks through a text once, in time proportional to its length, and lets other threads run.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

# Kind → pattern. Earlier ones win where two begin at the same place.
_PATTERNS = {
    "private_key": r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[\s\S]*?"
    r"(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\z)",
    "jwt": r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
    "api_key": r"\b(?:bud-|sk-|rk-|pk-|hf_|gh[pousr]_|github_pat_|glpat-|gsk_|xai-|xox[abeprs]-|"
    r"AIza|ya29\.|npm_|pypi-|dop_v1_|SG\.|sk_live_|rk_live_|whsec_)[A-Za-z0-9_.-]{16,}",
    "aws_key": r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",
    "bearer": r"(?i:\bbearer\s+)[A-Za-z0-9._~+/-]{16,}=*",
    "url_password": r"[a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@\"]+:[^\s/@\"]+@",
    "password": r"(?i:\b(?:password|passwd|pwd|secret|api[_-]?key|access[_-]?key|auth[_-]?token))"
    r"\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?[^\s\"',;\\]{4,}",
    "email": r"\b[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}\.[A-Za-z]{2,24}\b",
    "iban": r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b",
    "card": r"\b[0-9](?:[ -]?[0-9]){12,18}\b",
    "us_ssn": r"\b[0-9]{3}-[0-9]{2}-[0-9]{4}\b",
    "phone": r"(?:\+[0-9]{1,3}[ .-]?(?:\([0-9]{1,4}\)[ .-]?)?|\([0-9]{2,4}\)[ .-]?)"
    r"[0-9]{2,4}(?:[ .-]?[0-9]{2,4}){1,4}\b",
    "ip_address": r"\b(?:[0-9]{1,3}\.){3}[0-9]{1,3}\b",
}


def redacted(text: str) -> tuple[str, Counter[str]]:
    """A text with `[redacted: kind]` in the place of what was found, and how often of each kind."""
    found: Counter[str] = Counter()

    def replaced(match: Any) -> str:
        kind = match.lastgroup
        if kind == "card" and not _is_card(match.group()):
            return str(match.group())
        found[kind] += 1
        kept = _name_of(match.group()) if kind == "password" else ""
        return f"{kept}[redacted: {kind}]"

    return str(_pattern().sub(replaced, text)), found


@cache
def _pattern() -> Any:
    # Loaded only where something is captured.
    import re2

    return re2.compile("|".join(f"(?P<{kind}>{each})" for kind, each in _PATTERNS.items()))


def _name_of(assignment: str) -> str:
    """The part of `name = "value"` that stands before the value."""
    sign = min(at for at in map(assignment.find, ":=") if at >= 0)
    value = assignment[sign + 1 :].lstrip(" \\\"'\t\n")
    return assignment.removesuffix(value)


def _is_card(text: str) -> bool:
    """Whether the last digit checks the others (Luhn): long numbers of other kinds are kept."""
    digits = [int(each) for each in text if each.isdigit()]
    doubled = [2 * each - 9 * (each > 4) for each in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
