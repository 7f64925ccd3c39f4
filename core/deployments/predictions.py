"""What a deployment will do, before it runs: the simulator's answer for a plan on a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from core.clusters import services as clusters
from core.deployments.schemas import DeploymentView, Fit, Load
from core.hardware import services as hardware
from core.hardware.schemas import Accelerator
from core.kernel import ranges
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput
from core.registry import versions
from core.registry.schemas import ModelView
from core.simulation import architectures, processor, trained_models
from core.simulation.architectures import Architecture
from core.simulation.predictor import Band, Predictor
from core.simulation.scenarios import ENGINES, ModelTable, SystemTable, from_columns
from core.simulation.schemas import Value

_RANGES = {
    "isl": ("Input tokens", 1, 1_000_000),
    "osl": ("Output tokens", 1, 1_000_000),
    "concurrency": ("Requests in flight", 1, 100_000),
    "prefix_hit_share": ("The share of prefix hits", 0, 1),
}


@dataclass(frozen=True, slots=True)
class Predicted:
    """Means under a load, with the bounds between which they lie in 80% of the cases."""

    load: Load
    ttft_ms: Value
    tpot_ms: Value

    @property
    def e2e_ms(self) -> Value:
        """Of a whole request."""
        after_first = max(0, self.load.osl - 1)
        pairs = zip(_bounds(self.ttft_ms), _bounds(self.tpot_ms), strict=True)
        return Value(*(ttft + tpot * after_first for ttft, tpot in pairs))

    @property
    def tokens_per_s(self) -> Value:
        """Output tokens of the whole deployment."""
        tokens = 1e3 * self.load.concurrency * self.load.osl
        mean, low, high = (tokens / e2e_ms for e2e_ms in _bounds(self.e2e_ms))
        return Value(mean, high, low)

    @property
    def requests_per_s(self) -> float:
        """Of the whole deployment."""
        return 1e3 * self.load.concurrency / self.e2e_ms.mean


def _bounds(value: Value) -> tuple[float, float, float]:
    return value.mean, value.low, value.high


@dataclass(frozen=True, slots=True)
class Setup:
    """How a model runs on a machine; `slots` and `threads` are of one replica."""

    slots: int
    threads: int
    replicas: int

    @staticmethod
    def of(plan: Fit) -> Setup:
        """The setup of a plan."""
        return Setup(plan.slots, plan.threads, plan.replicas)


def check_load(load: Load) -> None:
    """Refuse what can only be a slip. Raises InvalidInput with the range."""
    for name, (label, least, most) in _RANGES.items():
        ranges.require_within(label, getattr(load, name), least, most)


def of_deployment(actor: Actor, view: DeploymentView, loads: Sequence[Load]) -> list[Predicted]:
    """What a deployment as it is set up now does under each load, before any calibration."""
    setup = Setup(view.slots, view.threads, max(1, view.desired_replicas))
    model = versions.pinned(actor, view.model_id, view.model_version_id)
    return predict(actor, model, [(setup, load) for load in loads])


def predict(actor: Actor, model: ModelView, asked: Sequence[tuple[Setup, Load]]) -> list[Predicted]:
    """What each setup on this machine does under its load, in one batch.

    Args:
        actor: Who asks.
        model: As `versions.pinned` gives it.
        asked: Setups with their loads.

    Raises:
        InvalidInput: A load out of range, or a model whose architecture the simulator does not
            know.
    """
    for _, load in asked:
        check_load(load)
    if model.path is None:
        raise InvalidInput(f"{model.name} has no file yet.", remedy="Wait until it was added.")
    architecture = _architecture(model.path, model.sha256)
    machine, cores = hardware.this_machine(), clusters.this_machine().cores
    setups = list(dict.fromkeys(setup for setup, _ in asked))
    devices = tuple(_device(machine, cores, setup) for setup in setups)
    columns = {
        "model": 0,
        "system": [setups.index(setup) for setup, _ in asked],
        "engine": ENGINES.index("llama.cpp"),
        "replicas": [setup.replicas for setup, _ in asked],
        "max_sequences": [setup.slots for setup, _ in asked],
        "isl": [load.isl for _, load in asked],
        "osl": [load.osl for _, load in asked],
        "concurrency": [load.concurrency for _, load in asked],
        "prefix_hit_share": [min(load.prefix_hit_share, 0.99) for _, load in asked],
    }
    training_id = trained_models.in_use(actor.tenant_id)
    found = _predictor(architecture, devices, training_id).predict(from_columns(columns))
    waking_ms = [processor.waking_ms(architecture.layers, setup.threads) for setup, _ in asked]
    return [
        Predicted(
            load,
            _value(found.ttft_ms, row, waking_ms[row]),
            _value(found.tpot_ms, row, waking_ms[row]),
        )
        for row, (_, load) in enumerate(asked)
    ]


def _device(machine: Accelerator, cores: int, setup: Setup) -> Accelerator:
    """The share of the machine that one replica has while all of them work."""
    threads = max(1, min(setup.threads, cores // setup.replicas))
    device = processor.with_threads(machine, threads, cores)
    shared = machine.memory_bandwidth_gb_per_s / setup.replicas
    return replace(
        device,
        id=f"{machine.id}:{setup.slots}:{setup.threads}:{setup.replicas}",
        memory_bandwidth_gb_per_s=min(device.memory_bandwidth_gb_per_s, shared),
    )


@lru_cache(maxsize=64)
def _architecture(path: str, _sha256: str | None) -> Architecture:
    return architectures.read_file(Path(path))


@lru_cache(maxsize=32)
def _predictor(
    architecture: Architecture, devices: tuple[Accelerator, ...], training_id: str
) -> Predictor:
    trained = trained_models.trained(training_id)
    return Predictor(ModelTable([architecture]), SystemTable(devices), trained)


def _value(band: Band, row: int, more_ms: float) -> Value:
    bounds = (band.mean, band.low, band.high)
    return Value(*(float(each[row]) + more_ms for each in bounds))
