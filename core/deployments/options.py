"""Ways to run a model on the clusters that exist, predicted and ranked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import get_args

from core.clusters import services as clusters
from core.clusters.schemas import ClusterView
from core.contracts.route_table import Capability
from core.deployments import planning, predictions, services
from core.deployments.predictions import Predicted, Setup
from core.deployments.schemas import DeploymentRequest, DraftContent, Fit, Load, Task
from core.kernel.actor import Actor
from core.kernel.errors import BudError, InvalidInput
from core.prices import services as prices
from core.registry import versions
from core.registry.schemas import ModelView
from core.simulation import costs
from core.simulation.schemas import Value

_SLOTS = (1, 2, 4, 8, 16, 32, 64)
_REPLICAS = (1, 2)
_CONTEXT_STEP_TOKENS = 256
# Speeds that differ by less are not told apart.
_SAME_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Option:
    """One way to run a model on one cluster.

    Attributes:
        cluster_id: Where.
        cluster_name: The same, for people.
        strengths: What it is best at among the cluster's options, such as "most tokens/s".
        fit: What it becomes there, and its memory; None when it was not planned at all.
        predicted: None when it cannot be predicted; `note` then says why.
        misses: The targets that it does not meet.
        usd_per_hour: Of the machine; None where no price is set.
        ruled_out: Why it cannot run there; empty when it can.
        note: What else to know of it.
    """

    cluster_id: str
    cluster_name: str
    strengths: tuple[str, ...] = ()
    fit: Fit | None = None
    predicted: Predicted | None = None
    misses: tuple[str, ...] = ()
    usd_per_hour: float | None = None
    ruled_out: str = ""
    note: str = ""

    @property
    def usd_per_million_output_tokens(self) -> Value | None:
        """At the predicted load; None without a price or a prediction."""
        if self.predicted is None:
            return None
        return costs.per_million_band(self.usd_per_hour, self.predicted.tokens_per_s)


def request_of(project_id: str, content: DraftContent) -> DeploymentRequest:
    """What a draft asks for."""
    names = {"name", "model_id", "model_version_id", "task", "context_tokens", "slots", "threads"}
    return DeploymentRequest(
        project_id=project_id, **content.model_dump(include=names | {"replicas"})
    )


def capabilities(project_id: str, content: DraftContent, model: ModelView) -> list[Capability]:
    """What callers can ask of a draft's deployment of `model`, once it is there."""
    return planning.capabilities(task_of(project_id, content, model), model)


def tasks(model: ModelView) -> list[Task]:
    """What a deployment of `model` can be for; its server does one of them."""
    able = set(model.capabilities)
    return [task for task in get_args(Task) if able & set(planning.CAPABILITIES[task])]


def task_of(project_id: str, content: DraftContent, model: ModelView) -> Task:
    """What a draft's deployment of `model` is for."""
    return planning.task_of(request_of(project_id, content), model)


def evaluate(actor: Actor, project_id: str, content: DraftContent) -> Option:
    """What a draft's own configuration does.

    Raises:
        InvalidInput: A number out of its range.
    """
    predictions.check_load(content.load)
    cluster = clusters.get_cluster(actor, content.cluster_id or clusters.THIS_MACHINE)
    fit = services.check_fit(actor, request_of(project_id, content))
    return _predicted(actor, cluster, project_id, content, [fit])[0]


def ranked(actor: Actor, project_id: str, content: DraftContent) -> list[Option]:
    """The best ways to run the draft's model under its load, best first, then what is ruled out.

    Raises:
        InvalidInput: A load out of range.
    """
    predictions.check_load(content.load)
    found = [
        option
        for cluster in clusters.list_clusters(actor)
        for option in _on(actor, cluster, project_id, content)
    ]
    return sorted(found, key=_rank)


def _rank(option: Option) -> tuple[bool, int, float, int]:
    speed = option.predicted.tokens_per_s.mean if option.predicted else 0.0
    return bool(option.ruled_out), len(option.misses), -speed, _needed_bytes(option)


def _on(actor: Actor, cluster: ClusterView, project_id: str, content: DraftContent) -> list[Option]:
    try:
        fits = list(_plans(actor, project_id, content))
    except BudError as error:
        return [Option(cluster.id, cluster.name, ruled_out=f"{error.what} {error.remedy}")]
    fitting = [fit for fit in fits if fit.fits]
    if not fitting:
        least = min(fits, key=lambda fit: fit.needed_bytes)
        reason = f"{least.problem} {least.remedy}"
        return [Option(cluster.id, cluster.name, fit=least, ruled_out=reason)]
    return _distinct(_predicted(actor, cluster, project_id, content, fitting))


