"""What the search chooses from: models, machines, engines and their settings, and the load."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from core.hardware.schemas import Price
from core.kernel.errors import InvalidInput, NotFound
from core.simulation.scenarios import ENGINES, MODES, PRECISIONS

# Among the precisions of a space: what the checkpoint itself is stored in.
NATIVE = ""
_MOST_OPTIONS = 512
_MOST_TOKENS = 10_000_000
_MOST_CONCURRENCY = 1_000_000
_MOST_DEVICES = 1_000_000


@dataclass(frozen=True, slots=True)
class Load:
    """The requests to serve.

    Attributes:
        isl: Mean input tokens of a request.
        osl: Mean output tokens.
        concurrency: Requests in flight over the whole deployment.
        prefix_hit_share: Share of the input that prefix caching finds, where it is on; 0 to 1.
    """

    isl: int
    osl: int
    concurrency: int
    prefix_hit_share: float = 0.0

    def __post_init__(self) -> None:
        _check_range("input tokens", self.isl, 1, _MOST_TOKENS)
        _check_range("output tokens", self.osl, 1, _MOST_TOKENS)
        _check_range("concurrency", self.concurrency, 1, _MOST_CONCURRENCY)
        _check_range("prefix hit share", self.prefix_hit_share, 0, 1)


@dataclass(frozen=True, slots=True)
class Machine:
    """Devices that can be had: a cloud instance, rented whole, or single devices of one's own.

    Attributes:
        system: The accelerator's id.
        devices: What one instance holds; None for one's own, which are paid for one by one.
        usd_per_device_hour: None is unknown, which is never taken for free.
        max_devices: At most so many of them; None leaves it to the space.
    """

    system: str
    devices: int | None = None
    usd_per_device_hour: float | None = None
    cloud: str = ""
    region: str = ""
    instance: str = ""
    max_devices: int | None = None

    def __post_init__(self) -> None:
        _check_range("devices of an instance", self.devices, 1, _MOST_DEVICES)
        _check_range("price of a device hour", self.usd_per_device_hour, 1e-6, 1e6)
        _check_range("most devices", self.max_devices, 1, _MOST_DEVICES)

    @classmethod
    def of_price(cls, price: Price) -> Machine:
        """What `core.hardware` knows a price of."""
        return cls(
            system=price.accelerator_id,
            devices=price.devices if price.instance else None,
            # A price that was set to 0 says as little as none.
            usd_per_device_hour=price.usd_per_device_hour or None,
            cloud=price.cloud,
            region=price.region,
            instance=price.instance,
        )


@dataclass(frozen=True, slots=True)
class Space:
    """The options of each choice, the preferred one first: of equals, that one is shown.

    Attributes:
        models: Ids of the predictor's models.
        machines: Where they may run.
        forbidden_models: Those of `models` whose licence does not allow the use.
        precisions: Of the weights; NATIVE is the checkpoint's own.
        modes: `agg`, `disagg` (prefill and decode on different devices), or both.
        tp: Devices that share each layer of one copy of the model, when aggregated.
        pp: Pipeline stages, when aggregated.
        ep: Devices that an MoE layer's experts are spread over; divides the TP.
        dp: Ranks of data-parallel attention among the TP devices; divides the TP. When
            disaggregated, `ep` and `dp` are those of both sides, at most the TP of each.
        replicas: Independent copies of the model, when aggregated.
        prefill_workers: Disaggregated: workers that read prompts, each of `prefill_tp` devices.
        decode_workers: Disaggregated: workers that generate, each of `decode_tp` devices.
        max_sequences: Most sequences of one copy in a step (`max-num-seqs`).
        chunk_tokens: Most tokens of one step (`max-num-batched-tokens`).
        block_tokens: Tokens of a block of the KV cache.
        chunked_prefill: Whether a prompt may be split over steps.
        prefix_caching: Whether what an earlier prompt began with is kept.
        max_devices: Most devices of the whole deployment.
    """

    models: tuple[str, ...]
    machines: tuple[Machine, ...]
    forbidden_models: frozenset[str] = frozenset()
    engines: tuple[str, ...] = ("vllm", "sglang", "trtllm")
    precisions: tuple[str, ...] = (NATIVE, "bf16", "fp8", "fp4", "int4")
    modes: tuple[str, ...] = ("agg", "disagg")
    tp: tuple[int, ...] = (1, 2, 4, 8)
    pp: tuple[int, ...] = (1, 2)
    ep: tuple[int, ...] = (1, 2, 4, 8)
    dp: tuple[int, ...] = (1, 2, 4, 8)
    replicas: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    prefill_workers: tuple[int, ...] = (1, 2, 3, 4)
    prefill_tp: tuple[int, ...] = (1, 2, 4, 8)
    decode_workers: tuple[int, ...] = (1, 2, 3, 4)
    decode_tp: tuple[int, ...] = (1, 2, 4, 8)
    max_sequences: tuple[int, ...] = (256, 16, 32, 64, 128, 512, 1024)
    chunk_tokens: tuple[int, ...] = (8192, 2048, 4096, 16_384, 32_768)
    block_tokens: tuple[int, ...] = (16, 32, 64)
    chunked_prefill: tuple[bool, ...] = (True, False)
    prefix_caching: tuple[bool, ...] = (True, False)
    max_devices: int = 16

    def __post_init__(self) -> None:
        for gene in GENES:
            _check_options(_LABELS.get(gene, gene), self.options(gene))
        for gene in COUNTS:
            for value in self.options(gene):
                _check_range(_LABELS.get(gene, gene), value, 1, _MOST_DEVICES)
        _check_known("engine", self.engines, ENGINES)
        _check_known("precision", self.precisions, (NATIVE, *PRECISIONS))
        _check_known("mode", self.modes, MODES)
        _check_range("most devices", self.max_devices, 1, _MOST_DEVICES)

    def options(self, gene: str) -> tuple[Any, ...]:
        """The options of one of GENES."""
        found: tuple[Any, ...] = getattr(self, _FIELDS.get(gene, gene))
        return found


COUNTS = (
    *("tp", "pp", "ep", "dp", "replicas", "prefill_workers", "prefill_tp", "decode_workers"),
    *("decode_tp", "max_sequences", "chunk_tokens", "block_tokens"),
)
SWITCHES = ("chunked_prefill", "prefix_caching")
# Every choice. A genome holds the number of the option that is taken for each.
GENES = ("model", "machine", "engine", "precision", "mode", *COUNTS, *SWITCHES)
ONLY_AGGREGATED = ("tp", "pp", "replicas")
ONLY_DISAGGREGATED = ("prefill_workers", "prefill_tp", "decode_workers", "decode_tp")
_FIELDS = {gene: f"{gene}s" for gene in ("model", "machine", "engine", "precision", "mode")}
_LABELS = {"chunk_tokens": "max-num-batched-tokens", "max_sequences": "max-num-seqs"}


def _check_options(label: str, options: Sequence[object]) -> None:
    if not 1 <= len(options) <= _MOST_OPTIONS or len(set(options)) < len(options):
        raise InvalidInput(
            f"The options for {label} must be 1 to {_MOST_OPTIONS} different ones.",
            value=len(options),
            remedy="Give at least one option, and each once.",
        )


def _check_range(label: str, value: float | None, least: float, most: float) -> None:
    if value is not None and not least <= value <= most:
        raise InvalidInput(
            f"{label[0].upper()}{label[1:]} must be between {least:,g} and {most:,g}.",
            value=value,
            remedy="Check the figure and its unit.",
        )


def _check_known(kind: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise NotFound(
                f"There is no {kind} {name[:60]!r}.",
                remedy=f"The nearest is {near[0]}; there are {', '.join(filter(None, known))}.",
            )
