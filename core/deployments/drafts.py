"""Use cases of the deploy wizard: a draft is begun, filled step by step, confirmed or cancelled."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from core.deployments import crud, options, predictions, services
from core.deployments.models import DeploymentDraft
from core.deployments.schemas import STEPS, DeploymentView, DraftContent, DraftStep, DraftView
from core.kernel import audit, clock, database, ids
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound
from core.registry import services as registry
from core.registry import versions


def start(
    actor: Actor, project_id: str, model_id: str = "", version_id: str | None = None
) -> DraftView:
    """Begin a draft; with a model, and a version of it, its first step is done.

    Raises:
        NotFound: There is no such model in the project, or it has no such version.
        Conflict: The version has no files that could run.
    """
    actor.require("deployment:create", project_id)
    content = DraftContent(model_version_id=version_id)
    if model_id:
        content = _with_model(actor, project_id, content, model_id)
    row = DeploymentDraft(
        id=ids.new_id("dft"),
        tenant_id=actor.tenant_id,
        project_id=project_id,
        step=STEPS[1] if model_id else STEPS[0],
        content=content.model_dump(mode="json"),
        created_by_name=actor.name,
        created_at=clock.now(),
        updated_at=clock.now(),
    )
    with database.transaction() as tx:
        tx.add(row)
        _record(tx, actor, "started", row)
    return _view(row)


def list_drafts(actor: Actor, project_id: str) -> list[DraftView]:
    """The drafts of a project, the newest first."""
    actor.require("deployment:read", project_id)
    with database.reading() as session:
        return [_view(row) for row in crud.drafts(session, actor.tenant_id, project_id)]


def get_draft(actor: Actor, draft_id: str) -> DraftView:
    """One draft. NotFound when the actor cannot see it, or when it was confirmed or cancelled."""
    with database.reading() as session:
        return _view(_row(actor, session, draft_id))


def save(actor: Actor, draft_id: str, step: DraftStep, **changes: Any) -> DraftView:
    """Keep what was chosen, and go to a step.

    Args:
        actor: Who chose.
        draft_id: The draft.
        step: Where to go on.
        changes: Fields of `DraftContent`. A new model takes its own name and lets Bud choose
            the rest anew, its current version and its task unless they are named; another
            version or task lets Bud choose anew what depends on it.

    Raises:
        InvalidInput: A number out of its range, or a model that cannot be deployed.
        NotFound: There is no such draft, model or version.
        Conflict: The version has no files that could run.
    """
    draft = get_draft(actor, draft_id)
    actor.require("deployment:create", draft.project_id)
    content = DraftContent.model_validate(draft.content.model_dump() | changes)
    if content.model_id != draft.content.model_id:
        named = {name: changes.get(name) for name in ("model_version_id", "task")}
        content = content.model_copy(update=named)
        content = _with_model(actor, draft.project_id, content, content.model_id)
    elif _is_other(content, draft.content):
        versions.pinned(actor, content.model_id, content.model_version_id)
        content = content.model_copy(update=_CHOSEN_ANEW)
    _check(content)
    with database.transaction() as tx:
        row = _row(actor, tx, draft_id)
        row.step, row.content = step, content.model_dump(mode="json")
        row.updated_at = clock.now()
        _record(tx, actor, "saved", row, step=step)
    return _view(row)


def cancel(actor: Actor, draft_id: str) -> None:
    """Delete a draft."""
    _delete(actor, draft_id, "cancelled")


def confirm(actor: Actor, draft_id: str) -> DeploymentView:
    """Deploy what a draft holds, and delete the draft. Raises as `services.deploy` does."""
    draft = get_draft(actor, draft_id)
    deployed = services.deploy(actor, options.request_of(draft.project_id, draft.content))
    _delete(actor, draft_id, "confirmed", deployment=deployed.id)
    return deployed


def _is_other(content: DraftContent, before: DraftContent) -> bool:
    now = (content.model_version_id, content.task)
    return now != (before.model_version_id, before.task)


# What depends on how large a model's files are, and on its task; None is left to Bud.
_CHOSEN_ANEW: dict[str, None] = dict.fromkeys(("context_tokens", "slots", "threads"))


def _with_model(
    actor: Actor, project_id: str, content: DraftContent, model_id: str
) -> DraftContent:
    model = registry.get_model(actor, model_id)
    if model.project_id not in (None, project_id):
        raise NotFound(f"There is no model {model_id} in this project.")
    if content.model_version_id is not None:
        versions.pinned(actor, model_id, content.model_version_id)
    return content.model_copy(
        update={
            "model_id": model.id,
            "name": services.suggest_name(actor, project_id, model),
            **_CHOSEN_ANEW,
            "replicas": 1,
        }
    )


def _check(content: DraftContent) -> None:
    predictions.check_load(content.load)
    for name, target in (("TTFT", content.ttft_ms), ("TPOT", content.tpot_ms)):
        if target is not None and not 0 < target < 1e7:
            raise InvalidInput(
                f"The target for {name} must be over 0 ms and under 10,000 s.",
                value=target,
                remedy="Give milliseconds, or leave it empty.",
            )


def _delete(actor: Actor, draft_id: str, verb: str, **details: object) -> None:
    with database.transaction() as tx:
        row = _row(actor, tx, draft_id)
        actor.require("deployment:create", row.project_id)
        tx.delete(row)
        _record(tx, actor, verb, row, **details)


def _row(actor: Actor, tx: Session, draft_id: str) -> DeploymentDraft:
    row = crud.draft(tx, draft_id)
    if (
        row is None
        or row.tenant_id != actor.tenant_id
        or not actor.may("deployment:read", row.project_id)
    ):
        raise NotFound(
            f"There is no draft {draft_id[:60]}.",
            remedy="It was deployed or cancelled. Begin anew on the Deployments page.",
        )
    return row


def _view(row: DeploymentDraft) -> DraftView:
    return DraftView.model_validate(row)


def _record(tx: Session, actor: Actor, verb: str, row: DeploymentDraft, **details: object) -> None:
    audit.record(
        tx,
        actor,
        f"deployment_draft.{verb}",
        f"deployment_draft:{row.id}",
        project_id=row.project_id,
        **details,
    )
