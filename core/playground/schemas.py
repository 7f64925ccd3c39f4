"""What callers give and get of the Playground."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from core.kernel.crypto import Secret

MessageState = Literal["streaming", "done", "stopped", "failed", "interrupted"]
Winner = Literal["a", "b", "tie", "neither"]
# Why an answer failed that has a remedy of its own: its `finish_reason`.
TOO_LONG = "context_length_exceeded"
LANES = (0, 1)


class ChatSettings(BaseModel):
    """How a chat asks: one model, or two side by side, and the sampling parameters.

    None leaves a parameter to the server's default. `first_turn` is the first one that is sent:
    those before it are left out of what the model reads.
    """

    model_config = ConfigDict(frozen=True)

    models: list[str] = Field(default_factory=list, max_length=len(LANES))
    system_prompt: str = ""
    temperature: float | None = Field(0.7, ge=0, le=2)
    top_p: float | None = Field(1.0, ge=0, le=1)
    max_tokens: int | None = Field(512, ge=1)
    seed: int | None = None
    stop: list[str] = Field(default_factory=list, max_length=4)
    first_turn: int = Field(1, ge=1)


class SessionView(BaseModel):
    """A saved chat, as lists show it."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    project_id: str
    title: str
    settings: ChatSettings
    created_at: datetime
    updated_at: datetime


class MessageView(BaseModel):
    """A message; times in ms, cost in USD (None where no price is set).

    With `cost_basis` "machine time" the cost is an upper bound: requests at the same time share
    the machine.
    """

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    turn: int
    lane: int
    role: Literal["user", "assistant"]
    model: str
    content: str
    reasoning: str
    state: MessageState
    finish_reason: str
    request_id: str
    ttft_ms: float | None
    tokens_per_s: float | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    cost_basis: str
    error: str
    remedy: str


class Turn(BaseModel):
    """A question with its answers, one a lane, and the vote between them."""

    model_config = ConfigDict(frozen=True)

    number: int
    question: MessageView
    answers: list[MessageView]
    vote: Winner | None = None


class ChatView(BaseModel):
    """A saved chat with everything that was said."""

    model_config = ConfigDict(frozen=True)

    session: SessionView
    turns: list[Turn]


class ModelVotes(BaseModel):
    """How a model did in side-by-side votes; `win_share` counts a tie as half (0 to 1)."""

    model_config = ConfigDict(frozen=True)

    model: str
    comparisons: int
    wins: int
    losses: int
    ties: int
    win_share: float


class ChatRequest(BaseModel):
    """One request to the gateway, in the terms of OpenAI's API."""

    model_config = ConfigDict(frozen=True)

    model: str
    messages: list[dict[str, str]]
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    stop: list[str] | None = None

    def body(self, *, stream: bool) -> dict[str, object]:
        """The JSON body; parameters that are not set are left out."""
        body: dict[str, object] = self.model_dump(exclude_none=True)
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body


class Endpoint(BaseModel):
    """Where the gateway is, and the key to use there."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    base_url: str
    key: Secret
