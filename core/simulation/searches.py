"""Use cases of searches: start one as a job, look at its result."""

from __future__ import annotations

from dataclasses import replace

from pydantic import TypeAdapter

from core.jobs import services as jobs
from core.kernel import audit, clock, database, ids
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound
from core.simulation import crud, search_workflow, services
from core.simulation.models import SimulationRun
from core.simulation.schemas import WhatIf
from core.simulation.search_requests import SearchPlan, SearchRequest, SearchView
from core.simulation.space import NATIVE, Machine, Space

KIND = "search"
MOST_GPUS = 256
_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_SHARDS = (1, 2, 4, 8, 16)
_MOST_WORKERS = 8
_ONE_DEVICE = {"mode": "agg", "gpus": 1, "tp": 1, "pp": 1, "ep": 1, "dp": 1}
_ONE_DEVICE |= {"hardware": WhatIf().hardware, "region": "", "usd_per_gpu_hour": 0.0}


def start(actor: Actor, project_id: str, request: SearchRequest) -> SearchView:
    """Start a search as a job.

    Raises:
        InvalidInput: A figure out of range, no hardware, or nothing within the budget.
        NotFound: An unknown model, device or engine, with the nearest names.
    """
    actor.require("simulation:create", project_id)
    query = services.canonical(actor, request.query)
    request = request.model_copy(update={"query": query})
    plan = SearchPlan(_space(actor, request), request.load, request.slo)
    row = SimulationRun(
        id=ids.new_id("run"),
        tenant_id=actor.tenant_id,
        project_id=project_id,
        kind=KIND,
        title=f"{query.model} on up to {request.max_gpus} × {_named(plan.space)}"[:200],
        request=request.model_dump(mode="json"),
        created_by_name=actor.name,
        created_at=clock.now(),
    )
    with database.transaction() as tx:
        row.job_id = jobs.enqueue(
            tx,
            actor,
            search_workflow.find_configuration,
            project_id=project_id,
            title=f"Find the best: {row.title}"[:200],
            subject=f"run:{row.id}",
            arguments={
                "run_id": row.id,
                "plan": TypeAdapter(SearchPlan).dump_python(plan, mode="json"),
            },
        )
        tx.add(row)
        audit.record(
            tx, actor, "search.started", f"run:{row.id}", project_id=project_id, title=row.title
        )
    return _view(row)


def _space(actor: Actor, request: SearchRequest) -> Space:
    if not 1 <= request.max_gpus <= MOST_GPUS:
        raise InvalidInput(
            f"A search looks at 1 to {MOST_GPUS:,} GPUs.",
            value=request.max_gpus,
            remedy="Search for a part of the load, then ask for more copies in Predict.",
        )
    if request.max_usd_per_hour < 0:
        raise InvalidInput(
            "What may be spent is 0 USD per hour or more.",
            value=request.max_usd_per_hour,
            remedy="Leave it empty to ask for nothing.",
        )
    if not request.engines:
        raise InvalidInput("No engine may be used.", remedy="Choose at least one engine.")
    query = request.query.model_copy(update=_ONE_DEVICE)
    at = services.pairing(actor, query)
    counts = tuple(each for each in _COUNTS if each <= request.max_gpus)
    shards = tuple(each for each in _SHARDS if each <= request.max_gpus)
    return Space(
        models=(at.architecture.id,),
        machines=_machines(actor, request, query),
        engines=request.engines,
        precisions=(NATIVE, *request.precisions),
        tp=shards,
        ep=shards,
        dp=shards,
        replicas=counts,
        prefill_workers=counts[:_MOST_WORKERS],
        prefill_tp=shards,
        decode_workers=counts[:_MOST_WORKERS],
        decode_tp=shards,
        max_devices=request.max_gpus,
    )


def _machines(actor: Actor, request: SearchRequest, query: WhatIf) -> tuple[Machine, ...]:
    """What may be rented, each size of instance where it is cheapest, within the budget."""
    if not request.hardware:
        raise InvalidInput("No hardware may be used.", remedy="Choose at least one device.")
    found: dict[tuple[str, int | None], Machine] = {}
    for name in request.hardware:
        at = services.pairing(actor, query.model_copy(update={"hardware": name}))
        # Rates are not sorted; of two prices for the same the lower one counts.
        prices = sorted(at.rates.prices, key=lambda price: price.usd_per_device_hour)
        machines = [Machine.of_price(price) for price in prices]
        for machine in machines or [Machine(system=at.device.id)]:
            found.setdefault((machine.system, machine.devices), machine)
    affordable = tuple(filter(None, (_within(request, each) for each in found.values())))
    if not affordable:
        raise InvalidInput(
            f"Nothing of {', '.join(request.hardware)} is known to cost at most "
            f"{request.max_usd_per_hour:,.6g} USD per hour.",
            remedy="Raise the budget, or allow other hardware.",
        )
    return affordable


def _within(request: SearchRequest, machine: Machine) -> Machine | None:
    """The machine with as many devices as the budget pays for; None if it pays for none."""
    if not request.max_usd_per_hour:
        return machine
    if machine.usd_per_device_hour is None:
        return None
    size = machine.devices or 1
    instances = int(request.max_usd_per_hour // (size * machine.usd_per_device_hour))
    return replace(machine, max_devices=instances * size) if instances else None


def get(actor: Actor, run_id: str) -> SearchView:
    """A search, with its result once there is one. NotFound when the actor cannot read it."""
    with database.reading() as session:
        return _view(_readable(actor, crud.run(session, run_id), run_id))


def list_searches(actor: Actor, project_id: str, *, limit: int = 50) -> list[SearchView]:
    """The newest searches of a project."""
    actor.require("simulation:read", project_id)
    with database.reading() as session:
        rows = crud.runs(session, actor.tenant_id, project_id, KIND, limit)
        return [_view(row) for row in rows]


def _readable(actor: Actor, row: SimulationRun | None, run_id: str) -> SimulationRun:
    if (
        row is None
        or row.kind != KIND
        or row.tenant_id != actor.tenant_id
        or not actor.may("simulation:read", row.project_id)
    ):
        raise NotFound(f"There is no search {run_id[:60]}.", remedy="It may have been deleted.")
    return row


def _view(row: SimulationRun) -> SearchView:
    return SearchView.model_validate({name: getattr(row, name) for name in SearchView.model_fields})


def _named(space: Space) -> str:
    systems = list(dict.fromkeys(machine.system for machine in space.machines))
    return systems[0] if len(systems) == 1 else f"{len(systems)} kinds of GPU"
