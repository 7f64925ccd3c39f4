"""What callers give and see of deployments."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypedDict

from pydantic import BaseModel, ConfigDict

from core.contracts.route_table import Capability
from core.deployments.states import DeploymentState, DesiredState, ReplicaState

# What a deployment is for: llama.cpp's server does one of these.
Task = Literal["chat", "embedding", "rerank"]
# What a hosted model is for; `chat` is completions, too, where the provider has them.
HostedTask = Literal[
    "chat",
    "embedding",
    "rerank",
    "moderation",
    "image",
    "speech",
    "transcription",
    "realtime",
]
DraftStep = Literal["model", "targets", "options", "configuration", "confirm"]
STEPS: tuple[DraftStep, ...] = ("model", "targets", "options", "configuration", "confirm")


class DeploymentRequest(BaseModel):
    """What to deploy; None lets Bud choose from the machine and the model.

    `name` is the model name callers use. `context_tokens` is the length of one conversation;
    each of `slots` requests that a replica works on at once gets that much. `threads` is per
    replica. `model_version_id` None takes the model's current version; the deployment keeps to
    it. `task` None means chat, or embedding for a model that can only embed.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    project_id: str
    name: str
    model_id: str
    model_version_id: str | None = None
    task: Task | None = None
    context_tokens: int | None = None
    slots: int | None = None
    threads: int | None = None
    replicas: int = 1


class EngineChanges(TypedDict, total=False):
    """What to change of the engine's settings; None lets Bud choose again."""

    context_tokens: int | None
    slots: int | None
    threads: int | None


class Fit(BaseModel):
    """Whether a deployment fits into the memory that is free, with the numbers in bytes.

    The four parts are of one replica; `needed_bytes` is of all. `free_bytes` already leaves out
    `reserved_bytes`, which other deployments were promised but do not use yet, and what stays
    free for the system. `largest_context_tokens` is the longest that would fit, None when none
    would. `problem` and `remedy` are empty when it fits.
    """

    model_config = ConfigDict(frozen=True)

    fits: bool
    context_tokens: int
    slots: int
    threads: int
    replicas: int
    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    overhead_bytes: int
    needed_bytes: int
    free_bytes: int
    reserved_bytes: int
    largest_context_tokens: int | None
    problem: str = ""
    remedy: str = ""

    @property
    def replica_bytes(self) -> int:
        """What one replica needs."""
        return self.weights_bytes + self.kv_cache_bytes + self.compute_bytes + self.overhead_bytes


class Load(BaseModel):
    """What callers ask: mean input and output tokens of a request, and requests in flight.

    `prefix_hit_share` is the share of the input that the server's cache holds already, 0 to 1.
    """

    model_config = ConfigDict(frozen=True)

    isl: int = 1155
    osl: int = 211
    concurrency: int = 1
    prefix_hit_share: float = 0.0


# One person who tries it.
ONE_PERSON = Load(isl=256, osl=128, concurrency=1)


class Calibration(BaseModel):
    """What was measured of a deployment against what had been predicted for the same requests.

    The ratios are medians over `requests` requests of the logarithm of measured by predicted,
    before shrinkage; see `core.deployments.calibration`.
    """

    model_config = ConfigDict(frozen=True)

    requests: int
    ttft_log_ratio: float
    tpot_log_ratio: float
    calibrated_at: datetime


class ReplicaView(BaseModel):
    """One replica; `memory_bytes` is what its process holds now, None when there is none."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    index: int
    state: ReplicaState
    pid: int | None
    port: int | None
    restarts: int
    started_at: datetime | None
    ready_at: datetime | None
    memory_bytes: int | None = None
    last_error: str | None


class DeploymentView(BaseModel):
    """A deployment with its replicas.

    `requested` holds what was asked for (None: chosen by Bud); `context_tokens`, `slots` and
    `threads` are what it runs with. `reason` says why it is not ready. `job_id` is its newest
    job. `planned_bytes` is the memory of all its replicas. Requests from `measured_since` on were
    answered with these settings, and may calibrate its predictions.
    """

    model_config = ConfigDict(frozen=True, from_attributes=True, protected_namespaces=())

    id: str
    project_id: str
    cluster_id: str
    name: str
    model_id: str
    model_version_id: str | None = None
    model_name: str
    task: Task
    state: DeploymentState
    reason: str | None
    desired_state: DesiredState
    desired_replicas: int
    ready_replicas: int = 0
    context_tokens: int
    slots: int
    threads: int
    requested: dict[str, int | None]
    planned_bytes: int
    generation: int
    job_id: str | None
    calibration: Calibration | None = None
    measured_since: datetime
    demo: bool
    created_by_name: str
    created_at: datetime
    updated_at: datetime
    replicas: list[ReplicaView] = []


class LogChunk(BaseModel):
    """Lines of a replica's log; give `next_offset` (bytes) back to read on from there."""

    model_config = ConfigDict(frozen=True)

    replica_index: int
    lines: list[str]
    next_offset: int


class ReadyReplica(BaseModel):
    """A replica that answers, for the route table; `sealed_key` opens with `replica:<id>`."""

    model_config = ConfigDict(frozen=True)

    id: str
    port: int
    slots: int
    sealed_key: str


class DeploymentRoute(BaseModel):
    """A deployment as the route table needs it; without replicas when none answers."""

    model_config = ConfigDict(frozen=True)

    deployment_id: str
    tenant_id: str
    project_id: str
    name: str
    capabilities: list[Capability]
    context_tokens: int
    state: DeploymentState
    created_at: datetime
    replicas: list[ReadyReplica]


class HostedView(BaseModel):
    """A hosted model of the registry under a name that callers use."""

    model_config = ConfigDict(frozen=True, from_attributes=True, protected_namespaces=())

    id: str
    project_id: str
    name: str
    model_id: str
    task: HostedTask
    created_by_name: str
    created_at: datetime


class HostedRoute(BaseModel):
    """A hosted endpoint as the route table needs it, with its account's sealed credentials."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    endpoint_id: str
    tenant_id: str
    project_id: str
    name: str
    capability: HostedTask
    context_tokens: int
    created_at: datetime
    kind: str
    base_url: str
    options: dict[str, str]
    provider_model: str
    account_id: str
    sealed_credentials: str


class DraftContent(BaseModel):
    """What somebody has chosen so far; None is not chosen yet, or left to Bud.

    `model_version_id` None is the model's current version: the one in production, or else the
    newest that is ready. `workload` is the id of a template of the simulator, or empty for own
    numbers. `ttft_ms` and `tpot_ms` are the targets.
    """

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    model_id: str = ""
    model_version_id: str | None = None
    workload: str = "chat"
    load: Load = Load()
    ttft_ms: float | None = None
    tpot_ms: float | None = None
    cluster_id: str = ""
    name: str = ""
    task: Task | None = None
    context_tokens: int | None = None
    slots: int | None = None
    threads: int | None = None
    replicas: int = 1


class DraftView(BaseModel):
    """A draft of the deploy wizard, and the step at which to go on."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    project_id: str
    step: DraftStep
    content: DraftContent
    created_by_name: str
    created_at: datetime
    updated_at: datetime
