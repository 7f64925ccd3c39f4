"""Use cases of the simulator: ask a what-if, choose a model, save scenarios."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from sqlalchemy.orm import Session

from core.hardware import catalogue
from core.hardware import services as hardware
from core.hardware.schemas import Price
from core.kernel import audit, clock, database, ids
from core.kernel.actor import Actor
from core.kernel.errors import BudError, Conflict, InvalidInput, NotFound
from core.leaderboards import services as leaderboards
from core.prices import services as machine_prices
from core.registry import services as registry
from core.simulation import crud, kept_traces, model_choice, questions, subjects, what_if
from core.simulation.costs import Rates, chosen, given
from core.simulation.models import SimulationScenario
from core.simulation.predictor import Predictor
from core.simulation.questions import Pairing
from core.simulation.schemas import Answer, Basis, Candidate, ScenarioView, Targets, WhatIf
from core.simulation.subjects import Subject, Subjects

MOST_COMPARED = 4
_MAX_NAME = 80


def ask(actor: Actor, project_id: str, query: WhatIf) -> Answer:
    """What a configuration does, with its curves, its costs and what changes would buy.

    A configuration that does not fit, or that no engine would start, is answered too, and says so.

    Raises:
        InvalidInput: A figure out of range, or an unknown engine or precision.
        NotFound: An unknown model, device or instance, with the nearest names.
    """
    actor.require("simulation:read", project_id)
    at = pairing(actor, query)
    return what_if.answer(query, at, basis(at.subjects.predictor))


def compare(actor: Actor, project_id: str, queries: Sequence[WhatIf]) -> list[Answer]:
    """The answers of up to four questions."""
    if len(queries) > MOST_COMPARED:
        raise InvalidInput(
            f"At most {MOST_COMPARED} scenarios stand side by side.",
            value=len(queries),
            remedy="Take one away first.",
        )
    return [ask(actor, project_id, query) for query in queries]


def choose_model(
    actor: Actor,
    project_id: str,
    query: WhatIf,
    targets: Targets,
    *,
    precisions: Sequence[str] = (),
    uses: frozenset[str] | None = None,
    task: str = "",
) -> list[Candidate]:
    """Every model in its best configuration on at most `query.gpus` devices, the best first.

    Args:
        actor: Who asks.
        project_id: For which project.
        query: The load, the engine, the device and how many of it there are.
        targets: What must be met.
        precisions: Precisions to try beside each checkpoint's own.
        uses: Licence classes of `licences` to keep; None keeps also unknown licences.
        task: Task of the leaderboards whose quality is shown; empty shows none.
    """
    actor.require("simulation:read", project_id)
    known = subjects.for_actor(actor)
    # Any model that is known will do: choosing reads the device and the load only.
    asked = query.model_copy(update={"model": WhatIf().model, "tp": 1, "pp": 1, "mode": "agg"})
    found = model_choice.choose(
        query,
        pairing(actor, asked, known),
        targets,
        precisions=precisions,
        uses=uses,
        registered_licences={
            model.id: model.licence for model in registry.list_models(actor, project_id)
        },
    )
    if not task:
        return found
    names = [each.model_name for each in found]
    qualities = leaderboards.quality_by_name(actor, project_id, task, names)
    return [replace(each, quality=it) for each, it in zip(found, qualities, strict=True)]


def canonical(actor: Actor, query: WhatIf) -> WhatIf:
    """The question with its model and device under the ids of `models` and `systems`.

    Names that nothing goes by stay as they are: asking says what is nearest.
    """
    known = subjects.for_actor(actor)
    update: dict[str, str] = {}
    with suppress(BudError):
        index = known.find_model(query.model)
        update["model"] = next(each.id for each in known.model_subjects if each.index == index)
    with suppress(BudError):
        system = known.find_system(query.hardware)
        update["hardware"] = known.systems.accelerators[system].id
    return query.model_copy(update=update)


def models(actor: Actor) -> tuple[Subject, ...]:
    """Every model that the actor may name, own ones first."""
    return subjects.models_for_actor(actor).model_subjects


def known_model(actor: Actor, names: Iterable[str]) -> str | None:
    """The id in `models` of the first of these names that can be simulated; None: none can."""
    known = subjects.models_for_actor(actor)
    for name in names:
        with suppress(BudError):
            index = known.find_model(name)
            return next(each.id for each in known.model_subjects if each.index == index)
    return None


def systems(actor: Actor) -> tuple[Subject, ...]:
    """Every device that the actor may name, own ones first."""
    return subjects.for_actor(actor).system_subjects


def basis(predictor: Predictor) -> Basis:
    """What a predictor's answers are made from: its version, and the data it was trained on."""
    about = predictor.about
    return Basis(about.version, about.data_date, about.data_hash, about.rows)


