"""What may be asked: a question is checked before anything is predicted."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from core.hardware.schemas import Accelerator
from core.kernel.errors import InvalidInput
from core.simulation import compatibility
from core.simulation.architectures import Architecture
from core.simulation.costs import Rates
from core.simulation.scenarios import ENGINES, PRECISIONS, native_precision
from core.simulation.schemas import WhatIf
from core.simulation.subjects import Subjects

ENGINE_NAMES = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "trtllm": "TensorRT-LLM",
    "atom": "ATOM",
    "llama.cpp": "llama.cpp",
    "deepspeed": "DeepSpeed",
    "sambaflow": "SambaFlow",
}
KV_PRECISIONS = ("auto", "bf16", "fp8")
SPECULATIONS = ("none", "mtp")
# What a figure may be: beyond any deployment there is, to catch a wrong unit or a slip.
_RANGES: dict[str, tuple[float, float, str]] = {
    "gpus": (1, 100_000, "GPUs"),
    "tp": (1, 1024, "devices"),
    "pp": (1, 64, "stages"),
    "ep": (1, 1024, "devices"),
    "dp": (1, 1024, "ranks"),
    "block_tokens": (1, 1024, "tokens"),
    "isl": (1, 10_000_000, "tokens"),
    "osl": (1, 10_000_000, "tokens"),
    "concurrency": (1, 1_000_000, "requests"),
    "prefix_hit_share": (0, 0.99, "of the input"),
    "chunk_tokens": (0, 1_000_000, "tokens"),
    "max_sequences": (0, 1_000_000, "sequences"),
    "prefill_workers": (1, 10_000, "workers"),
    "prefill_tp": (1, 1024, "devices"),
    "decode_workers": (1, 10_000, "workers"),
    "decode_tp": (1, 1024, "devices"),
    "usd_per_gpu_hour": (0, 10_000, "USD"),
}
_LABELS = {
    "gpus": "The number of GPUs",
    "tp": "Tensor parallel",
    "pp": "Pipeline parallel",
    "ep": "Expert parallel",
    "dp": "Data-parallel attention",
    "block_tokens": "A block of the KV cache",
    "isl": "Input tokens",
    "osl": "Output tokens",
    "concurrency": "Concurrency",
    "prefix_hit_share": "The share of prefix hits",
    "chunk_tokens": "Tokens of a step",
    "max_sequences": "Sequences of a step",
    "prefill_workers": "Prefill workers",
    "prefill_tp": "Tensor parallel of prefill",
    "decode_workers": "Decode workers",
    "decode_tp": "Tensor parallel of decode",
    "usd_per_gpu_hour": "The price of a GPU hour",
}


@dataclass(frozen=True)
class Pairing:
    """A model on a device, by their rows in the tables, and what may be paid for the device."""

    subjects: Subjects
    model: int
    system: int
    rates: Rates

    @property
    def architecture(self) -> Architecture:
        """The model."""
        return self.subjects.models.architectures[self.model]

    @property
    def device(self) -> Accelerator:
        """The device, as the hardware catalogue knows it."""
        return self.subjects.systems.accelerators[self.system]

    @property
    def model_name(self) -> str:
        """What people call the model."""
        named = (each.name for each in self.subjects.model_subjects if each.index == self.model)
        return next(named, self.architecture.id)


def check(query: WhatIf) -> None:
    """Refuse what can only be a slip.

    Raises:
        InvalidInput: A figure out of range, an unknown engine or precision (with the nearest), or
            a number of GPUs that the copies of the model cannot share.
    """
    for name, (least, most, unit) in _RANGES.items():
        value = getattr(query, name)
        if not least <= value <= most:
            raise InvalidInput(
                f"{_LABELS[name]} is {value:,}: it must be {least:,} to {most:,} {unit}.",
                remedy="Check the figure and its unit.",
            )
    _check_choice("engine", query.engine, ENGINES)
    _check_choice("precision", query.precision, ("", *PRECISIONS))
    _check_choice("precision of the KV cache", query.kv_precision, KV_PRECISIONS)
    _check_choice("speculative decoding", query.speculation, SPECULATIONS)
    if query.mode == "agg" and query.gpus % query.devices_per_copy:
        per_copy = query.devices_per_copy
        below = query.gpus - query.gpus % per_copy
        choices = f"{below} or {below + per_copy}" if below else f"{per_copy}"
        raise InvalidInput(
            f"One copy of the model takes {per_copy} GPUs (TP {query.tp} × PP {query.pp}), and "
            f"{query.gpus} cannot be shared out among whole copies.",
            remedy=f"Choose {choices} GPUs, or another TP.",
        )


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value in choices:
        return
    near = difflib.get_close_matches(value, [each for each in choices if each], 3, 0.0)
    raise InvalidInput(
        f"There is no {name} {value[:60]!r}.", remedy=f"The nearest are {', '.join(near)}."
    )


def from_link(parameters: Mapping[str, str]) -> WhatIf:
    """The question that a link carries; other parameters of the link are left alone.

    Raises:
        InvalidInput: A value that is not of its field's kind, such as `gpus=many`.
    """
    given = {name: text for name, text in parameters.items() if name in WhatIf.model_fields}
    try:
        return WhatIf.model_validate(given)
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise InvalidInput(
            f"The link's {name} cannot be read.",
            value=given[name][:60],
            remedy="Correct the link, or choose anew on the page.",
        ) from error


def to_link(query: WhatIf) -> dict[str, str]:
    """What a link carries of a question: everything that is not at its default."""
    return {name: str(value) for name, value in query.changes().items()}


def impossible(query: WhatIf, at: Pairing) -> str:
    """Why no engine would start this configuration; empty when one would."""
    return _unsupported(query, at) or _unsplittable(query, at.architecture)


def _unsupported(query: WhatIf, at: Pairing) -> str:
    device, can = at.device, compatibility.CAPABILITIES[query.engine]
    engine = ENGINE_NAMES[query.engine]
    if not compatibility.runs_on(query.engine, device):
        return f"{engine} does not support {device.name}"
    own = native_precision(at.architecture)
    precision = query.precision or own
    if not compatibility.has_precision(query.engine, device, precision, native=own):
        return f"{engine} does not serve {precision.upper()} weights on {device.name}"
    asked = (
        (query.mode == "disagg", can.disaggregation, "separate prefill and decode"),
        (query.pp > 1, can.pipeline, "pipeline parallelism"),
        (query.ep > 1, can.experts, "expert parallelism"),
        (query.dp > 1, can.experts, "data-parallel attention"),
        (query.prefix_hit_share > 0, can.prefix_caching, "prefix caching"),
    )
    missing = [what for wanted, able, what in asked if wanted and not able]
    return f"{engine} has no {missing[0]}" if missing else ""


def _unsplittable(query: WhatIf, model: Architecture) -> str:
    if query.dp > 1 and not (model.is_moe or model.is_mla):
        return "data-parallel attention is for models with experts or MLA"
    for name in ("tp",) if query.mode == "agg" else ("prefill_tp", "decode_tp"):
        tp = getattr(query, name)
        dp = min(query.dp, tp)
        if tp % dp:
            return f"{dp} ranks of data-parallel attention do not divide TP {tp}"
        if model.heads % (tp // dp):
            return f"{model.heads} attention heads cannot be split over {tp // dp} devices"
    if query.pp > model.layers:
        return f"{model.layers} layers cannot be split into {query.pp} stages"
    if query.ep > 1 and not model.is_moe:
        return "the model has no experts"
    if query.mode == "agg" and query.tp % query.ep:
        return f"EP {query.ep} must divide TP {query.tp}"
    return ""


def layout_name(query: WhatIf) -> str:
    """How the GPUs are shared out: `2 × TP 4`, `1 prefill (TP 2) + 2 decode (TP 4)`."""
    if query.mode == "disagg":
        return (
            f"{query.prefill_workers} prefill (TP {query.prefill_tp}) + "
            f"{query.decode_workers} decode (TP {query.decode_tp})"
        )
    copies = f"{query.replicas} × " if query.replicas > 1 else ""
    pipeline = f" × PP {query.pp}" if query.pp > 1 else ""
    return f"{copies}TP {query.tp}{pipeline}"
