"""How a model's requests are routed, as callers set and see it."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from core.contracts.route_table import Policy


class Rules(BaseModel):
    """How the requests of one model are shared, and what happens when no replica answers.

    Attributes:
        policy: How requests are shared among replicas.
        fallbacks: Models of the same project that answer then, in this order.
        connect_s: For a connection, in seconds; None is the gateway's own.
        first_token_s: Up to the first token of a stream, or the end of a short answer.
        between_tokens_s: From one token to the next.
        total_s: For the whole request, with all its attempts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Policy = "p2c"
    fallbacks: tuple[str, ...] = Field(default=(), max_length=10)
    connect_s: float | None = Field(default=None, ge=0.05, le=60)
    first_token_s: float | None = Field(default=None, ge=0.1, le=3600)
    between_tokens_s: float | None = Field(default=None, ge=0.1, le=3600)
    total_s: float | None = Field(default=None, ge=0.1, le=86_400)


class RulesView(BaseModel):
    """One version of a model's rules. Version 0 is what holds while nobody has set any."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    rules: Rules
    set_at: datetime | None
    set_by_name: str


class RuleChange(BaseModel):
    """One rule that differs between two versions."""

    model_config = ConfigDict(frozen=True)

    rule: str
    before: str
    after: str
