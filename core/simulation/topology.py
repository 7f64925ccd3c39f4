"""Which configurations cannot run, whatever a predictor says of them.

Licence, engine, precision, how a model's heads, layers and experts divide, what a fast link
joins, and how many devices are allowed: all rules look at a whole population at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from core.kernel.errors import NotFound
from core.simulation import compatibility
from core.simulation.predictor import Booleans, Predictor
from core.simulation.scenarios import PRECISIONS, Floats, Ints
from core.simulation.space import Machine, Space

# A node of a rack is joined to the others by the fast link.
_NODE_DEVICES = 8

# In the order in which they are asked; a configuration counts for the first that applies.
REASONS: Mapping[str, str] = {
    "licence": "the model's licence does not allow it",
    "context": "input and output are longer than the model's context",
    "engine": "the engine does not support the hardware",
    "precision": "the engine or the hardware lacks the precision",
    "feature": "the engine lacks a feature, such as pipeline parallelism or disaggregation",
    "layers": "there are more pipeline stages than layers",
    "heads": "tensor parallelism does not divide the attention heads",
    "experts": "expert parallelism does not divide the devices or the experts",
    "attention": "data-parallel attention does not divide the devices, or needs MoE or MLA",
    "node": "tensor parallelism goes beyond the devices that a fast link joins",
    "devices": "more devices than are allowed",
    "whole prompts": "without chunked prefill a step must hold the longest request",
    "memory": "the weights and one request do not fit into memory",
    "KV cache": "the KV cache does not hold the requests that run at once",
    "no prediction": "the predictor has no answer",
}
NUMBER = {name: number for number, name in enumerate(REASONS, start=1)}


@dataclass(frozen=True)
class Population:
    """Configurations as columns, one entry each: counts, 0 or 1 for switches and for `mode`.

    `position` says of models, machines, engines and precisions which of the space's it is.
    """

    position: Mapping[str, Ints]
    value: Mapping[str, Floats]

    @property
    def is_split(self) -> Booleans:
        """Whether prefill and decode run on different devices."""
        return self.value["mode"] > 0

    @property
    def devices(self) -> Floats:
        """Devices of each deployment."""
        at = self.value
        split = at["prefill_workers"] * at["prefill_tp"] + at["decode_workers"] * at["decode_tp"]
        return np.where(self.is_split, split, at["tp"] * at["pp"] * at["replicas"])


class Topology:
    """What the rules look up of a space. Raises NotFound for an unknown model or system."""

    def __init__(self, space: Space, predictor: Predictor) -> None:
        models, systems = predictor.models, predictor.systems
        self.space = space
        self.model_rows = _rows(models.ids, space.models, "model")
        self.system_rows = _rows(
            systems.ids, tuple(each.system for each in space.machines), "hardware"
        )
        devices = [systems.accelerators[row] for row in self.system_rows]
        self._allowed = np.array([name not in space.forbidden_models for name in space.models])
        self._model = {name: column[self.model_rows] for name, column in models.columns.items()}
        self.instance_devices = np.array([float(each.devices or 1) for each in space.machines])
        self._max_devices = np.array(
            [
                min(each.max_devices or space.max_devices, space.max_devices)
                for each in space.machines
            ]
        )
        self._node_devices = np.array(
            [
                _node_devices(each, device.devices_per_node)
                for each, device in zip(space.machines, devices, strict=True)
            ]
        )
        self._engine = [compatibility.CAPABILITIES[name] for name in space.engines]
        self._runs_on = np.array(
            [
                [compatibility.runs_on(engine, device) for device in devices]
                for engine in space.engines
            ]
        )
        native = [PRECISIONS[int(index)] for index in self._model["native_precision"]]
        self._has_precision = np.array(
            [[[[compatibility.has_precision(engine, device, name or own, native=own)
                for own in native]
               for name in space.precisions]
              for device in devices]
             for engine in space.engines]
        )  # fmt: skip

    def ruled_out(self, population: Population, tokens: int) -> Ints:
        """NUMBER of the first reason why each cannot run; 0 where there is none.

        Args:
            population: What is asked of.
            tokens: Input and output tokens of a request.
        """
        reason = np.zeros(len(population.value["mode"]), dtype=np.int64)
        for name, is_wrong in self._problems(population, tokens):
            reason[is_wrong & (reason == 0)] = NUMBER[name]
        return reason

    def _problems(self, population: Population, tokens: int) -> Iterator[tuple[str, Booleans]]:
        at, position = population.value, population.position
        model, machine, engine = (position[name] for name in ("model", "machine", "engine"))
        constants = {name: column[model] for name, column in self._model.items()}
        context = constants["max_context"]
        yield "licence", ~self._allowed[model]
        yield "context", (context > 0) & (tokens > context)
        yield "engine", ~self._runs_on[engine, machine]
        yield "precision", ~self._has_precision[engine, machine, position["precision"], model]
        yield "feature", self._lacks_feature(population)
        yield "layers", ~population.is_split & (at["pp"] > constants["layers"])
        node = self._node_devices[machine]
        for names, applies in (
            (("tp",), ~population.is_split),
            (("prefill_tp", "decode_tp"), population.is_split),
        ):
            sizes = [at[name] for name in names]
            for name, is_wrong in _shape_problems(sizes, at, constants, node):
                yield name, applies & is_wrong
        yield "devices", population.devices > self._max_devices[machine]
        yield "whole prompts", (at["chunked_prefill"] == 0) & (at["chunk_tokens"] < tokens)

    def _lacks_feature(self, population: Population) -> Booleans:
        at, engine = population.value, population.position["engine"]
        wants = {
            "disaggregation": population.is_split,
            "pipeline": ~population.is_split & (at["pp"] > 1),
            "experts": (at["ep"] > 1) | (at["dp"] > 1),
            "prefix_caching": at["prefix_caching"] > 0,
            "whole_prompts": at["chunked_prefill"] == 0,
        }
        lacks = np.zeros(len(engine), dtype=np.bool_)
        for name, wanted in wants.items():
            lacks |= wanted & ~np.array([getattr(each, name) for each in self._engine])[engine]
        return lacks

    def instances(self, population: Population) -> Floats:
        """Instances that hold all groups of devices.

        A group within one node is not split over two instances, so devices may stay idle.
        """
        at = population.value
        size = self.instance_devices[population.position["machine"]]

        def share(tp: Floats) -> Floats:
            """Instances that one group of `tp` devices takes."""
            return np.where(tp <= size, 1 / np.maximum(1.0, size // tp), np.ceil(tp / size))

        aggregated = at["pp"] * at["replicas"] * share(at["tp"])
        split = at["prefill_workers"] * share(at["prefill_tp"])
        split = split + at["decode_workers"] * share(at["decode_tp"])
        return np.ceil(np.where(population.is_split, split, aggregated) - 1e-9)


def _shape_problems(
    sizes: list[Floats], at: Mapping[str, Floats], constants: Mapping[str, Floats], node: Ints
) -> Iterator[tuple[str, Booleans]]:
    """What is wrong with groups of `sizes` devices; EP and DP are at most a group's size."""
    experts = constants["experts"]
    spreads_attention = (constants["moe_layers"] > 0) | (constants["is_mla"] > 0)
    for tp in sizes:
        ep, dp = np.minimum(at["ep"], tp), np.minimum(at["dp"], tp)
        yield "heads", ~_divides_heads(np.maximum(1.0, tp // dp), constants)
        yield "experts", (tp % ep > 0) | (experts % ep > 0) | ((ep > 1) & (experts <= 1))
        yield "attention", (tp % dp > 0) | ((dp > 1) & ~spreads_attention)
    largest = np.maximum.reduce(sizes)
    yield "experts", at["ep"] > largest
    yield "attention", at["dp"] > largest
    yield "node", largest > node


def _divides_heads(attention_tp: Floats, constants: Mapping[str, Floats]) -> Booleans:
    """Whole heads on each device; KV heads that are fewer than the devices are repeated evenly."""
    kv_heads = np.maximum(1.0, constants["kv_heads"])
    shared = (kv_heads % attention_tp == 0) | (attention_tp % kv_heads == 0)
    divided: Booleans = (constants["heads"] % attention_tp == 0) & shared
    return divided


def _node_devices(machine: Machine, devices_per_node: int) -> int:
    """Devices that a fast link joins: of one instance, but in a rack, where it joins several."""
    if machine.devices is None or devices_per_node > _NODE_DEVICES:
        return devices_per_node
    return min(machine.devices, devices_per_node)


def _rows(ids: Mapping[str, int], names: tuple[str, ...], kind: str) -> Ints:
    for name in names:
        if name not in ids:
            near = difflib.get_close_matches(name, ids, n=3, cutoff=0.0)
            raise NotFound(
                f"There is no {kind} {name[:120]!r} that can be simulated.",
                remedy=f"The nearest are {', '.join(near)}.",
            )
    return np.array([ids[name] for name in names], dtype=np.int64)
