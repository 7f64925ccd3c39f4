"""Which models meet some targets on given hardware: all of them, scored in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from core.simulation import what_if
from core.simulation.licences import Licence, of_model
from core.simulation.questions import Pairing, impossible
from core.simulation.scenarios import native_precision
from core.simulation.schemas import Candidate, Outcome, Targets, WhatIf

_SHARDS = (1, 2, 4, 8, 16, 32)


def choose(
    query: WhatIf,
    at: Pairing,
    targets: Targets,
    *,
    precisions: Sequence[str],
    uses: frozenset[str] | None,
    registered_licences: Mapping[str, str | None],
) -> list[Candidate]:
    """Every model in its best configuration on at most `query.gpus` devices.

    Args:
        query: The load, the engine and the most devices; its model and layout are not read.
        at: The device; its model is not read.
        targets: What must be met.
        precisions: Precisions that may be tried beside each checkpoint's own.
        uses: Licence classes to keep; None keeps every model, also of an unknown licence.
        registered_licences: Licences of the registry's models by id.

    Returns:
        Those that meet the targets first, the cheapest (or least devices, without a price) on
        top; then the others by how far they miss. Models that fit in no way are left out.
    """
    tried: list[tuple[WhatIf, Pairing, Licence]] = []
    for subject in at.subjects.model_subjects:
        licence = of_model(subject.id, registered_licences)
        if subject.index is None or (uses is not None and licence.use not in uses):
            continue
        here = replace(at, model=subject.index)
        options = _options(query.model_copy(update={"model": subject.id}), here, precisions)
        tried += [(each, here, licence) for each in options]
    found = what_if.outcomes([each for each, _, _ in tried], [here for _, here, _ in tried])
    best: dict[int, Candidate] = {}
    for (asked, here, licence), outcome in zip(tried, found, strict=True):
        if not outcome.fits:
            continue
        candidate = _candidate(asked, here, licence, outcome, targets)
        known = best.get(here.model)
        if known is None or _rank(candidate, targets) < _rank(known, targets):
            best[here.model] = candidate
    return sorted(best.values(), key=lambda each: _rank(each, targets))


def _options(query: WhatIf, at: Pairing, precisions: Sequence[str]) -> Iterable[WhatIf]:
    own = native_precision(at.architecture)
    per_node = at.device.devices_per_node
    for precision in ("", *(each for each in precisions if each != own)):
        for tp in _SHARDS:
            if tp > min(query.gpus, per_node):
                break
            for gpus in sorted({tp, query.gpus - query.gpus % tp}):
                update = {"tp": tp, "pp": 1, "ep": 1, "dp": 1, "gpus": gpus, "mode": "agg"}
                option = query.model_copy(update=update | {"precision": precision})
                if not impossible(option, at):
                    yield option


def _candidate(
    query: WhatIf, at: Pairing, licence: Licence, outcome: Outcome, targets: Targets
) -> Candidate:
    return Candidate(
        model=query.model,
        model_name=at.model_name,
        licence=licence.name,
        licence_class=licence.use,
        parameters=at.architecture.total_params,
        query=query,
        outcome=outcome,
        misses=tuple(name for name, ratio in _ratios(outcome, targets).items() if ratio > 1),
    )


def _ratios(outcome: Outcome, targets: Targets) -> dict[str, float]:
    """For each target how much of it is used up; over 1 misses it.

    A cost that is not known cannot be said to be low enough.
    """
    tokens_per_s = outcome.tokens_per_s_per_gpu.mean * outcome.devices
    usd = outcome.usd_per_million_output_tokens
    asked = {
        "TTFT": (targets.ttft_ms, outcome.ttft_ms.mean),
        "TPOT": (targets.tpot_ms, outcome.tpot_ms.mean),
        "cost": (
            targets.usd_per_million_output_tokens,
            float("inf") if usd is None else usd.mean,
        ),
    }
    ratios = {name: value / most for name, (most, value) in asked.items() if most is not None}
    if targets.tokens_per_s is not None:
        ratios["throughput"] = targets.tokens_per_s / tokens_per_s
    return ratios


def _rank(candidate: Candidate, targets: Targets) -> tuple[float, float, float]:
    outcome = candidate.outcome
    worst = max(_ratios(outcome, targets).values(), default=0.0)
    usd = outcome.usd_per_million_output_tokens
    price = float(outcome.devices) if usd is None else usd.mean
    return (max(worst, 1.0), price, outcome.tpot_ms.mean)
