"""Use cases of training: bring measurements, train on them as a job, use what came out, go back.

What is trained belongs to the tenant and changes every prediction in it: admins train and choose,
members see what they stand on.
"""

from __future__ import annotations

import io

import pandas as pd
from sqlalchemy.orm import Session

from core.jobs import services as jobs
from core.kernel import audit, clock, database, ids
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, InvalidInput, NotFound
from core.simulation import crud, own_rows, subjects, trained_models, training_workflow
from core.simulation.models import SimulationTraining
from core.simulation.own_rows import OwnRows
from core.simulation.schemas import Basis
from core.simulation.training_requests import Standing, TrainingView

_PERMISSION = "simulation:train"
_NAMED = 5
_LOOKED_AT = 20


def standing(actor: Actor, project_id: str) -> Standing:
    """What the predictions of this tenant stand on now."""
    actor.require("simulation:read", project_id)
    used = trained_models.in_use(actor.tenant_id)
    about = trained_models.trained(used).about
    with database.reading() as session:
        row = crud.training(session, used) if used else None
        view = None if row is None else _view(row, used)
    return Standing(Basis(about.version, about.data_date, about.data_hash, about.rows), view)


def read_rows(actor: Actor, name: str, content: bytes) -> OwnRows:
    """What a CSV file of measurements holds, and what of it cannot be used. Admins only.

    Raises as `own_rows.read` does.
    """
    actor.require(_PERMISSION)
    return own_rows.read(content, name, subjects.for_actor(actor), clock.now().date())


def start(
    actor: Actor, project_id: str, name: str, content: bytes, *, leave_out_bad: bool = False
) -> TrainingView:
    """Start to train on the rows that ship and those of a CSV file, as a job. Admins only.

    Args:
        actor: Who starts it.
        project_id: The project that lists the job.
        name: Of the file.
        content: The file, see `own_rows.read`.
        leave_out_bad: Whether rows that cannot be used are left out, and not refused.

    Raises:
        InvalidInput: The file or a row of it cannot be used, or no row can.
        Conflict: A training is at work already.
    """
    found = read_rows(actor, name, content)
    _check_rows(found, leave_out_bad)
    row = SimulationTraining(
        id=ids.new_id("trn"),
        tenant_id=actor.tenant_id,
        project_id=project_id,
        name=name.strip()[:200] or "measurements",
        rows=len(found.table),
        configurations=found.configurations,
        own=packed(found.table),
        created_by_name=actor.name,
        created_at=clock.now(),
    )
    with database.transaction() as tx:
        _refuse_a_second(actor, tx)
        row.job_id = jobs.enqueue(
            tx,
            actor,
            training_workflow.train,
            project_id=project_id,
            title=f"Train on {row.rows:,} rows of {row.name}"[:200],
            subject=f"training:{row.id}",
            arguments={"training_id": row.id},
        )
        tx.add(row)
        _record(tx, actor, "started", row, rows=row.rows, left_out=len(found.bad))
    return _view(row, "")


def _check_rows(found: OwnRows, leave_out_bad: bool) -> None:
    named = "; ".join(f"line {each.line}: {each.what}" for each in found.bad[:_NAMED])
    more = len(found.bad) - _NAMED
    named += f"; and {more:,} more" if more > 0 else ""
    if not len(found.table):
        raise InvalidInput(
            f"No row can be used: {named}.", remedy="Correct the file and upload it again."
        )
    if found.bad and not leave_out_bad:
        raise InvalidInput(
            f"{len(found.bad):,} rows cannot be used: {named}.",
            remedy="Correct them, or say that they are to be left out.",
        )


def _refuse_a_second(actor: Actor, tx: Session) -> None:
    """Two at once would each take twice as long, and slow the pages down."""
    for row in crud.trainings(tx, actor.tenant_id, limit=_LOOKED_AT):
        if row.result is None and _is_at_work(actor, row):
            raise Conflict(
                f"A training is at work already: {row.name}.",
                remedy="Wait for its end, or cancel it.",
            )


