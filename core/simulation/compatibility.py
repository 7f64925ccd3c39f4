"""Which engine runs on which hardware, in which precision, and with what kinds of parallelism.

As the engines' documentation states it: vLLM (features/quantization, supported hardware), SGLang
(hardware platforms), TensorRT-LLM (supported hardware, support matrix), ATOM (ROCm/ATOM README),
llama.cpp (README, supported backends), DeepSpeed (FastGen). What a page does not list is taken as
not supported, so that the search proposes nothing that may not start.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.hardware.schemas import Accelerator

_NVIDIA = frozenset({"volta", "turing", "ampere", "ada", "hopper", "blackwell"})
_NVIDIA_SINCE_AMPERE = _NVIDIA - {"volta", "turing"}
_AMD = frozenset({"cdna2", "cdna3", "cdna4"})
_GAUDI = frozenset({"gaudi2", "gaudi3"})
_CPU = frozenset({"x86", "arm"})
_ALL = frozenset({"bf16", "fp8", "fp4", "int4", "int8"})


@dataclass(frozen=True)
class Engine:
    """What an engine can do.

    Attributes:
        families: Hardware families, as `Accelerator.family` names them.
        precisions: Of the weights.
        pipeline: Pipeline parallelism.
        experts: Expert parallelism and attention data parallelism.
        disaggregation: Prefill and decode on different devices.
        prefix_caching: Cached prefixes shared by requests.
        whole_prompts: Chunked prefill can be turned off.
    """

    families: frozenset[str]
    precisions: frozenset[str]
    pipeline: bool = False
    experts: bool = False
    disaggregation: bool = False
    prefix_caching: bool = True
    whole_prompts: bool = True


CAPABILITIES = {
    "vllm": Engine(
        _NVIDIA | _AMD | _GAUDI | _CPU | {"pvc", "tpu"},
        _ALL,
        pipeline=True,
        experts=True,
        disaggregation=True,
    ),
    "sglang": Engine(
        _NVIDIA_SINCE_AMPERE | {"cdna3", "cdna4", "x86", "tpu"},
        _ALL,
        pipeline=True,
        experts=True,
        disaggregation=True,
    ),
    "trtllm": Engine(_NVIDIA_SINCE_AMPERE, _ALL, pipeline=True, experts=True, disaggregation=True),
    "atom": Engine(
        frozenset({"cdna3", "cdna4"}),
        frozenset({"bf16", "fp8", "fp4"}),
        experts=True,
        disaggregation=True,
    ),
    "llama.cpp": Engine(
        _NVIDIA | _AMD | _CPU | {"pascal", "pvc"},
        frozenset({"bf16", "int8", "int4", "fp4"}),
        pipeline=True,
        whole_prompts=False,
    ),
    "deepspeed": Engine(
        _NVIDIA | _AMD | _GAUDI | {"pvc"}, frozenset({"bf16"}), prefix_caching=False
    ),
    "sambaflow": Engine(frozenset({"rdu"}), frozenset({"bf16"}), prefix_caching=False),
}

# Kernels for weights of 4 and 8 bits exist for these; elsewhere only the 16-bit ones run.
_INT4 = _NVIDIA | _CPU | {"pvc"}
_INT8 = (_NVIDIA - {"volta"}) | _CPU | {"tpu"}


def runs_on(engine: str, device: Accelerator) -> bool:
    """Whether the engine supports the device at all."""
    return device.family in CAPABILITIES[engine].families


def has_precision(engine: str, device: Accelerator, precision: str, *, native: str) -> bool:
    """Whether the engine serves weights of this precision on this device.

    FP8 needs a device that computes in FP8. FP4 needs one that computes in FP4, unless the
    checkpoint is published in it (`native`; gpt-oss is): such weights are widened as they are read.
    """
    is_native = precision == native
    if precision not in CAPABILITIES[engine].precisions:
        return False
    if engine == "llama.cpp":
        # It brings kernels of its own for every backend; FP4 is that of published checkpoints.
        return precision != "fp4" or is_native
    if precision == "fp8":
        return bool(device.fp8_tflops)
    if precision == "fp4":
        return bool(device.fp4_tflops) or (is_native and device.kind == "gpu")
    kernels = {"int4": _INT4, "int8": _INT8}.get(precision)
    return kernels is None or device.family in kernels
