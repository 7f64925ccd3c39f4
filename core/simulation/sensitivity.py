"""What single changes would buy: one more GPU, FP8, a wider TP, half the load."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core.kernel.errors import InvalidInput
from core.simulation.questions import ENGINE_NAMES, Pairing, check, impossible
from core.simulation.scenarios import native_precision
from core.simulation.schemas import Change, WhatIf


def changes(query: WhatIf, at: Pairing) -> list[Change]:
    """Single changes of a question, without their outcomes yet.

    Those that no engine would start carry the reason.
    """
    made = [
        *(_split_changes(query) if query.mode == "disagg" else _whole_changes(query)),
        *_precision_changes(query, at),
        *_load_changes(query),
        *_engine_changes(query),
    ]
    asked = [(name, query.model_copy(update=update)) for name, update in made]
    return [Change(name, changed, None, _reason(changed, at)) for name, changed in asked]


_Update = tuple[str, dict[str, Any]]


def _reason(query: WhatIf, at: Pairing) -> str:
    try:
        check(query)
    except InvalidInput as error:
        return error.what.rstrip(".")
    return impossible(query, at)


def _whole_changes(query: WhatIf) -> Iterable[_Update]:
    per_copy = query.devices_per_copy
    more = "One more GPU" if per_copy == 1 else f"One more copy ({per_copy} more GPUs)"
    yield more, {"gpus": query.gpus + per_copy}
    if query.replicas > 1:
        fewer = "One GPU fewer" if per_copy == 1 else f"One copy fewer ({per_copy} GPUs)"
        yield fewer, {"gpus": query.gpus - per_copy}
    double = {"tp": 2 * query.tp, "ep": 2 * query.ep if query.ep > 1 else 1}
    if query.replicas > 1:
        yield f"TP {query.tp} → {2 * query.tp}, same GPUs", double
    yield f"TP {query.tp} → {2 * query.tp}, twice the GPUs", double | {"gpus": 2 * query.gpus}
    if query.tp % 2 == 0:
        halved = {"tp": query.tp // 2, "ep": max(1, query.ep // 2)}
        yield f"TP {query.tp} → {query.tp // 2}, same GPUs", halved
    if query.tp > 1 and query.ep == 1:
        yield "Experts spread (EP)", {"ep": query.tp}
    if query.tp > 1 and query.dp == 1:
        yield "Data-parallel attention", {"dp": query.tp}
    if query.replicas > 1:
        yield "Separate prefill and decode", split(query)


def split(query: WhatIf) -> dict[str, Any]:
    """The copies of an aggregated deployment as workers of a disaggregated one, half and half."""
    prefill = max(1, query.replicas // 2)
    return {
        "mode": "disagg",
        "prefill_workers": prefill,
        "prefill_tp": query.devices_per_copy,
        "decode_workers": max(1, query.replicas - prefill),
        "decode_tp": query.devices_per_copy,
    }


def _split_changes(query: WhatIf) -> Iterable[_Update]:
    for side in ("prefill", "decode"):
        workers = getattr(query, f"{side}_workers")
        tp = getattr(query, f"{side}_tp")
        yield f"One more {side} worker ({tp} more GPUs)", {f"{side}_workers": workers + 1}
        yield f"{side.capitalize()} TP {tp} → {2 * tp}", {f"{side}_tp": 2 * tp}


def _precision_changes(query: WhatIf, at: Pairing) -> Iterable[_Update]:
    now = query.precision or native_precision(at.architecture)
    for precision, name in (("fp8", "FP8 weights"), ("int4", "INT4 weights"), ("fp4", "FP4")):
        if precision != now:
            yield name, {"precision": precision}
    if query.kv_precision == "bf16" or (query.kv_precision == "auto" and now not in ("fp8", "fp4")):
        yield "FP8 KV cache", {"kv_precision": "fp8"}


def _load_changes(query: WhatIf) -> Iterable[_Update]:
    if query.concurrency > 1:
        yield "Half the concurrency", {"concurrency": query.concurrency // 2}
    yield "Twice the concurrency", {"concurrency": 2 * query.concurrency}
    if query.prefix_hit_share < 0.5:
        yield "Half of the input cached", {"prefix_hit_share": 0.5}
    if query.speculation != "mtp":
        yield "Speculative decoding", {"speculation": "mtp"}


def _engine_changes(query: WhatIf) -> Iterable[_Update]:
    for engine in ("vllm", "sglang", "trtllm"):
        if engine != query.engine:
            yield (
                f"{ENGINE_NAMES[engine]} instead of {ENGINE_NAMES[query.engine]}",
                {"engine": engine},
            )