def _is_at_work(actor: Actor, row: SimulationTraining) -> bool:
    return jobs.find_active(actor, row.project_id, f"training:{row.id}") is not None


def packed(table: pd.DataFrame) -> bytes:
    """Measured rows as they are stored."""
    target = io.BytesIO()
    table.to_parquet(target, index=False, compression="zstd")
    return target.getvalue()


def get(actor: Actor, project_id: str, training_id: str) -> TrainingView:
    """One training of the tenant. NotFound when there is none."""
    actor.require("simulation:read", project_id)
    with database.reading() as session:
        row = _known(actor, crud.training(session, training_id), training_id)
        return _view(row, trained_models.in_use(actor.tenant_id))


def list_trainings(actor: Actor, project_id: str, *, limit: int = 50) -> list[TrainingView]:
    """The newest trainings of the tenant."""
    actor.require("simulation:read", project_id)
    used = trained_models.in_use(actor.tenant_id)
    with database.reading() as session:
        return [_view(row, used) for row in crud.trainings(session, actor.tenant_id, limit)]


def use(actor: Actor, training_id: str) -> TrainingView:
    """Let the tenant predict with what a training made. Admins only.

    Raises:
        NotFound: There is no such training.
        Conflict: It has not succeeded, or another version of Bud made it.
    """
    actor.require(_PERMISSION)
    with database.transaction() as tx:
        row = _known(actor, crud.training(tx, training_id), training_id)
        if row.result is None:
            raise Conflict(
                f"{row.name} has no model: its training did not succeed, or is at work still.",
                remedy="See its job.",
            )
        if not trained_models.is_current(row.result):
            raise Conflict(
                f"{row.name} was trained by another version of Bud.", remedy="Train again."
            )
        crud.use_no_training(tx, actor.tenant_id)
        row.used_at = clock.now()
        _record(tx, actor, "used", row)
    trained_models.changed()
    return _view(row, row.id)


def use_shipped(actor: Actor) -> None:
    """Let the tenant predict with the model that ships with Bud again. Admins only.

    Raises:
        Conflict: It does already.
    """
    actor.require(_PERMISSION)
    with database.transaction() as tx:
        row = crud.used_training(tx, actor.tenant_id)
        if row is None:
            raise Conflict("The shipped model is in use already.")
        crud.use_no_training(tx, actor.tenant_id)
        _record(tx, actor, "put away", row)
    trained_models.changed()


def delete(actor: Actor, training_id: str) -> None:
    """Delete a training with its rows and its model. Admins only.

    Raises:
        NotFound: There is no such training.
        Conflict: It is in use, or at work.
    """
    actor.require(_PERMISSION)
    with database.transaction() as tx:
        row = _known(actor, crud.training(tx, training_id), training_id)
        if row.id == trained_models.chosen(tx, actor.tenant_id):
            raise Conflict(f"{row.name} is in use.", remedy="Go back to the shipped model first.")
        if _is_at_work(actor, row):
            raise Conflict(f"{row.name} is at work.", remedy="Cancel its job first.")
        tx.delete(row)
        _record(tx, actor, "deleted", row)


def _record(
    tx: Session, actor: Actor, verb: str, row: SimulationTraining, **details: object
) -> None:
    audit.record(
        tx,
        actor,
        f"training.{verb}",
        f"training:{row.id}",
        project_id=row.project_id,
        name=row.name,
        **details,
    )


def _known(actor: Actor, row: SimulationTraining | None, training_id: str) -> SimulationTraining:
    if row is None or row.tenant_id != actor.tenant_id:
        raise NotFound(
            f"There is no training {training_id[:60]}.", remedy="It may have been deleted."
        )
    return row


def _view(row: SimulationTraining, used: str) -> TrainingView:
    flags = {
        "is_in_use": row.id == used,
        "is_current": row.result is None or trained_models.is_current(row.result),
    }
    names = TrainingView.model_fields.keys() - flags.keys()
    return TrainingView.model_validate({name: getattr(row, name) for name in names} | flags)
