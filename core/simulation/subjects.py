"""The models and systems that a person may simulate, and the predictor over them.

What ships with Bud comes first and in the order of `dataset.tables()`, so that the integers a
trained model was made with mean the same here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

from core.hardware import catalogue
from core.hardware import services as hardware
from core.hardware.schemas import Accelerator
from core.kernel.actor import Actor
from core.kernel.errors import BudError, InvalidInput, NotFound
from core.projects import services as projects
from core.registry import services as registry
from core.simulation import architectures, dataset, trained_models
from core.simulation.architectures import Architecture
from core.simulation.predictor import Predictor
from core.simulation.scenarios import ModelTable, SystemTable

SHIPPED, OWN = "shipped", "own"
_NEAREST = 3


@dataclass(frozen=True, slots=True)
class Subject:
    """A model or a system that a person may name.

    Attributes:
        id: An architecture's or device's id; of a model of the registry, its id there.
        name: What people read.
        origin: SHIPPED, or OWN: of the registry, an own hardware entry, this machine.
        index: Its row in the table; None when it cannot be simulated.
        why_not: Why it cannot; empty when it can.
        path: Of a model of one's own, its file.
    """

    id: str
    name: str
    origin: str
    index: int | None
    why_not: str = ""
    path: str = ""


class OwnModel(NamedTuple):
    """A model beyond the shipped ones: its shape, what people call it, and its file."""

    architecture: Architecture
    name: str
    path: str = ""


class _Registered(NamedTuple):
    """What is needed of a model of the registry; unlike its view it can be a cache's key."""

    id: str
    name: str
    state: str
    path: str | None
    sha256: str | None


class Subjects:
    """Two tables of constants, and the names of what stands in them.

    Args:
        own_models: Models beyond the shipped ones.
        own_devices: Devices beyond the shipped ones.
        unreadable: Models that are known and cannot be simulated.
        training_id: The training whose model predicts; empty for the shipped one.
    """

    def __init__(
        self,
        own_models: Iterable[OwnModel] = (),
        own_devices: Iterable[Accelerator] = (),
        unreadable: Iterable[Subject] = (),
        training_id: str = "",
    ) -> None:
        self.training_id = training_id
        self._own_models, self._own_devices = tuple(own_models), tuple(own_devices)
        self._unreadable = tuple(unreadable)
        models, systems = dataset.tables()
        self.models = ModelTable(
            [*models.architectures, *(own.architecture for own in self._own_models)]
        )
        self.systems = SystemTable([*systems.accelerators, *self._own_devices])

    @cached_property
    def model_subjects(self) -> tuple[Subject, ...]:
        """Every model, own ones first."""
        index = self.models.ids
        own = [
            Subject(shape.id, name, OWN, index[shape.id], path=path)
            for shape, name, path in self._own_models
        ]
        shipped = [Subject(id_, id_, SHIPPED, index[id_]) for id_ in architectures.records()]
        return (*own, *self._unreadable, *shipped)

    @cached_property
    def system_subjects(self) -> tuple[Subject, ...]:
        """Every system, own ones first, those of which only the memory is known last."""
        index = self.systems.ids
        return tuple(
            Subject(
                device.id,
                device.name,
                SHIPPED if number >= len(self._own_devices) else OWN,
                index.get(device.id),
                "" if device.id in index else "only its memory is known",
            )
            for number, device in enumerate(self._devices)
        )

    @property
    def _devices(self) -> tuple[Accelerator, ...]:
        return (*self._own_devices, *catalogue.shipped())

    @cached_property
    def predictor(self) -> Predictor:
        """Predicts over these tables."""
        return Predictor(self.models, self.systems, trained_models.trained(self.training_id))

    def find_model(self, name: str) -> int:
        """The row of a model: by id or name in the registry, else by any name it is known by.

        Raises:
            NotFound: There is none; names the three nearest.
            InvalidInput: It is known and cannot be simulated; says why.
        """
        wanted = name.strip().lower()
        for subject in self.model_subjects:
            if subject.origin == OWN and wanted in (subject.id.lower(), subject.name.lower()):
                return _index(subject)
        try:
            return self.models.ids[architectures.find(name).id]
        except NotFound as error:
            raise self._unknown_model(name) from error

    def _unknown_model(self, name: str) -> NotFound:
        known = {each.name.lower(): each.name for each in self.model_subjects}
        short = name.strip().rsplit("/", 1)[-1].lower()
        near = difflib.get_close_matches(short, known, n=_NEAREST, cutoff=0.0)
        return NotFound(
            f"No model of the name {name[:120]!r} is known to the simulator.",
            remedy=f"The nearest are {', '.join(known[each] for each in near)}. "
            "Or give the path of its config.json or GGUF file.",
        )

    def find_system(self, name: str) -> int:
        """The row of a system, by any name that the hardware catalogue knows.

        Raises:
            NotFound: There is none; names the three nearest.
            InvalidInput: Only its memory is known.
        """
        device = catalogue.find_in(name, self._devices, catalogue.aliases())
        return _index(next(each for each in self.system_subjects if each.id == device.id))

    def with_model(self, architecture: Architecture, name: str, path: str = "") -> Subjects:
        """The same and one more model."""
        own = (*self._own_models, OwnModel(architecture, name, path))
        return Subjects(own, self._own_devices, self._unreadable, self.training_id)

    def with_file(self, path: Path, name: str) -> Subjects:
        """The same and the model in a GGUF file, a `config.json`, or a folder with one.

        Raises:
            InvalidInput: There is no such file, or no model in it that can be simulated.
        """
        # The path is the id: no other model is called so.
        shape = replace(architectures.read_file(path), id=str(path))
        # Engines load the folder that a config.json is in.
        loaded = path.parent if path.suffix == ".json" else path
        return self.with_model(shape, name, str(loaded))