def _plans(actor: Actor, project_id: str, content: DraftContent) -> Iterable[Fit]:
    request = request_of(project_id, content).model_copy(update={"context_tokens": None})
    machine = clusters.this_machine()
    model = versions.pinned(actor, content.model_id, content.model_version_id)
    task = task_of(project_id, content, model)
    embeds = task in planning.POOLED
    _require_room(content.load, task, model)
    least_tokens = _least_context_tokens(content.load, task)
    if model.context_tokens:
        least_tokens = min(least_tokens, model.context_tokens)
    cores = max(machine.physical_cores, 1)
    enough = next((slots for slots in _SLOTS if slots >= content.load.concurrency), _SLOTS[-1])
    for replicas, slots in itertools.product(_REPLICAS, _SLOTS):
        if slots > enough or replicas > cores or (replicas > 1 and embeds):
            continue
        for threads in sorted({1, max((cores - 1) // replicas, 1), max(cores // replicas, 1)}):
            update = {"replicas": replicas, "slots": slots, "threads": threads}
            asked = request.model_copy(update=update)
            fit = services.check_fit(actor, asked)
            if fit.context_tokens < least_tokens:
                update["context_tokens"] = least_tokens
                fit = services.check_fit(actor, asked.model_copy(update=update))
            yield fit


def _request_tokens(load: Load, task: Task) -> int:
    """What a request takes of the context; a text that is embedded or ranked has none out."""
    return load.isl + (0 if task in planning.POOLED else load.osl)


def _require_room(load: Load, task: Task, model: ModelView) -> None:
    """Raises InvalidInput: a request is longer than all that the model was trained for."""
    most, tokens = model.context_tokens, _request_tokens(load, task)
    if not most or tokens <= most:
        return
    pooled = task in planning.POOLED
    given = f"{load.isl:,} input tokens" + ("" if pooled else f" and {load.osl:,} output tokens")
    raise InvalidInput(
        f"{given} need a context of {tokens:,} tokens; {model.name} was trained for {most:,}.",
        remedy=f"Go back to the step Targets and lower {'Tokens of a text' if pooled else 'them'} "
        f"to {most:,}{'' if pooled else ' together'} at most.",
    )


def _least_context_tokens(load: Load, task: Task) -> int:
    """Room for one request and half as much again, for those that are longer than the mean."""
    wanted = 1.5 * _request_tokens(load, task)
    return max(int(-(-wanted // _CONTEXT_STEP_TOKENS)), 1) * _CONTEXT_STEP_TOKENS


def _predicted(
    actor: Actor, cluster: ClusterView, project_id: str, content: DraftContent, fits: list[Fit]
) -> list[Option]:
    price = prices.machine_price(actor, cluster.id)
    usd_per_hour = price.usd_per_hour if price else None
    note = ""
    found: list[Predicted | None] = [None] * len(fits)
    model = versions.pinned(actor, content.model_id, content.model_version_id)
    task = task_of(project_id, content, model)
    try:
        # Texts that are embedded or ranked have no tokens out, whose times are predicted.
        if task not in planning.POOLED:
            asked = [(Setup.of(fit), content.load) for fit in fits]
            found = [*predictions.predict(actor, model, asked)]
    except BudError as error:
        note = f"It cannot be predicted: {error.what}"
    return [
        Option(
            cluster.id,
            cluster.name,
            fit=fit,
            predicted=predicted,
            misses=_misses(content, predicted),
            usd_per_hour=usd_per_hour,
            ruled_out="" if fit.fits else f"{fit.problem} {fit.remedy}",
            note=note or _too_long(_request_tokens(content.load, task), fit),
        )
        for fit, predicted in zip(fits, found, strict=True)
    ]


def _too_long(tokens: int, fit: Fit) -> str:
    if tokens <= fit.context_tokens:
        return ""
    return (
        f"A request of {tokens:,} tokens does not fit in a context of {fit.context_tokens:,}: "
        "it is refused or cut short."
    )


def _misses(content: DraftContent, predicted: Predicted | None) -> tuple[str, ...]:
    if predicted is None:
        return ()
    targets = (
        ("TTFT", content.ttft_ms, predicted.ttft_ms.mean),
        ("TPOT", content.tpot_ms, predicted.tpot_ms.mean),
    )
    return tuple(name for name, most, found in targets if most is not None and found > most)


def _needed_bytes(option: Option) -> int:
    return option.fit.needed_bytes if option.fit else 0


def _mean(read: Callable[[Predicted], Value]) -> Callable[[Option], float]:
    return lambda option: read(option.predicted).mean if option.predicted else 0.0


_LEAST_MEMORY = "least memory"
# What an option may be best at: the least of a number.
_STRENGTHS: dict[str, Callable[[Option], float]] = {
    "most tokens/s": _mean(lambda predicted: predicted.e2e_ms),
    "quickest first token": _mean(lambda predicted: predicted.ttft_ms),
    "quickest tokens": _mean(lambda predicted: predicted.tpot_ms),
    _LEAST_MEMORY: _needed_bytes,
}


def _distinct(options: list[Option]) -> list[Option]:
    """The best option of all and those that are best at something; each once."""
    found: dict[int, list[str]] = {options.index(min(options, key=_rank)): []}
    is_predicted = all(option.predicted for option in options)
    for strength, score in _STRENGTHS.items():
        if strength != _LEAST_MEMORY and not is_predicted:
            continue
        scores = [score(option) for option in options]
        limit = min(scores) + _SAME_SHARE * abs(min(scores))
        same = [at for at, each in enumerate(scores) if each <= limit]
        best = min(same, key=lambda at: _needed_bytes(options[at]))
        found.setdefault(best, []).append(strength)
    return [replace(options[at], strengths=tuple(named)) for at, named in found.items()]