def pairing(actor: Actor, query: WhatIf, known: Subjects | None = None) -> Pairing:
    """The model, the device and the prices that a question is about. Raises as `ask` does."""
    questions.check(query)
    known = known or subjects.for_actor(actor)
    device_name, instance = _hardware(query.hardware)
    system = known.find_system(device_name)
    device_id = known.systems.accelerators[system].id
    return Pairing(
        subjects=known,
        model=known.find_model(query.model),
        system=system,
        rates=_rates(actor, query, device_id, instance),
    )


def instances() -> dict[str, str]:
    """Every cloud instance with a price, as `hardware` of a question names it, and for people."""
    found = {}
    names = {device.id: device.name for device in catalogue.shipped()}
    for price in sorted(catalogue.shipped_prices(), key=lambda each: (each.cloud, each.instance)):
        label = f"{price.devices} × {names[price.accelerator_id]}"
        found[f"{price.cloud}:{price.instance}"] = (
            f"{price.cloud.upper()} {price.instance} · {label}"
        )
    return found


def regions(actor: Actor, query: WhatIf) -> list[str]:
    """The cloud regions in which the hardware of a question has a price."""
    device_name, instance = _hardware(query.hardware)
    prices = chosen(hardware.prices(actor, device_name), instance=instance).prices
    return sorted({price.region for price in prices if price.region})


def _hardware(name: str) -> tuple[str, str]:
    """The device of a name, and the instance type if the name is `cloud:instance`."""
    cloud, separator, instance = name.partition(":")
    if not separator:
        return name, ""
    devices = {
        price.accelerator_id
        for price in catalogue.shipped_prices()
        if (price.cloud, price.instance) == (cloud, instance)
    }
    if not devices:
        raise NotFound(
            f"There is no priced cloud instance {name[:80]!r}.",
            remedy="Name one as cloud:instance, such as aws:p5.48xlarge, or name a GPU.",
        )
    return devices.pop(), instance


def _rates(actor: Actor, query: WhatIf, device_id: str, instance: str) -> Rates:
    if query.usd_per_gpu_hour > 0:
        return Rates([given(device_id, query.usd_per_gpu_hour)])
    if device_id == hardware.THIS_MACHINE:
        return Rates(_price_of_this_machine(actor))
    return chosen(hardware.prices(actor, device_id), instance=instance, region=query.region)


def _price_of_this_machine(actor: Actor) -> list[Price]:
    """What Settings says an hour of it costs; nothing while that is not set."""
    price = machine_prices.machine_price(actor)
    if price is None or price.usd_per_hour is None:
        return []
    return [given(hardware.THIS_MACHINE, price.usd_per_hour)]


def list_scenarios(actor: Actor, project_id: str) -> list[ScenarioView]:
    """The saved scenarios of a project, by name."""
    actor.require("simulation:read", project_id)
    with database.reading() as session:
        return [_view(row) for row in crud.scenarios(session, actor.tenant_id, project_id)]


