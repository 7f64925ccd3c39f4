"""The job that searches for the best configuration."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from core.jobs import Progress, Run, Step, workflow
from core.kernel import database
from core.kernel.actor import Actor
from core.kernel.errors import NotFound
from core.simulation import crud, search, subjects
from core.simulation.options import SearchResult
from core.simulation.search_requests import SearchPlan, SearchRequest


@workflow("simulation.search", steps=(Step("search", "Search the configurations", typical_s=5),))
def find_configuration(run: Run, run_id: str, plan: dict[str, Any]) -> None:
    """Search for the best configuration; the result stands in the run's row."""
    run.step("search", _search, run_id, plan)


def _search(progress: Progress, run_id: str, plan: dict[str, Any]) -> None:
    with database.reading() as session:
        row = crud.run(session, run_id)
    if row is None:
        raise NotFound(f"There is no run {run_id}.", remedy="It was deleted; start it again.")
    planned = TypeAdapter(SearchPlan).validate_python(plan)
    # Whoever started it may use the model and the devices: that was checked when they did.
    known = subjects.for_actor(Actor.system(row.tenant_id))
    result = search.run(
        known.predictor,
        planned.space,
        planned.load,
        planned.slo,
        budget=SearchRequest.model_validate(row.request).evaluations,
        progress=lambda done, total: progress.update(
            done / total, f"{done:,} of {total:,} configurations"
        ),
    )
    progress.log(f"{result.feasible:,} of {result.evaluated:,} can run. {result.verdict}")
    with database.transaction() as tx:
        found = crud.run(tx, run_id)
        if found is not None:
            found.result = TypeAdapter(SearchResult).dump_python(result, mode="json")
