"""How a version begins: its row, and the job that fetches, reads, scans and saves its files."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy.orm import Session

from core import jobs
from core.kernel import audit, database, ids
from core.kernel.actor import Actor
from core.kernel.errors import Conflict
from core.registry import crud, versions, workflows
from core.registry.models import Model, ModelVersion
from core.registry.sources import Source


def enqueue(
    actor: Actor,
    project_id: str,
    source: Source,
    name: str | None,
    suggested: str,
    model_id: str | None,
    catalogue_id: str | None = None,
) -> tuple[str, str]:
    """Make the row of a version and the job that adds it, in one transaction.

    Args:
        actor: Who adds it.
        project_id: For which project.
        source: Where its files are.
        name: What to call a new model; None takes `suggested`.
        suggested: What the source is called.
        model_id: The model that this is a new version of; None: a new model, or a new version of
            the one that was added from the same source before.
        catalogue_id: The entry of the catalogue that a new model is.

    Returns:
        The ids of the model and of the job.

    Raises:
        Conflict: The model can have no version added, or a job is adding one already.
    """
    with database.transaction() as tx:
        model = _model_to_add_to(tx, actor, project_id, source, model_id)
        failed = _failed_newest(tx, model, source)
        # A retry after a cancel, which removes the rows, makes them again from this.
        registration = {
            "tenant_id": actor.tenant_id,
            "project_id": project_id,
            "name": ((name or "").strip() or suggested)[:120] if model is None else model.name,
            "source": source.text,
            "created_by_name": actor.name,
            "catalogue_id": catalogue_id,
        }
        is_new = model is None
        model_id = model.id if model is not None else ids.new_id("mod")
        version_id = failed.id if failed is not None else ids.new_id("ver")
        if failed is None:
            model, version = workflows.register(tx, model_id, version_id, registration)
            subject, verb = f"model:{model_id}", "created" if is_new else "version_added"
            details = {"name": model.name} if is_new else {"version": version.number}
            audit.record(tx, actor, f"model.{verb}", subject, project_id=project_id, **details)
        # In the same transaction: a kill in between would leave a version that nothing adds.
        job_id = jobs.enqueue(
            tx,
            actor,
            workflows.add,
            project_id=project_id,
            title=f"Add model {registration['name']}",
            subject=f"model:{model_id}",
            arguments={
                "model_id": model_id,
                "version_id": version_id,
                "registration": registration,
                "source": asdict(source),
            },
        )
    return model_id, job_id


def _model_to_add_to(
    tx: Session, actor: Actor, project_id: str, source: Source, model_id: str | None
) -> Model | None:
    if model_id is None:
        model = crud.of_source(tx, actor.tenant_id, project_id, source.text)
    else:
        model = versions.readable_model(tx, actor, model_id)
    if model is None:
        return None
    if model.kind == "hosted" or model.project_id != project_id:
        raise Conflict(
            f"{model.name} can have no version added: it is "
            f"{'hosted' if model.kind == 'hosted' else 'not of this project'}.",
            remedy="Add a new model.",
        )
    if jobs.find_active(actor, project_id, f"model:{model.id}") is not None:
        raise Conflict(
            f"A version of {model.name} is being added already.",
            remedy="Wait for its job, or cancel it.",
        )
    return model


def _failed_newest(tx: Session, model: Model | None, source: Source) -> ModelVersion | None:
    """The newest version, when adding it from the same source failed: it is tried again."""
    newest = next(iter(crud.versions(tx, model.id)), None) if model is not None else None
    again = newest is not None and newest.state == "failed" and newest.source == source.text
    return newest if again else None
