"""What callers see of guardrails, and what each kind of them can do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from core.contracts.guardrails import (
    Action,
    AppliesTo,
    Classifier,
    DenyList,
    Injection,
    JsonSchema,
    Kind,
    MaxLength,
    OnFailure,
    Pii,
    Secrets,
    Side,
)

ModeSet = Literal["enforce", "report", "off"]


@dataclass(frozen=True)
class KindOfGuardrail:
    """What can be set of one kind.

    Attributes:
        title: What people call it.
        check: The struct of its settings.
        sides: What it can look at, the usual first.
        masks: Whether it can take out what it finds.
        budget_ms: The usual budget.
        on_failure: The usual one; None: whoever sets it must say.
    """

    title: str
    check: type
    sides: tuple[AppliesTo, ...]
    masks: bool = False
    budget_ms: float = 50.0
    on_failure: OnFailure | None = "closed"


_EVERYWHERE: tuple[AppliesTo, ...] = ("both", "input", "output")
KINDS: dict[Kind, KindOfGuardrail] = {
    "pii": KindOfGuardrail("Personal data", Pii, _EVERYWHERE, masks=True),
    "secrets": KindOfGuardrail("Secrets", Secrets, _EVERYWHERE, masks=True),
    "injection": KindOfGuardrail("Prompt injection", Injection, ("input",)),
    "deny_list": KindOfGuardrail("Deny list", DenyList, _EVERYWHERE, masks=True),
    "max_length": KindOfGuardrail("Longest text", MaxLength, ("input", "output", "both")),
    "json_schema": KindOfGuardrail("JSON schema of the answer", JsonSchema, ("output",)),
    "classifier": KindOfGuardrail(
        "External classifier", Classifier, _EVERYWHERE, budget_ms=2000.0, on_failure=None
    ),
}


class GuardrailView(BaseModel):
    """A guardrail; `settings` are those of its kind. Its credential is never shown."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    project_id: str
    name: str
    kind: Kind
    mode: ModeSet
    action: Action
    applies_to: AppliesTo
    budget_ms: float
    on_failure: OnFailure
    settings: dict[str, Any]
    has_credential: bool
    set_at: datetime
    set_by_name: str


class Tried(BaseModel):
    """What a guardrail would do with a text.

    `would` is pass, mask, block or fail: the last where it cannot say. `why` is in words, `masked`
    the text as it would go on, "" when it is not masked. `ms` is the time it took.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Kind
    mode: ModeSet
    side: Side
    would: Literal["pass", "mask", "block", "fail"]
    why: str
    found: dict[str, int]
    masked: str
    ms: float
    budget_ms: float
    on_failure: OnFailure

    @property
    def is_over_budget(self) -> bool:
        """Whether it took longer than it may."""
        return self.ms > self.budget_ms
