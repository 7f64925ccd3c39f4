"""What callers see of the simulator: a question, its answer with bands, a saved scenario.

Times are in milliseconds, memory in 1e9 bytes, money in US dollars.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from core.kernel.errors import InvalidInput
from core.leaderboards.schemas import Quality

Mode = Literal["agg", "disagg"]


class WhatIf(BaseModel):
    """A question: a model on some hardware under some load. Names are checked when it is asked.

    Attributes:
        model: Any name of a model that the simulator or the registry knows.
        hardware: A device of the catalogue, or a cloud instance as `cloud:instance`.
        region: The cloud region that is paid for; empty takes the cheapest known.
        gpus: Devices of the whole deployment when aggregated; copies of the model share them.
        precision: Of the weights; empty is the checkpoint's own.
        mode: `agg`, or `disagg`: some devices prefill, others decode.
        ep: Devices that experts are spread over; when split, of both sides, at most their TP.
        dp: Ranks of data-parallel attention among the TP devices; when split as `ep`.
        isl: Mean input tokens of a request.
        osl: Mean output tokens.
        concurrency: Requests in flight over the whole deployment.
        prefix_hit_share: Share of the input that the prefix cache holds, 0 to 1.
        kv_precision: `auto`, `bf16` or `fp8`.
        chunk_tokens: Most tokens of one step; 0 is the engine's own.
        max_sequences: Most sequences of one copy in a step; 0 is the engine's own.
        block_tokens: Tokens of a block of the KV cache.
        usd_per_gpu_hour: What a device hour costs, instead of the catalogue's prices; 0 is unset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = "llama-3.1-8b"
    hardware: str = "h100_sxm"
    region: str = ""
    gpus: int = 1
    engine: str = "vllm"
    precision: str = ""
    mode: Mode = "agg"
    tp: int = 1
    pp: int = 1
    ep: int = 1
    dp: int = 1
    isl: int = 1155
    osl: int = 211
    concurrency: int = 32
    prefix_hit_share: float = 0.0
    speculation: str = "none"
    kv_precision: str = "auto"
    chunk_tokens: int = 0
    max_sequences: int = 0
    block_tokens: int = 16
    prefill_workers: int = 1
    prefill_tp: int = 1
    decode_workers: int = 1
    decode_tp: int = 1
    usd_per_gpu_hour: float = 0.0

    @property
    def devices(self) -> int:
        """Devices of the whole deployment."""
        if self.mode == "disagg":
            return self.prefill_workers * self.prefill_tp + self.decode_workers * self.decode_tp
        return self.gpus

    @property
    def devices_per_copy(self) -> int:
        """Devices that one copy of the model takes when aggregated."""
        return max(1, self.tp * self.pp)

    @property
    def replicas(self) -> int:
        """Copies of the model that serve independently."""
        return 1 if self.mode == "disagg" else self.gpus // self.devices_per_copy

    def changes(self) -> dict[str, object]:
        """Every field that is not at its default: what a link must carry."""
        return self.model_dump(exclude_defaults=True)


