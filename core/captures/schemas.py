"""What callers see of captures."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict


class CaptureView(BaseModel):
    """What a project keeps of prompts and answers, and how much there is."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    project_id: str
    enabled: bool
    keep_days: int
    max_mb: int
    set_at: datetime
    set_by_name: str
    used_bytes: int = 0


class CapturedRequest(BaseModel):
    """One request and its answer, redacted; both texts are empty in lists."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    request_id: str
    at: datetime
    endpoint: str
    model: str
    key_id: str
    user_id: str
    status: int
    error_class: str
    request: str
    response: str
    request_cut: bool
    response_cut: bool
    redacted: dict[str, int]
