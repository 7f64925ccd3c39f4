"""What callers see of batches."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from core.contracts.batch import ENDED, Status


class BatchView(BaseModel):
    """A batch as it stands. `total` is 0 until its input was read; `error` is why it failed."""

    model_config = ConfigDict(frozen=True)

    id: str
    project_id: str
    job_id: str
    key_id: str
    endpoint: str
    model: str | None
    status: Status
    total: int
    completed: int
    failed: int
    input_tokens: int
    output_tokens: int
    input_file_id: str
    output_file_id: str | None
    error_file_id: str | None
    error: str | None
    metadata: dict[str, str]
    created_at: datetime
    expires_at: datetime
    ended_at: datetime | None

    @property
    def is_active(self) -> bool:
        """Whether it has not ended."""
        return self.status not in ENDED
