"""What a person asks of a replay, and what they get to see of it."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from core.simulation.replay import Policy
from core.simulation.replay_results import LatencyTargets, ReplayResult
from core.simulation.schemas import WhatIf
from core.simulation.traces import Trace


class ReplayRequest(BaseModel):
    """A trace over a configuration.

    Attributes:
        query: The configuration; its lengths and concurrency are not used.
        trace: The id of a shipped or a kept trace.
        rate: How many times as fast the requests arrive.
        start_s: Where the window to replay begins, in seconds of the trace.
        end_s: Where it ends; 0 takes all that is left.
        policy: Batching and autoscaling.
        targets: What each request must meet.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: WhatIf = WhatIf()
    trace: str = "azure-conversation"
    rate: float = 1.0
    start_s: float = 0.0
    end_s: float = 0.0
    policy: Policy = Policy()
    targets: LatencyTargets = LatencyTargets()

    def cut(self, trace: Trace) -> Trace:
        """The window of `trace` at the asked rate. InvalidInput when nothing is in it."""
        if self.start_s or self.end_s:
            trace = trace.window(self.start_s, self.end_s or trace.duration_s + 1)
        return trace if self.rate == 1 else trace.at_rate(self.rate)


class ReplayView(BaseModel):
    """A replay; `result` is None until its job has succeeded."""

    model_config = ConfigDict(frozen=True)

    id: str
    project_id: str
    title: str
    job_id: str
    request: ReplayRequest
    result: ReplayResult | None
    created_by_name: str
    created_at: datetime


class TraceView(BaseModel):
    """A trace that can be replayed; `source` is empty for a person's own."""

    model_config = ConfigDict(frozen=True)

    id: str
    name: str
    requests: int
    duration_s: float
    mean_input_tokens: float
    mean_output_tokens: float
    source: str
