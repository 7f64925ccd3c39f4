"""What callers see of a model."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

ModelState = Literal["adding", "ready", "failed"]


class ModelView(BaseModel):
    """A model; sizes in bytes, lengths in tokens or elements. None where the file is silent."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    project_id: str | None
    name: str
    state: ModelState
    source: str
    error: str | None
    path: str | None
    managed: bool
    size_bytes: int | None
    sha256: str | None
    architecture: str | None
    parameters: int | None
    quantization: str | None
    context_tokens: int | None
    layers: int | None
    heads: int | None
    kv_heads: int | None
    key_length: int | None
    value_length: int | None
    embedding_length: int | None
    vocabulary: int | None
    chat_template: bool | None
    licence: str | None
    capabilities: list[str]
    created_at: datetime

    @property
    def is_shared(self) -> bool:
        """Whether every project can use it."""
        return self.project_id is None
