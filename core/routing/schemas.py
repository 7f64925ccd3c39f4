"""How a model's requests are routed, as callers set and see it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from core.contracts.gateway_state import Breaker, Health
from core.contracts.route_table import Capability, Policy, SplitBy

RouteKind = Literal["deployment", "hosted", "targets"]
HedgeMode = Literal["off", "p95", "delay"]
# Policies that choose among targets: without any they would do nothing that their name says.
AMONG_TARGETS: frozenset[Policy] = frozenset({"weighted", "cheapest"})


class TargetRule(BaseModel):
    """A deployment or hosted model that answers for a route.

    Attributes:
        model: Its name, in the same project.
        weight: Its part of the requests, beside those of the other targets of its priority; 0
            takes no new ones.
        priority: The lowest is used first, the next one when none of it answers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, max_length=200)
    weight: float = Field(default=1.0, ge=0, le=1_000_000, allow_inf_nan=False)
    priority: int = Field(default=0, ge=0, le=100)


class Rules(BaseModel):
    """How the requests of one model are shared, and what happens when no replica answers.

    Attributes:
        targets: Deployments and hosted models that answer; then `model` is a name of the route
            alone. Empty for the route of a deployment or hosted model itself.
        split_by: How requests are shared among targets: each anew, or a key always to the same.
        policy: How requests are shared among targets, and among the replicas of one
            (`core.contracts.route_table.Policy`).
        fallbacks: Models of the same project that answer then, in this order.
        connect_s: For a connection, in seconds; None is the gateway's own.
        first_token_s: Up to the first token of a stream, or the end of a short answer.
        between_tokens_s: From one token to the next.
        total_s: For the whole request, with all its attempts.
        health_path: Where a hosted model's server is asked whether it works, such as `/health`;
            "" is never. Model servers of Bud's own are always asked.
        hedge: When a second replica or target is asked too: never, when the answer is later than
            the 95th percentile of late, or after `hedge_after_ms`.
        hedge_after_ms: For `delay` alone, in milliseconds.
        hedge_percent: How many requests may be sent twice at most, in percent.
        shadow: A model of the same project that gets copies of requests unseen; "" for none.
        shadow_percent: Of how many requests, in percent.
        cached: Whether its answers are kept where the project keeps answers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    targets: tuple[TargetRule, ...] = Field(default=(), max_length=20)
    split_by: SplitBy = "request"
    policy: Policy = "p2c"
    fallbacks: tuple[str, ...] = Field(default=(), max_length=10)
    connect_s: float | None = Field(default=None, ge=0.05, le=60)
    first_token_s: float | None = Field(default=None, ge=0.1, le=3600)
    between_tokens_s: float | None = Field(default=None, ge=0.1, le=3600)
    total_s: float | None = Field(default=None, ge=0.1, le=86_400)
    health_path: str = Field(default="", max_length=200, pattern=r"^(/[!-~]*)?$")
    hedge: HedgeMode = "off"
    hedge_after_ms: float | None = Field(default=None, ge=1, le=600_000)
    hedge_percent: float = Field(default=5.0, gt=0, le=100)
    shadow: str = Field(default="", max_length=200)
    shadow_percent: float = Field(default=10.0, gt=0, le=100)
    cached: bool = True

    def share(self, target: TargetRule) -> float | None:
        """A target's part of its priority's requests, 0 to 1; None when prices decide."""
        if self.policy == "cheapest":
            return None
        beside = [each.weight for each in self.targets if each.priority == target.priority]
        return target.weight / sum(beside) if any(beside) else 0.0


class RulesView(BaseModel):
    """One version of a model's rules. Version 0 is what holds while nobody has set any."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    rules: Rules
    set_at: datetime | None
    set_by_name: str


class RuleChange(BaseModel):
    """One rule that differs between two versions."""

    model_config = ConfigDict(frozen=True)

    rule: str
    before: str
    after: str


class Proposal(BaseModel):
    """Rules that were checked and can be published, beside those that hold: version `version`."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    before: Rules
    rules: Rules
    changes: tuple[RuleChange, ...]


class LiveReplica(BaseModel):
    """A replica as the gateway's workers see it; the worst of what they say.

    `seen` is False while no worker has said anything of it. Counts are since the workers started,
    retries included; `latency_ms` is up to the first byte, None before the first answer.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    seen: bool
    health: Health
    breaker: Breaker
    draining: bool
    in_flight: int
    requests: int
    failures: int
    latency_ms: float | None


class LiveTarget(BaseModel):
    """What one deployment or hosted model does for a route.

    `share` is its part of its priority's requests, 0 to 1; None when prices decide. Prices that are
    None are not set. `requests` and `failures` are of this route alone, since the
    workers started; what its replicas say is of all routes together.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    deployment_id: str
    state: str
    weight: float
    priority: int
    share: float | None
    input_usd_per_million_tokens: float | None
    output_usd_per_million_tokens: float | None
    requests: int
    failures: int
    replicas: tuple[LiveReplica, ...]

    @property
    def in_flight(self) -> int:
        """Requests at its replicas now, by any route."""
        return sum(replica.in_flight for replica in self.replicas)

    @property
    def up(self) -> int:
        """How many of its replicas are not away."""
        return sum(replica.health == "up" for replica in self.replicas)


class RouteView(RulesView):
    """A route with its rules and what it does now.

    `workers` is how many gateway workers were heard of in the last seconds; 0 means that the
    gateway does not run, and the counts say nothing.
    """

    kind: RouteKind
    state: str
    capabilities: tuple[Capability, ...]
    targets: tuple[LiveTarget, ...]
    workers: int

    @property
    def replicas(self) -> list[LiveReplica]:
        """Those of all targets."""
        return [replica for target in self.targets for replica in target.replicas]

    @property
    def in_flight(self) -> int:
        """Requests at its replicas now, by any route."""
        return sum(target.in_flight for target in self.targets)

    @property
    def requests(self) -> int:
        """What it sent to its targets since the workers started."""
        return sum(target.requests for target in self.targets)

    @property
    def failures(self) -> int:
        """How many of these got no answer from the target; another may have given one."""
        return sum(target.failures for target in self.targets)
