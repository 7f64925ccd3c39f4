"""Guardrails: what a project lets through of what is asked and answered."""

from __future__ import annotations

from typing import Literal

import msgspec

# enforce: it acts; report: what it would have done is told, and nothing is held up by it. A rule
# that is off is not in the route table.
Mode = Literal["enforce", "report"]
# block: the request or its answer is refused; mask: what was found is taken out.
Action = Literal["block", "mask"]
Side = Literal["input", "output"]
AppliesTo = Literal["input", "output", "both"]
# When a rule cannot say, since its time is over or its classifier does not answer:
#   open    what it would look at goes through
#   closed  it is refused
OnFailure = Literal["open", "closed"]
# What a rule did with one side of a request. The last two: it could not say.
Outcome = Literal["passed", "masked", "blocked", "reported", "let_through", "refused"]
Kind = Literal[
    "max_length", "deny_list", "secrets", "pii", "injection", "json_schema", "classifier"
]
PersonalEntity = Literal[
    "email",
    "phone",
    "card",
    "iban",
    "ip_address",
    "us_ssn",
    "uk_nino",
    "es_dni",
    "fr_nir",
    "br_cpf",
    "in_aadhaar",
]
SecretEntity = Literal["api_key", "private_key", "jwt", "url_password", "bearer", "password"]
LengthUnit = Literal["characters", "tokens"]
# moderations: `{"input": …}` → `{"results": [{"flagged": …}]}`, as OpenAI's /v1/moderations
# text: `{"text": …}` → `{"flagged": …}`
ClassifierForm = Literal["moderations", "text"]


class _Check(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    pass


class Pii(_Check, frozen=True, kw_only=True, tag="pii"):
    """Personal data that has a form; all kinds, when none is named."""

    entities: tuple[PersonalEntity, ...] = ()


class Secrets(_Check, frozen=True, kw_only=True, tag="secrets"):
    """Keys, tokens and passwords; all kinds, when none is named."""

    entities: tuple[SecretEntity, ...] = ()


class Injection(_Check, frozen=True, kw_only=True, tag="injection"):
    """Signs of prompt injection in what users and tools say; `threshold` from 0 to 1."""

    threshold: float = 0.5


class DenyList(_Check, frozen=True, kw_only=True, tag="deny_list"):
    """Whole words and phrases, and patterns in RE2's syntax; both in any case."""

    words: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()


class JsonSchema(_Check, frozen=True, kw_only=True, tag="json_schema"):
    """The answer's text must be JSON that this schema (itself JSON) allows."""

    schema: str


class MaxLength(_Check, frozen=True, kw_only=True, tag="max_length"):
    """The longest prompt or answer; tokens are estimated, at four bytes each."""

    most: int
    unit: LengthUnit = "characters"


class Classifier(_Check, frozen=True, kw_only=True, tag="classifier"):
    """A server that says whether a text is to be refused.

    `credential` is sealed (`core.kernel.crypto`, context `guardrail:<id>`) and sent as a bearer
    token; "" means none. `model` is for the form `moderations`, "" is left out.
    """

    url: str
    form: ClassifierForm = "text"
    model: str = ""
    credential: str = ""


Check = Pii | Secrets | Injection | DenyList | JsonSchema | MaxLength | Classifier


class Guardrail(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of a project.

    `budget_ms` is the time it may work on one side of a request; a classifier must answer within.
    """

    id: str
    project_id: str
    name: str
    check: Check
    mode: Mode = "enforce"
    action: Action = "block"
    applies_to: AppliesTo = "both"
    budget_ms: float = 50.0
    on_failure: OnFailure = "closed"


class GuardrailResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule did with one side of a request; never any of its text.

    `found` is how often it found what; `ms` the time it took.
    """

    rule: str
    side: Side
    outcome: Outcome
    ms: float = 0.0
    found: dict[str, int] = {}
