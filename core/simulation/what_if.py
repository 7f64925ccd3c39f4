"""From a question to its answer: checks, the rows that are predicted, and what they say.

Everything that a view shows is predicted in one batch: the asked configuration, its curve and
those of other layouts, and what each single change would buy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from core.simulation import costs, launch, sensitivity
from core.simulation.memory import USABLE_SHARE
from core.simulation.predictor import Band, Prediction
from core.simulation.questions import Pairing, impossible, layout_name
from core.simulation.roofline import explain
from core.simulation.scenarios import (
    ENGINES,
    MODES,
    PRECISIONS,
    SPECULATION,
    UNKNOWN,
    Scenarios,
    from_columns,
)
from core.simulation.schemas import (
    Answer,
    Basis,
    Curve,
    CurvePoint,
    MemoryParts,
    Outcome,
    Value,
    WhatIf,
)

_KV_BYTES = {"auto": 0.0, "bf16": 2.0, "fp8": 1.0}

_SHARDS = (1, 2, 4, 8, 16, 32, 64)
_LOAD = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
_MOST_LAYOUTS = 5


def rows(queries: Sequence[WhatIf], pairings: Sequence[Pairing]) -> Scenarios:
    """Scenarios of questions, each about its model on its device."""
    columns = [_columns(query) for query in queries]
    return from_columns(
        {
            "model": [at.model for at in pairings],
            "system": [at.system for at in pairings],
            **{name: [row[name] for row in columns] for name in columns[0]},
        }
    )


def _columns(query: WhatIf) -> dict[str, float]:
    is_split = query.mode == "disagg"
    return {
        "engine": ENGINES.index(query.engine),
        "precision": PRECISIONS.index(query.precision) if query.precision else UNKNOWN,
        "mode": MODES.index(query.mode),
        "speculation": SPECULATION.index(query.speculation),
        "isl": query.isl,
        "osl": query.osl,
        "concurrency": query.concurrency,
        "replicas": max(1, query.replicas),
        "prefix_hit_share": query.prefix_hit_share,
        "kv_bytes": _KV_BYTES[query.kv_precision],
        "chunk_tokens": query.chunk_tokens,
        "max_sequences": query.max_sequences,
        "tp": 1 if is_split else query.tp,
        "pp": 1 if is_split else query.pp,
        "ep": 1 if is_split else query.ep,
        "dp": 1 if is_split else query.dp,
        "block_tokens": query.block_tokens,
        **_side_columns(query, "prefill", query.prefill_workers, query.prefill_tp),
        **_side_columns(query, "decode", query.decode_workers, query.decode_tp),
    }


def _side_columns(query: WhatIf, side: str, workers: int, tp: int) -> dict[str, float]:
    if query.mode == "agg":
        return dict.fromkeys((f"{side}_{name}" for name in ("workers", "tp", "pp", "ep", "dp")), 0)
    columns = {"workers": workers, "tp": tp, "pp": 1}
    columns |= {"ep": min(query.ep, tp), "dp": min(query.dp, tp)}
    return {f"{side}_{name}": value for name, value in columns.items()}


def outcomes(queries: Sequence[WhatIf], pairings: Sequence[Pairing]) -> list[Outcome]:
    """What each question's configuration does, predicted in one batch.

    All pairings must be of the same tables.
    """
    if not queries:
        return []
    prediction = pairings[0].subjects.predictor.predict(rows(queries, pairings))
    return _outcomes(prediction, queries, pairings)


def _outcomes(
    prediction: Prediction, queries: Sequence[WhatIf], pairings: Sequence[Pairing]
) -> list[Outcome]:
    return [
        _outcome(prediction, row, query, at)
        for row, (query, at) in enumerate(zip(queries, pairings, strict=True))
    ]


def _outcome(prediction: Prediction, row: int, query: WhatIf, at: Pairing) -> Outcome:
    devices = round(float(prediction.devices[row]))
    tpot = _value(prediction.tpot_ms, row)
    per_gpu = _value(prediction.tokens_per_s_per_gpu, row)
    usd_per_hour = at.rates.usd_per_hour(devices)
    fits = bool(prediction.fits[row])
    output = Value(per_gpu.mean * devices, per_gpu.low * devices, per_gpu.high * devices)
    usd = costs.per_million_band(usd_per_hour, output) if fits else None
    return Outcome(
        ttft_ms=_value(prediction.ttft_ms, row),
        tpot_ms=tpot,
        e2e_ms=_value(prediction.e2e_ms, row),
        tokens_per_s_per_user=Value(1e3 / tpot.mean, 1e3 / tpot.high, 1e3 / tpot.low),
        tokens_per_s_per_gpu=per_gpu,
        total_tokens_per_s_per_gpu=float(prediction.total_tokens_per_s_per_gpu[row]),
        requests_per_s=float(prediction.requests_per_s[row]),
        devices=devices,
        memory=_memory(prediction, row, at),
        most_concurrency=int(prediction.most_concurrency[row]) if fits else 0,
        fits=fits,
        nearby=int(prediction.nearby[row]),
        usd_per_hour=usd_per_hour,
        usd_per_million_output_tokens=usd,
        usd_per_million_tokens=None if usd is None else usd.mean * output_share(query),
    )


def output_share(query: WhatIf) -> float:
    """The share of all tokens that are generated ones."""
    return query.osl / (query.isl + query.osl)


def _value(band: Band, row: int) -> Value:
    return Value(float(band.mean[row]), float(band.low[row]), float(band.high[row]))


def _memory(prediction: Prediction, row: int, at: Pairing) -> MemoryParts:
    held = prediction.memory
    usable = float(held.usable[row])
    parts = (held.weights, held.kv, held.activations, held.runtime)
    weights, kv, activations, runtime = (float(part[row]) / 1e9 for part in parts)
    return MemoryParts(weights, kv, activations, runtime, usable / 1e9, usable / USABLE_SHARE / 1e9)


def answer(query: WhatIf, at: Pairing, basis: Basis) -> Answer:
    """Everything that a view shows of a question that `questions.check` let through."""
    loads, layouts = _loads(query), _layouts(query, at)
    changes = sensitivity.changes(query, at)
    curved = [each.model_copy(update={"concurrency": load}) for each in layouts for load in loads]
    changed = [change.query for change in changes if not change.reason]
    asked = [query, *curved, *changed]
    pairings = [at] * len(asked)
    scenarios = rows(asked, pairings)
    prediction = at.subjects.predictor.predict(scenarios)
    outcome, *others = _outcomes(prediction, asked, pairings)
    bought = iter(others[len(curved) :])
    return Answer(
        query=query,
        model_name=at.model_name,
        hardware_name=at.device.name,
        outcome=outcome,
        curves=_curves(layouts, loads, others[: len(curved)]),
        changes=tuple(
            change if change.reason else replace(change, outcome=next(bought)) for change in changes
        ),
        offers=at.rates.offers(outcome, output_share(query)),
        step_ms={name: float(part[0]) for name, part in explain(prediction.times).items()},
        notes=tuple(_notes(query, at, outcome)),
        remedies=() if outcome.fits else tuple(_remedies(query, at)),
        launch="\n\n".join(
            each.text for each in launch.of_scenario(scenarios, 0, at.subjects.models)
        ),
        basis=basis,
    )


def _curves(
    layouts: Sequence[WhatIf], loads: Sequence[int], found: Sequence[Outcome]
) -> tuple[Curve, ...]:
    curves = []
    for number, layout in enumerate(layouts):
        part = found[number * len(loads) : (number + 1) * len(loads)]
        points = (CurvePoint(load, each) for load, each in zip(loads, part, strict=True))
        curves.append(Curve(layout_name(layout), layout, tuple(points)))
    return tuple(curves)


def _loads(query: WhatIf) -> list[int]:
    """Concurrencies of a curve: powers of two around the asked one, and that one."""
    most = max(64, min(_LOAD[-1], 8 * query.concurrency))
    return sorted({*(load for load in _LOAD if load <= most), query.concurrency})


def _layouts(query: WhatIf, at: Pairing) -> list[WhatIf]:
    """The asked layout, then other ways to spread the model over as many GPUs."""
    found = [query]
    if query.mode == "disagg":
        return found
    for tp in _SHARDS:
        other = query.model_copy(update={"tp": tp, "ep": tp if query.ep > 1 else 1})
        is_whole = query.gpus % other.devices_per_copy == 0
        in_node = tp <= at.device.devices_per_node
        if tp != query.tp and is_whole and in_node and not impossible(other, at):
            found.append(other)
    return found[:_MOST_LAYOUTS]


def pareto(latencies: Sequence[float], throughputs: Sequence[float]) -> list[bool]:
    """Which points no other point beats: none is as quick with more throughput."""
    order = sorted(range(len(latencies)), key=lambda each: (latencies[each], -throughputs[each]))
    best, on_front = 0.0, [False] * len(latencies)
    for index in order:
        # What differs by rounding only is no more.
        if throughputs[index] > best + abs(best) * 1e-9:
            best, on_front[index] = throughputs[index], True
    return on_front


def _notes(query: WhatIf, at: Pairing, outcome: Outcome) -> Iterable[str]:
    model, device = at.architecture, at.device
    reason = impossible(query, at)
    if reason:
        yield f"No engine would start this: {reason}. The numbers show what it would do if it ran."
    if model.max_context and query.isl + query.osl > model.max_context:
        yield (
            f"Input and output are {query.isl + query.osl:,} tokens; {at.model_name} was made for "
            f"{model.max_context:,}."
        )
    per_node = device.devices_per_node
    if query.mode == "agg" and query.tp > per_node:
        yield (
            f"TP {query.tp} spans several nodes: {device.name} has {per_node} to a node, and the "
            "network between nodes is far slower."
        )
    if outcome.fits and query.concurrency > outcome.most_concurrency:
        yield (
            f"The KV cache holds {outcome.most_concurrency:,} requests at once; the other "
            f"{query.concurrency - outcome.most_concurrency:,} wait, which the TTFT includes."
        )
    if query.mode == "agg" and query.concurrency < query.replicas:
        yield (
            f"{query.concurrency:,} requests in flight keep only {query.concurrency:,} of the "
            f"{query.replicas:,} copies busy."
        )


def _remedies(query: WhatIf, at: Pairing) -> list[str]:
    """What would fit instead: more devices for a copy, smaller weights, another device."""
    tried = [(name, each, at) for name, each in (*_wider(query), *_smaller(query))]
    tried += [(f"the same on {other.device.name}", query, other) for other in _bigger(at)]
    tried = [(name, each, where) for name, each, where in tried if not impossible(each, where)]
    found = outcomes([each for _, each, _ in tried], [where for _, _, where in tried])
    fitting = [name for (name, _, _), each in zip(tried, found, strict=True) if each.fits]
    # The first, least one of each kind says it all.
    kinds: dict[str, str] = {}
    for name in fitting:
        kinds.setdefault(name.split(" ")[0], name)
    return list(kinds.values())


def _wider(query: WhatIf) -> Iterable[tuple[str, WhatIf]]:
    if query.mode == "disagg":
        for factor in (2, 4, 8):
            prefill_tp, decode_tp = factor * query.prefill_tp, factor * query.decode_tp
            wider = {"prefill_tp": prefill_tp, "decode_tp": decode_tp}
            yield (
                f"TP {prefill_tp} for prefill and {decode_tp} for decode",
                query.model_copy(update=wider),
            )
        return
    for shards in _SHARDS:
        if shards > query.tp:
            devices = shards * query.pp
            wider = {"tp": shards, "gpus": devices}
            yield f"TP {shards} ({devices} GPUs a copy)", query.model_copy(update=wider)


def _smaller(query: WhatIf) -> Iterable[tuple[str, WhatIf]]:
    for precision in ("fp8", "int4", "fp4"):
        smaller = query.model_copy(update={"precision": precision})
        yield f"{precision.upper()} weights on the same GPUs", smaller


def _bigger(at: Pairing) -> list[Pairing]:
    """Devices of the same kind with more memory, the smallest first."""
    devices = at.subjects.systems.accelerators
    bigger = [
        index
        for index, device in enumerate(devices)
        if device.kind == at.device.kind and device.memory_gb > at.device.memory_gb
    ]
    bigger.sort(key=lambda index: devices[index].memory_gb)
    return [replace(at, system=index) for index in bigger]
