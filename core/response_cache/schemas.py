"""What callers see of response caches."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict


class ResponseCacheView(BaseModel):
    """What a project keeps of its answers.

    `answers` and `used_bytes` are what this host keeps now; with Valkey they are None, since the
    answers lie there.
    """

    model_config = ConfigDict(frozen=True, from_attributes=True)

    project_id: str
    enabled: bool
    ttl_s: int
    max_mb: int
    all_requests: bool
    generation: int
    set_at: datetime
    set_by_name: str
    answers: int | None = 0
    used_bytes: int | None = 0
