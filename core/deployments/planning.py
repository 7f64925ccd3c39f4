"""Chooses context, slots and threads from the machine, and says what memory they take.

Memory of a llama.cpp server = weights + KV cache + buffers. KV cache bytes for each token =
layers × KV heads × (key length + value length) × 2 bytes (F16). The buffers are those of one
micro-batch of 512 tokens: its logits (vocabulary × 4 bytes) and about 16 activations of the
model's width, beside 120 MB of the process itself (measured: 95 MB with the starter model).
"""

from __future__ import annotations

from core.clusters.schemas import MachineView
from core.deployments.schemas import DeploymentRequest, Fit
from core.kernel.errors import InvalidInput, NoCapacity
from core.registry.schemas import ModelView

MICRO_BATCH_TOKENS = 512
PROCESS_BYTES = 120_000_000
_KV_BYTES_PER_ELEMENT = 2
_DEFAULT_CONTEXT_TOKENS = 4096
_MIN_CONTEXT_TOKENS = 256
_MAX_SLOTS = 64
_MAX_REPLICAS = 32


def plan(request: DeploymentRequest, model: ModelView, machine: MachineView, reserved: int) -> Fit:
    """What `request` becomes on `machine`, of whose free memory `reserved` bytes are promised.

    Without a stated context the largest is taken, up to 4096 tokens, that fits.

    Raises:
        InvalidInput: A number is out of its range; says the range.
    """
    trained = model.context_tokens or _DEFAULT_CONTEXT_TOKENS
    slots = _within("slots", request.slots, min(2 * machine.cores, 8), 1, _MAX_SLOTS)
    # Two OpenMP threads on two busy cores were four times slower than one: one core stays free.
    threads = _within("threads", request.threads, max(machine.cores - 1, 1), 1, machine.cores)
    replicas = _within("replicas", request.replicas, 1, 1, _MAX_REPLICAS)
    if request.context_tokens is not None:
        tokens = _within("context", request.context_tokens, 0, _MIN_CONTEXT_TOKENS, trained)
        return _fit(model, machine, reserved, tokens, slots, threads, replicas)
    tokens = min(trained, _DEFAULT_CONTEXT_TOKENS)
    made = _fit(model, machine, reserved, tokens, slots, threads, replicas)
    while not made.fits and tokens > _MIN_CONTEXT_TOKENS * 2:
        tokens //= 2
        made = _fit(model, machine, reserved, tokens, slots, threads, replicas)
    return made


def require_fit(fit: Fit) -> None:
    """Raise NoCapacity, with the numbers and the nearest fit, when it does not fit."""
    if not fit.fits:
        raise NoCapacity(fit.problem, remedy=fit.remedy)


def kv_bytes_per_token(model: ModelView) -> int:
    """KV cache bytes for each token of context."""
    lengths = (model.key_length or 0) + (model.value_length or 0)
    return (model.layers or 0) * (model.kv_heads or 0) * lengths * _KV_BYTES_PER_ELEMENT


def _fit(
    model: ModelView,
    machine: MachineView,
    reserved: int,
    context_tokens: int,
    slots: int,
    threads: int,
    replicas: int,
) -> Fit:
    widths = (model.vocabulary or 0) + 16 * (model.embedding_length or 0)
    weights = model.size_bytes or 0
    cache = kv_bytes_per_token(model) * context_tokens * slots
    compute = MICRO_BATCH_TOKENS * widths * 4
    needed = (weights + cache + compute + PROCESS_BYTES) * replicas
    free = max(machine.memory_available_bytes - reserved, 0)
    for_cache = free // replicas - weights - compute - PROCESS_BYTES
    tokens = for_cache // max(kv_bytes_per_token(model) * slots, 1)
    largest = min(tokens, model.context_tokens or tokens)
    fit = Fit(
        fits=needed <= free,
        context_tokens=context_tokens,
        slots=slots,
        threads=threads,
        replicas=replicas,
        weights_bytes=weights,
        kv_cache_bytes=cache,
        compute_bytes=compute,
        overhead_bytes=PROCESS_BYTES,
        needed_bytes=needed,
        free_bytes=free,
        reserved_bytes=reserved,
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
