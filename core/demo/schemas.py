"""What loading and removing demo data gives back."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class DemoData(BaseModel):
    """What the demo project holds, or held before it was removed."""

    model_config = ConfigDict(frozen=True)

    project_id: str
    users: int
    keys: int
    deployments: int
    requests: int
