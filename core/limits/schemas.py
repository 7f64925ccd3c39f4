"""What callers see of limits."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from core.contracts.route_table import LimitLevel, LimitMetric, LimitWindow, WhenAlone


class LimitView(BaseModel):
    """A limit of a project.

    `amount` is requests, tokens or USD in a window, or requests at once. `subject` is the id of a
    key, a user or the project, or a model's name.
    """

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    project_id: str
    level: LimitLevel
    subject: str
    metric: LimitMetric
    window: LimitWindow
    amount: float
    when_alone: WhenAlone
    set_at: datetime
    set_by_name: str
