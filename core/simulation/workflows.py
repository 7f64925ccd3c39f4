"""Jobs of the simulator."""

from __future__ import annotations

from pydantic import TypeAdapter

from core.jobs import Progress, Run, Step, workflow
from core.kernel import database
from core.kernel.actor import Actor
from core.kernel.errors import NotFound
from core.simulation import crud, kept_traces, replay, services, what_if
from core.simulation.models import SimulationRun
from core.simulation.replay_requests import ReplayRequest
from core.simulation.replay_results import ReplayResult


@workflow("simulation.replay", steps=(Step("replay", "Replay the trace", typical_s=5),))
def replay_trace(run: Run, run_id: str) -> None:
    """Replay a trace over a configuration; the result stands in the run's row."""
    run.step("replay", _replay, run_id)


def _replay(progress: Progress, run_id: str) -> None:
    with database.reading() as session:
        row = _row(crud.run(session, run_id), run_id)
        tenant_id, project_id = row.tenant_id, row.project_id
        request = ReplayRequest.model_validate(row.request)
    trace = request.cut(kept_traces.find(project_id, request.trace))
    query = request.query
    # Whoever started it may use the model and the device: that was checked when they did.
    at = services.pairing(Actor.system(tenant_id), query)
    usd_per_hour = at.rates.usd_per_hour(query.devices)
    result = replay.run(
        at.subjects.predictor,
        what_if.rows([query], [at]),
        trace,
        request.policy,
        usd_per_device_hour=None if usd_per_hour is None else usd_per_hour / query.devices,
        targets=request.targets,
        progress=lambda share: progress.update(share, f"{len(trace):,} requests"),
    )
    with database.transaction() as tx:
        stored = TypeAdapter(ReplayResult).dump_python(result, mode="json")
        _row(crud.run(tx, run_id), run_id).result = stored


def _row(row: SimulationRun | None, run_id: str) -> SimulationRun:
    if row is None:
        raise NotFound(f"There is no run {run_id}.", remedy="It was deleted; start it again.")
    return row