@dataclass(frozen=True, slots=True)
class Value:
    """A mean, and the bounds between which it lies in 80% of the cases."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """Memory of one device in GB (1e9 bytes), by what holds it; of the fuller side when split."""

    weights_gb: float
    kv_gb: float
    activations_gb: float
    runtime_gb: float
    usable_gb: float
    device_gb: float

    @property
    def needed_gb(self) -> float:
        """Everything that must fit."""
        return self.weights_gb + self.kv_gb + self.activations_gb + self.runtime_gb

    @property
    def free_gb(self) -> float:
        """What stays free of what the engine may use; negative when it does not fit."""
        return self.usable_gb - self.needed_gb


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one configuration does.

    `usd_per_*` are None where no price is known. `most_concurrency` is what fits in the KV cache.
    """

    ttft_ms: Value
    tpot_ms: Value
    e2e_ms: Value
    tokens_per_s_per_user: Value
    tokens_per_s_per_gpu: Value
    total_tokens_per_s_per_gpu: float
    requests_per_s: float
    devices: int
    memory: MemoryParts
    most_concurrency: int
    fits: bool
    nearby: int
    usd_per_hour: float | None
    usd_per_million_output_tokens: Value | None
    usd_per_million_tokens: float | None

    @property
    def support(self) -> str:
        """How near measured rows are: `41 measured rows nearby`, or `extrapolated`."""
        if self.nearby <= 0:
            return "extrapolated"
        return f"{self.nearby:,} measured row{'' if self.nearby == 1 else 's'} nearby"


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """What a configuration does at one concurrency."""

    concurrency: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Curve:
    """One way to spread the model over the devices, at rising concurrency."""

    layout: str
    query: WhatIf
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What one change would buy.

    `outcome` is None when the change is not possible; `reason` then says why.
    """

    name: str
    query: WhatIf
    outcome: Outcome | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """A way to pay for the devices: instances are rented whole.

    Attributes:
        cloud: `aws`, `azure`, `gcp`, `own` or `given`.
        instances: How many of them hold the devices.
        idle_devices: Devices that are paid for and not used.
        usd_per_million_output_tokens: At the predicted mean throughput; None if it does not fit.
    """

    cloud: str
    region: str
    instance: str
    instances: int
    idle_devices: int
    usd_per_hour: float
    usd_per_million_output_tokens: float | None
    usd_per_million_tokens: float | None
    price_date: str
    source: str


@dataclass(frozen=True, slots=True)
class Basis:
    """What predictions are made from.

    Attributes:
        version: Of the method.
        data_date: The day of the newest measurement, ISO 8601.
        data_hash: SHA-256 of the measured rows.
        rows: How many rows were measured.
    """

    version: str
    data_date: str
    data_hash: str
    rows: int


@dataclass(frozen=True)
class Answer:
    """Everything that a view shows of one question.

    Attributes:
        query: The question, as it was asked.
        model_name: The model's own name.
        hardware_name: The device's own name.
        outcome: The answer at the asked concurrency.
        curves: The asked layout at other concurrencies, then other layouts of as many devices.
        changes: What single changes would buy.
        offers: What the devices cost, cheapest first; empty where no price is set.
        step_ms: The analytic parts of a decode step; they overlap, so they add up to more.
        notes: What to know of it, such as a prompt over the model's longest context.
        remedies: What would fit, when it does not.
        launch: What starts its servers, for a shell; empty for an engine that Bud cannot start.
        basis: What it was predicted with.
    """

    query: WhatIf
    model_name: str
    hardware_name: str
    outcome: Outcome
    curves: tuple[Curve, ...]
    changes: tuple[Change, ...]
    offers: tuple[Offer, ...]
    step_ms: Mapping[str, float]
    notes: tuple[str, ...]
    remedies: tuple[str, ...]
    launch: str
    basis: Basis

    @property
    def title(self) -> str:
        """`llama-3.1-8b on 2 × NVIDIA H100 SXM 80 GB`."""
        return f"{self.model_name} on {self.outcome.devices} × {self.hardware_name}"


@dataclass(frozen=True, slots=True)
class Targets:
    """What an answer must meet; None asks for nothing. Cost is of a million output tokens."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    tokens_per_s: float | None = None
    usd_per_million_output_tokens: float | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            target = getattr(self, field.name)
            if target is not None and target <= 0:
                raise InvalidInput(
                    "A target is a number above 0.",
                    value=target,
                    remedy="Leave it empty to ask for nothing.",
                )


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model in its best configuration on the given hardware.

    `misses` names the targets that it does not meet; `quality` is the leaderboards' word on it,
    None where no board lists it.
    """

    model: str
    model_name: str
    licence: str
    licence_class: str
    parameters: float
    query: WhatIf
    outcome: Outcome
    misses: tuple[str, ...]
    quality: Quality | None = None

    @property
    def meets(self) -> bool:
        """Whether it meets every target."""
        return not self.misses


class ScenarioView(BaseModel):
    """A saved question."""

    model_config = ConfigDict(frozen=True, from_attributes=True)

    id: str
    project_id: str
    name: str
    query: WhatIf
    created_by_name: str
    created_at: datetime
    updated_at: datetime
