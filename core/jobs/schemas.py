"""What callers see of a job."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
StepState = Literal["pending", "running", "succeeded", "failed", "cancelled"]
ACTIVE = ("queued", "running")


class StepView(BaseModel):
    """One step; `fraction` is 0 to 1, None when unknown."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    name: str
    title: str
    state: StepState
    runs: int
    fraction: float | None
    detail: str
    expected_s: float
    started_at: datetime | None
    ended_at: datetime | None


class LogLine(BaseModel):
    """One log line; `id` grows, so that a reader can ask for what came after it."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: int
    at: datetime
    level: str
    line: str


class JobView(BaseModel):
    """A job with its steps; `eta_s` is the time left in seconds, None when it does not run."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    project_id: str
    kind: str
    title: str
    subject: str
    state: JobState
    cancel_requested: bool
    attempt: int
    retry_of: str | None
    created_by_name: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None
    remedy: str | None
    steps: list[StepView] = []
    eta_s: float | None = None

    @property
    def is_active(self) -> bool:
        """Whether it is queued or running."""
        return self.state in ACTIVE
