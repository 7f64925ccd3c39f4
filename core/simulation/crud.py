"""Every query of the simulation domain."""

from __future__ import annotations

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from core.simulation.models import SimulationRun, SimulationScenario, SimulationTraining


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


def trainings(tx: Session, tenant_id: str, limit: int) -> list[SimulationTraining]:
    """The newest trainings of a tenant, without their rows and models."""
    query = select(SimulationTraining).where(SimulationTraining.tenant_id == tenant_id)
    return list(tx.scalars(query.order_by(SimulationTraining.created_at.desc()).limit(limit)))


def training(tx: Session, training_id: str) -> SimulationTraining | None:
    """One of them."""
    return tx.get(SimulationTraining, training_id)


def own_rows(tx: Session, training_id: str) -> bytes | None:
    """The measured rows of a training, as Parquet."""
    query = select(SimulationTraining.own).where(SimulationTraining.id == training_id)
    return tx.scalar(query)


def trained_model(tx: Session, training_id: str) -> bytes | None:
    """What a training made, as compressed JSON; None until it has, or when there is none."""
    query = select(SimulationTraining.trained).where(SimulationTraining.id == training_id)
    return tx.scalar(query)


def used_training(tx: Session, tenant_id: str) -> SimulationTraining | None:
    """The training that a tenant predicts with; None for the shipped model."""
    query = select(SimulationTraining).where(
        SimulationTraining.tenant_id == tenant_id, SimulationTraining.used_at.is_not(None)
    )
    return tx.scalar(query.order_by(SimulationTraining.used_at.desc()).limit(1))


def use_no_training(tx: Session, tenant_id: str) -> None:
    """Let a tenant predict with the shipped model."""
    of_tenant = SimulationTraining.tenant_id == tenant_id
    tx.execute(update(SimulationTraining).where(of_tenant).values(used_at=None))


def forget_training_results(tx: Session, training_id: str) -> None:
    """Take away what a training has made."""
    one = SimulationTraining.id == training_id
    tx.execute(update(SimulationTraining).where(one).values(trained=None, result=None))