def _index(subject: Subject) -> int:
    if subject.index is None:
        raise InvalidInput(
            f"{subject.name} cannot be simulated: {subject.why_not}.",
            remedy="Choose another, or add it with its figures.",
        )
    return subject.index


@cache
def shipped() -> Subjects:
    """What ships with Bud; needs no database."""
    return Subjects()


def for_actor(actor: Actor) -> Subjects:
    """What `actor` may simulate: the above, the registries of their projects, their hardware.

    What it returns is kept until any of these changes. The first call measures this machine.
    """
    shipped_devices = frozenset(catalogue.shipped())
    added = (each for each in hardware.accelerators(actor) if each not in shipped_devices)
    return _subjects(
        _registered(actor),
        (*added, hardware.this_machine()),
        trained_models.in_use(actor.tenant_id),
    )


def models_for_actor(actor: Actor) -> Subjects:
    """The models of `for_actor` with the shipped devices only, so that nothing is measured."""
    return _subjects(_registered(actor), (), "")


def _registered(actor: Actor) -> tuple[_Registered, ...]:
    readable = [
        project.id
        for project in projects.list_projects(actor)
        if actor.may("model:read", project.id)
    ]
    found = {
        model.id: _Registered(model.id, model.name, model.state, model.path, model.sha256)
        for project_id in readable
        for model in registry.list_models(actor, project_id)
    }
    return tuple(found.values())


@lru_cache(maxsize=32)
def _subjects(
    registered: tuple[_Registered, ...], devices: tuple[Accelerator, ...], training_id: str
) -> Subjects:
    own, unreadable = [], []
    for model in registered:
        try:
            own.append(OwnModel(_architecture(model), model.name, model.path or ""))
        except BudError as error:
            why_not = error.what.rstrip(".")
            unreadable.append(Subject(model.id, model.name, OWN, None, why_not))
    return Subjects(own, devices, unreadable, training_id)


@lru_cache(maxsize=256)
def _architecture(model: _Registered) -> Architecture:
    if model.state != "ready" or model.path is None:
        raise InvalidInput(f"its files are not there yet (state: {model.state}).")
    return replace(architectures.read_file(Path(model.path)), id=model.id)