def get_scenario(actor: Actor, scenario_id: str) -> ScenarioView:
    """One saved scenario. NotFound when it is of a project that the actor cannot read."""
    with database.reading() as session:
        return _view(_readable(actor, crud.scenario(session, scenario_id), scenario_id))


def save_scenario(actor: Actor, project_id: str, name: str, query: WhatIf) -> ScenarioView:
    """Save a question under a name.

    Raises:
        InvalidInput: No name, a name that is too long, or a question that cannot be asked.
        Conflict: The name is taken in this project.
    """
    actor.require("simulation:create", project_id)
    name = _checked_name(name)
    questions.check(query)
    row = SimulationScenario(
        id=ids.new_id("sim"),
        tenant_id=actor.tenant_id,
        project_id=project_id,
        name=name,
        query=query.changes(),
        created_by_name=actor.name,
        created_at=clock.now(),
        updated_at=clock.now(),
    )
    with database.transaction() as tx:
        if crud.scenario_named(tx, actor.tenant_id, project_id, name) is not None:
            raise _taken(name)
        tx.add(row)
        _record(tx, actor, "created", row)
    return _view(row)


def rename_scenario(actor: Actor, scenario_id: str, name: str) -> ScenarioView:
    """Give a saved scenario another name. Raises as `save_scenario` does, or NotFound."""
    name = _checked_name(name)
    with database.transaction() as tx:
        row = _readable(actor, crud.scenario(tx, scenario_id), scenario_id)
        actor.require("simulation:update", row.project_id)
        twin = crud.scenario_named(tx, actor.tenant_id, row.project_id, name)
        if twin is not None and twin.id != row.id:
            raise _taken(name)
        row.name, row.updated_at = name, clock.now()
        _record(tx, actor, "renamed", row)
    return _view(row)


def delete_scenario(actor: Actor, scenario_id: str) -> None:
    """Delete a saved scenario; links to it end. NotFound when there is none."""
    with database.transaction() as tx:
        row = _readable(actor, crud.scenario(tx, scenario_id), scenario_id)
        actor.require("simulation:delete", row.project_id)
        _record(tx, actor, "deleted", row)
        tx.delete(row)


def forget_project(actor: Actor, project_id: str) -> None:
    """Delete the scenarios, searches, replays and traces of a project that goes away."""
    actor.require("project:delete", project_id)
    for trace_id in kept_traces.kept(project_id):
        kept_traces.remove(project_id, trace_id)
    with database.transaction() as tx:
        deleted = crud.forget_project(tx, actor.tenant_id, project_id)
        audit.record(
            tx,
            actor,
            "simulation.forgotten",
            f"project:{project_id}",
            project_id=project_id,
            rows=deleted,
        )


def _record(tx: Session, actor: Actor, verb: str, row: SimulationScenario) -> None:
    audit.record(
        tx,
        actor,
        f"scenario.{verb}",
        f"scenario:{row.id}",
        project_id=row.project_id,
        name=row.name,
    )


def _readable(actor: Actor, row: SimulationScenario | None, scenario_id: str) -> SimulationScenario:
    if (
        row is None
        or row.tenant_id != actor.tenant_id
        or not actor.may("simulation:read", row.project_id)
    ):
        raise NotFound(
            f"There is no saved scenario {scenario_id[:60]}.",
            remedy="It may have been deleted, or belong to a project that is not yours.",
        )
    return row


def _checked_name(name: str) -> str:
    name = name.strip()
    if not 1 <= len(name) <= _MAX_NAME:
        raise InvalidInput(
            f"A scenario's name has 1 to {_MAX_NAME} characters.",
            value=name[:_MAX_NAME] or "nothing",
            remedy="Give it a name that says what is special about it.",
        )
    return name


def _taken(name: str) -> Conflict:
    return Conflict(
        f"There is already a scenario {name!r} in this project.", remedy="Choose another name."
    )


def _view(row: SimulationScenario) -> ScenarioView:
    return ScenarioView.model_validate(row)
