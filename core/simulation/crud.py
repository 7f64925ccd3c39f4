"""Every query of the simulation domain."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.simulation.models import SimulationRun, SimulationScenario


def scenarios(tx: Session, tenant_id: str, project_id: str) -> list[SimulationScenario]:
    """The saved scenarios of a project, by name."""
    query = select(SimulationScenario).where(
        SimulationScenario.tenant_id == tenant_id, SimulationScenario.project_id == project_id
    )
    return list(tx.scalars(query.order_by(SimulationScenario.name)))


def scenario(tx: Session, scenario_id: str) -> SimulationScenario | None:
    """One of them."""
    return tx.get(SimulationScenario, scenario_id)


def scenario_named(
    tx: Session, tenant_id: str, project_id: str, name: str
) -> SimulationScenario | None:
    """The scenario of that name in a project."""
    query = select(SimulationScenario).where(
        SimulationScenario.tenant_id == tenant_id,
        SimulationScenario.project_id == project_id,
        SimulationScenario.name == name,
    )
    return tx.scalar(query)


def runs(
    tx: Session, tenant_id: str, project_id: str, kind: str, limit: int
) -> list[SimulationRun]:
    """The newest searches or replays of a project."""
    query = select(SimulationRun).where(
        SimulationRun.tenant_id == tenant_id,
        SimulationRun.project_id == project_id,
        SimulationRun.kind == kind,
    )
    return list(tx.scalars(query.order_by(SimulationRun.created_at.desc()).limit(limit)))


def run(tx: Session, run_id: str) -> SimulationRun | None:
    """One of them."""
    return tx.get(SimulationRun, run_id)


def forget_project(tx: Session, tenant_id: str, project_id: str) -> int:
    """Delete the scenarios and the runs of a project; how many there were."""
    deleted = 0
    for table in (SimulationScenario, SimulationRun):
        of_project = (table.tenant_id == tenant_id, table.project_id == project_id)
        deleted += tx.connection().execute(delete(table).where(*of_project)).rowcount
    return deleted
