"""What a person asks of a search, and what they get to see of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from core.simulation.objectives import Slo
from core.simulation.options import Option, SearchResult
from core.simulation.schemas import WhatIf
from core.simulation.space import Load, Space


class SearchRequest(BaseModel):
    """What to serve, on which devices, within which targets.

    Attributes:
        query: The model and the load; its layout is what is searched for.
        hardware: Devices and instances that may be used, as `WhatIf.hardware` names them.
        max_gpus: Most devices of the whole deployment.
        max_usd_per_hour: Most that the rented devices may cost; 0 asks for nothing.
        ttft_ms, tpot_ms, e2e_ms: Targets; 0 asks for nothing.
        is_cautious: Whether the upper bounds must meet the targets, and not the means.
        engines: Those that may be used.
        precisions: Those that may be used beside the checkpoint's own.
        evaluations: Most configurations to predict.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: WhatIf = WhatIf()
    hardware: tuple[str, ...] = ("h100_sxm",)
    max_gpus: int = 8
    max_usd_per_hour: float = 0.0
    ttft_ms: float = 0.0
    tpot_ms: float = 0.0
    e2e_ms: float = 0.0
    is_cautious: bool = False
    engines: tuple[str, ...] = ("vllm", "sglang", "trtllm")
    precisions: tuple[str, ...] = ("fp8",)
    evaluations: int = 20_000

    @property
    def load(self) -> Load:
        """What is to be served."""
        query = self.query
        return Load(query.isl, query.osl, query.concurrency, query.prefix_hit_share)

    @property
    def slo(self) -> Slo:
        """What is to be met."""
        return Slo(
            ttft_ms=self.ttft_ms or None,
            tpot_ms=self.tpot_ms or None,
            e2e_ms=self.e2e_ms or None,
            bound="high" if self.is_cautious else "mean",
        )


@dataclass(frozen=True)
class SearchPlan:
    """A request with its names looked up: what the job gets."""

    space: Space
    load: Load
    slo: Slo


class SearchView(BaseModel):
    """A search; `result` is None until its job has succeeded."""

    model_config = ConfigDict(frozen=True)

    id: str
    project_id: str
    title: str
    job_id: str
    request: SearchRequest
    result: SearchResult | None
    created_by_name: str
    created_at: datetime


def question(request: SearchRequest, option: Option) -> WhatIf:
    """The question that asks for an option of a search."""
    chosen = option.configuration
    machine = chosen.machine
    hardware = f"{machine.cloud}:{machine.instance}" if machine.instance else machine.system
    return request.query.model_copy(
        update={
            "hardware": hardware,
            "region": machine.region,
            "gpus": option.devices if chosen.mode == "agg" else 1,
            "engine": chosen.engine,
            "precision": chosen.precision,
            "mode": chosen.mode,
            "tp": chosen.tp,
            "pp": chosen.pp,
            "ep": chosen.ep,
            "dp": chosen.dp,
            "max_sequences": chosen.max_sequences,
            "chunk_tokens": chosen.chunk_tokens,
            "block_tokens": chosen.block_tokens,
            "prefill_workers": max(1, chosen.prefill_workers),
            "prefill_tp": max(1, chosen.prefill_tp),
            "decode_workers": max(1, chosen.decode_workers),
            "decode_tp": max(1, chosen.decode_tp),
            "prefix_hit_share": request.query.prefix_hit_share if chosen.prefix_caching else 0.0,
        }
    )
