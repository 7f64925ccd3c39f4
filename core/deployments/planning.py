"""Chooses context, slots and threads from the machine, and says what memory they take.

What a server holds is reckoned in `core.simulation.memory`, as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.clusters.schemas import MachineView
from core.contracts.route_table import Capability
from core.deployments.schemas import DeploymentRequest, Fit, Task
from core.kernel.errors import InvalidInput, NoCapacity
from core.registry.schemas import ModelView
from core.simulation import memory
from core.simulation.memory import MICRO_BATCH_TOKENS, PROCESS_BYTES

_DEFAULT_CONTEXT_TOKENS = {"chat": 8192, "embedding": 2048, "rerank": 2048}
# A longer context than this is chosen only where its KV cache leaves room for other deployments.
_PLAIN_CONTEXT_TOKENS = 4096
_CACHE_SHARE_OF_FREE = 0.25
# What callers can ask of a deployment for each task.
CAPABILITIES: dict[Task, list[Capability]] = {
    "chat": ["chat", "completion"],
    "embedding": ["embedding"],
    "rerank": ["rerank"],
}
# A text is read whole, in one micro-batch, and none is written.
POOLED: frozenset[Task] = frozenset({"embedding", "rerank"})
_MIN_CONTEXT_TOKENS = 256
_MAX_SLOTS = 64
_MAX_REPLICAS = 32
# Left to the system: a machine without any free memory starts to swap or to kill.
_SYSTEM_BYTES = 256_000_000


@dataclass(frozen=True)
class _Shape:
    """How a deployment shall run."""

    task: Task
    context_tokens: int
    slots: int
    threads: int
    replicas: int


def task_of(request: DeploymentRequest, model: ModelView) -> Task:
    """The task asked for, else what the model is made for."""
    if request.task is not None:
        return request.task
    only = model.capabilities[0] if len(model.capabilities) == 1 else ""
    return next((task for task in POOLED if task == only), "chat")


def capabilities(task: Task, model: ModelView | None) -> list[Capability]:
    """What callers can ask of a deployment: of what its task is for, what its model can do.

    A model of which that is not known (None, or an entry without files) is taken at its task.
    """
    asked = CAPABILITIES[task]
    able = [each for each in asked if model is not None and each in model.capabilities]
    return able if model is not None and model.capabilities else asked


def plan(request: DeploymentRequest, model: ModelView, machine: MachineView, reserved: int) -> Fit:
    """What `request` becomes on `machine`, of whose free memory `reserved` bytes are promised.

    Without a stated context the largest is taken, up to 8192 tokens (2048 to embed), that fits;
    over 4096 only when its KV cache takes at most a quarter of the free memory.

    Raises:
        InvalidInput: A number is out of its range (says the range), or the model's file does
            not say what its memory depends on.
    """
    _require_metadata(model)
    task = task_of(request, model)
    default = _DEFAULT_CONTEXT_TOKENS[task]
    trained = model.context_tokens or default
    replicas = _within("replicas", request.replicas, 1, 1, _MAX_REPLICAS)
    # Two OpenMP threads on two busy cores were four times slower than one: one core stays free,
    # and the replicas share the others. Hyper-threads do not help matrix products.
    share = max((machine.physical_cores - 1) // replicas, 1)
    shape = _Shape(
        task=task,
        context_tokens=min(trained, default),
        slots=_within("slots", request.slots, min(2 * machine.cores, 8), 1, _MAX_SLOTS),
        threads=_within("threads", request.threads, share, 1, machine.cores),
        replicas=replicas,
    )
    if request.context_tokens is not None:
        tokens = _within("context", request.context_tokens, 0, _MIN_CONTEXT_TOKENS, trained)
        return _fit(model, machine, reserved, replace(shape, context_tokens=tokens))
    made = _fit(model, machine, reserved, shape)
    while _is_too_long(made) and shape.context_tokens > _MIN_CONTEXT_TOKENS * 2:
        shape = replace(shape, context_tokens=shape.context_tokens // 2)
        made = _fit(model, machine, reserved, shape)
    return made


def _is_too_long(fit: Fit) -> bool:
    cache_bytes = fit.kv_cache_bytes * fit.replicas
    is_greedy = cache_bytes > _CACHE_SHARE_OF_FREE * fit.free_bytes
    return not fit.fits or (is_greedy and fit.context_tokens > _PLAIN_CONTEXT_TOKENS)


def require_fit(fit: Fit) -> None:
    """Raise NoCapacity, with the numbers and the nearest fit, when it does not fit."""
    if not fit.fits:
        raise NoCapacity(fit.problem, remedy=fit.remedy)


def kv_bytes_per_token(model: ModelView) -> int:
    """KV cache bytes for each token of context."""
    lengths = (model.key_length or 0) + (model.value_length or 0)
    return memory.kv_bytes_per_token(model.layers or 0, model.kv_heads or 0, lengths)


def _require_metadata(model: ModelView) -> None:
    needed = {
        "size": model.size_bytes,
        "layers": model.layers,
        "KV heads": model.kv_heads,
        "key length": model.key_length,
        "value length": model.value_length,
        "width": model.embedding_length,
    }
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise InvalidInput(
            f"The file of {model.name} does not say its {', '.join(missing)}, so the memory it "
            "needs cannot be planned.",
            remedy="Use a model with attention layers whose GGUF file names them.",
        )


def _fit(model: ModelView, machine: MachineView, reserved: int, shape: _Shape) -> Fit:
    weights, cache_each = model.size_bytes or 0, kv_bytes_per_token(model) * shape.slots
    embeds = shape.task in POOLED
    buffers = memory.buffer_bytes_per_token(
        model.vocabulary or 0, model.embedding_length or 0, logits=2 if embeds else 1
    )
    compute = (shape.context_tokens if embeds else MICRO_BATCH_TOKENS) * buffers
    cache = cache_each * shape.context_tokens
    needed = (weights + cache + compute + PROCESS_BYTES) * shape.replicas
    free = max(machine.memory_available_bytes - reserved - _SYSTEM_BYTES, 0)
    # What grows with the context, and what does not.
    each = cache_each + (buffers if embeds else 0)
    fixed = weights + PROCESS_BYTES + (0 if embeds else compute)
    tokens = (free // shape.replicas - fixed) // each
    largest = min(tokens, model.context_tokens or tokens)
    fit = Fit(
        fits=needed <= free,
        context_tokens=shape.context_tokens,
        slots=shape.slots,
        threads=shape.threads,
        replicas=shape.replicas,
        weights_bytes=weights,
        kv_cache_bytes=cache,
        compute_bytes=compute,
        overhead_bytes=PROCESS_BYTES,
        needed_bytes=needed,
        free_bytes=free,
        reserved_bytes=max(reserved, 0),
        largest_context_tokens=largest if largest >= _MIN_CONTEXT_TOKENS else None,
    )
    return fit if fit.fits else fit.model_copy(update=_refusal(fit, model, machine))


def _refusal(fit: Fit, model: ModelView, machine: MachineView) -> dict[str, str]:
    problem = (
        f"{model.name} needs {_gb(fit.needed_bytes)} "
        f"({fit.replicas} × [{_gb(fit.weights_bytes)} weights + {_gb(fit.kv_cache_bytes)} "
        f"KV cache + {_gb(fit.compute_bytes + fit.overhead_bytes)} buffers]), "
        f"but {_gb(fit.free_bytes)} of {_gb(machine.memory_total_bytes)} are free."
    )
    if fit.reserved_bytes:
        problem += f" Other deployments were promised {_gb(fit.reserved_bytes)} more than they use."
    replicas = fit.free_bytes // fit.replica_bytes
    if replicas >= 1:
        remedy = f"{replicas} of {fit.replicas} replicas would fit; or stop another deployment."
    elif fit.largest_context_tokens is not None:
        remedy = f"A context of {fit.largest_context_tokens} tokens would fit, or fewer slots."
    else:
        remedy = "Stop another deployment, or choose a smaller model or quantisation."
    return {"problem": problem, "remedy": remedy}


def _within(what: str, given: int | None, default: int, low: int, high: int) -> int:
    value = default if given is None else given
    if not low <= value <= high:
        unit = " tokens (what the model was trained for)" if what == "context" else ""
        raise InvalidInput(
            f"The {what} must be between {low} and {high}{unit}.",
            value=value,
            remedy=f"Choose a number from {low} to {high}.",
        )
    return value


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
