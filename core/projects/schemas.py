"""What callers see of a project."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict


class ProjectView(BaseModel):
    """A project."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    name: str
    demo: bool
    created_at: datetime
