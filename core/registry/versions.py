"""Versions of models and who may use which: stages, approval, history, policy, overrides.

A version begins as a draft. An admin of the project approves it, with a comment; one approved
version at a time is in production, and the one before goes back to approved, so that it can be
put back at once. A retired version is kept for its history.
"""

from __future__ import annotations

from sqlalchemy.orm import Session

from core.kernel import audit, clock, database, events, ids
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, InvalidInput, NotFound
from core.registry import crud
from core.registry.models import Model, ModelVersion, Policy, StageChange
from core.registry.schemas import (
    FactsView,
    ModelView,
    PolicyView,
    ProductionPeriod,
    Stage,
    StageChangeView,
    VersionView,
)

# From each stage to which; a comment is required wherever it is not empty.
TRANSITIONS: dict[Stage, tuple[Stage, ...]] = {
    "draft": ("approved", "retired"),
    "approved": ("production", "draft", "retired"),
    "production": ("approved", "retired"),
    "retired": ("draft",),
}
_NEEDS_COMMENT = frozenset({("draft", "approved"), ("approved", "draft"), ("retired", "draft")})
_MAX_COMMENT = 2000
_FACTS = tuple(FactsView.model_fields)


def list_versions(actor: Actor, model_id: str) -> list[VersionView]:
    """The versions of a model, the newest first; none for a hosted one."""
    with database.reading() as session:
        readable_model(session, actor, model_id)
        rows = crud.versions(session, model_id)
    return [VersionView.model_validate(row) for row in rows]


def current_versions(actor: Actor, project_id: str) -> dict[str, VersionView]:
    """The current version of every model that a project can use, by the model's id."""
    actor.require("model:read", project_id)
    with database.reading() as session:
        rows = crud.current_versions(session, actor.tenant_id, project_id)
    return {row.model_id: VersionView.model_validate(row) for row in rows}


def get_version(actor: Actor, version_id: str) -> VersionView:
    """One version. NotFound when the actor cannot see it."""
    with database.reading() as session:
        return VersionView.model_validate(_readable(session, actor, version_id))


def find_version(actor: Actor, model_id: str, number: int | None = None) -> VersionView:
    """A model's version by its number; its current one when None.

    Raises:
        NotFound: There is none; names the numbers there are.
    """
    found = list_versions(actor, model_id)
    with database.reading() as session:
        model = readable_model(session, actor, model_id)
    for version in found:
        if version.number == number or (number is None and version.id == model.version_id):
            return version
    numbers = ", ".join(str(version.number) for version in found)
    raise NotFound(
        f"{model.name} has no version {number}." if number else f"{model.name} has no version.",
        remedy=f"There are: {numbers or 'none; a hosted model has no files'}.",
    )


def set_stage(actor: Actor, version_id: str, stage: Stage, comment: str = "") -> VersionView:
    """Bring a version to a stage; admins of the project only (of Bud, for a shared model).

    Putting one into production brings the one that was there back to approved.

    Raises:
        InvalidInput: A comment is missing or too long.
        Conflict: This stage cannot follow, or the version is not ready.
    """
    comment = comment.strip()
    with database.transaction() as tx:
        row = _readable(tx, actor, version_id)
        model = readable_model(tx, actor, row.model_id)
        actor.require("model:govern", row.project_id)
        _check_transition(row, model.name, stage, comment)
        if stage == "production":
            for other in crud.versions(tx, row.model_id):
                if other.stage == "production":
                    replaced = f"Replaced by version {row.number}."
                    _change_stage(tx, actor, other, "approved", replaced)
        _change_stage(tx, actor, row, stage, comment)
        tx.flush()
        settle(tx, model)
    events.publish("models.changed")
    return VersionView.model_validate(row)


def needs_comment(stage: Stage, to: Stage) -> bool:
    """Whether going from one stage to another needs a comment."""
    return (stage, to) in _NEEDS_COMMENT


def _check_transition(row: ModelVersion, name: str, stage: Stage, comment: str) -> None:
    what = f"{name} version {row.number}"
    allowed = TRANSITIONS[row.stage]  # type: ignore[index]  # a Stage, by construction
    if stage not in allowed:
        raise Conflict(
            f"{what} is {row.stage} and cannot become {stage}.",
            remedy=f"It can become: {', '.join(allowed)}.",
        )
    if stage in ("approved", "production") and row.state != "ready":
        raise Conflict(
            f"{what} is not ready ({row.state}).", remedy="Wait until it was added, or retry it."
        )
    if needs_comment(row.stage, stage) and not comment:  # type: ignore[arg-type]  # a Stage
        raise InvalidInput(
            f"To bring {what} from {row.stage} to {stage} needs a comment.",
            remedy="Say why; it stands in the history.",
        )
    if len(comment) > _MAX_COMMENT:
        raise InvalidInput(f"A comment has at most {_MAX_COMMENT} characters.", value=len(comment))


def _change_stage(tx: Session, actor: Actor, row: ModelVersion, to: Stage, comment: str) -> None:
    tx.add(
        StageChange(
            id=ids.new_id("stg"),
            tenant_id=row.tenant_id,
            project_id=row.project_id,
            model_id=row.model_id,
            version_id=row.id,
            version_number=row.number,
            from_stage=row.stage,
            to_stage=to,
            comment=comment,
            by_name=actor.name,
            at=clock.now(),
        )
    )
    audit.record(
        tx,
        actor,
        "model.stage_changed",
        f"model:{row.model_id}",
        project_id=row.project_id,
        version=row.number,
        before=row.stage,
        after=to,
        comment=comment,
    )
    row.stage = to


def stage_history(actor: Actor, model_id: str) -> list[StageChangeView]:
    """Every change of stage of a model's versions, oldest first; deleted versions too."""
    with database.reading() as session:
        readable_model(session, actor, model_id)
        rows = crud.stage_changes(session, model_id)
    return [StageChangeView.model_validate(row) for row in rows]


def production_history(actor: Actor, model_id: str) -> list[ProductionPeriod]:
    """What was in production when, the newest first."""
    periods: list[ProductionPeriod] = []
    for change in stage_history(actor, model_id):
        if change.from_stage == "production":
            periods[-1] = periods[-1].model_copy(update={"end": change.at})
        if change.to_stage == "production":
            periods.append(
                ProductionPeriod(
                    version_id=change.version_id,
                    version_number=change.version_number,
                    start=change.at,
                    end=None,
                )
            )
    return periods[::-1]


def policy(actor: Actor, project_id: str) -> PolicyView:
    """Which versions a project may deploy."""
    actor.require("model:read", project_id)
    with database.reading() as session:
        row = crud.policy(session, project_id)
    return PolicyView.model_validate(row) if row is not None else PolicyView()


def set_policy(
    actor: Actor,
    project_id: str,
    *,
    approved_only: bool | None = None,
    block_unscanned: bool | None = None,
) -> PolicyView:
    """Change which versions a project may deploy; None keeps a rule. Admins of the project only.

    What runs already goes on; the rules hold for what is deployed or started from now on.
    """
    actor.require("model:govern", project_id)
    with database.transaction() as tx:
        row = crud.policy(tx, project_id)
        if row is None:
            row = Policy(project_id=project_id, tenant_id=actor.tenant_id)
            row.approved_only = row.block_unscanned = False
            tx.add(row)
        if approved_only is not None:
            row.approved_only = approved_only
        if block_unscanned is not None:
            row.block_unscanned = block_unscanned
        audit.record(
            tx,
            actor,
            "model.policy_set",
            f"project:{project_id}",
            project_id=project_id,
            approved_only=row.approved_only,
            block_unscanned=row.block_unscanned,
        )
    return PolicyView.model_validate(row)


def override_scan(actor: Actor, version_id: str, reason: str) -> VersionView:
    """Let a version be deployed that its scan forbids. Admins of the project only.

    A later scan that finds anything else ends the override.

    Raises:
        InvalidInput: No reason is given.
        Conflict: There is nothing to override.
    """
    reason = reason.strip()
    with database.transaction() as tx:
        row = _readable(tx, actor, version_id)
        actor.require("model:govern", row.project_id)
        if not 1 <= len(reason) <= _MAX_COMMENT:
            raise InvalidInput(
                f"An override needs a reason of 1 to {_MAX_COMMENT} characters.",
                remedy="Say why these findings are acceptable here.",
            )
        if row.scan_state == "scanned" and row.severity != "critical":
            raise Conflict(
                f"The scan of version {row.number} forbids nothing ({row.severity}).",
                remedy="Nothing needs to be done.",
            )
        row.override_reason, row.override_by_name = reason, actor.name
        row.override_at = clock.now()
        audit.record(
            tx,
            actor,
            "model.scan_overridden",
            f"model:{row.model_id}",
            project_id=row.project_id,
            version=row.number,
            severity=row.severity,
            reason=reason,
        )
    return VersionView.model_validate(row)


def withdraw_override(actor: Actor, version_id: str) -> VersionView:
    """Take an override back. Admins of the project only; what runs already goes on."""
    with database.transaction() as tx:
        row = _readable(tx, actor, version_id)
        actor.require("model:govern", row.project_id)
        if row.override_at is None:
            raise Conflict(f"Version {row.number} has no override.")
        row.override_reason = row.override_by_name = row.override_at = None
        audit.record(
            tx,
            actor,
            "model.override_withdrawn",
            f"model:{row.model_id}",
            project_id=row.project_id,
            version=row.number,
        )
    return VersionView.model_validate(row)


def require_deployable(actor: Actor, project_id: str, model: ModelView) -> None:
    """Refuse a version that may not be deployed in a project.

    Args:
        actor: Who deploys.
        project_id: Into which project; its policy holds.
        model: As `pinned` gives it.

    Raises:
        Conflict: The version is not approved, or forbidden by its scan; says what to do.
    """
    if model.version_id is None:
        return
    why_not, remedy = blocked(actor, project_id, get_version(actor, model.version_id))
    if why_not:
        raise Conflict(f"{model.name} may not be deployed: {why_not}", remedy=remedy)


def pinned(actor: Actor, model_id: str, version_id: str | None) -> ModelView:
    """The model as it is with one version's files, whatever its current version is.

    Raises:
        NotFound: No such model, or it has no such version.
        Conflict: It is hosted, or its files are not there.
    """
    with database.reading() as session:
        row = readable_model(session, actor, model_id)
        version = crud.version(session, version_id) if version_id else None
    model = ModelView.model_validate(row)
    if version_id is not None and (version is None or version.model_id != model_id):
        raise NotFound(f"{model.name} has no version {version_id}.")
    if model.kind == "hosted":
        raise Conflict(
            f"{model.name} runs at its provider and cannot be deployed here.",
            remedy="Choose a model whose files are in the registry.",
        )
    if version is not None:
        facts = {name: getattr(version, name) for name in _FACTS}
        said = {"version_id": version.id, "state": version.state, "error": version.error}
        model = model.model_copy(update=facts | said)
    if model.state == "listed":
        raise Conflict(
            f"{model.name} is an entry of the catalogue without files.",
            remedy="Add its files from Hugging Face or another source first.",
        )
    if model.state != "ready" or model.path is None:
        raise Conflict(
            f"{model.name} is not ready: {model.error or model.state}.",
            remedy="Wait until it has been added, or add it again.",
        )
    return model


def blocked(actor: Actor, project_id: str, version: VersionView) -> tuple[str, str]:
    """Why a version may not be deployed in a project, and what to do; empty when it may."""
    rules = policy(actor, project_id)
    number = version.number
    if version.stage == "retired":
        return (
            f"version {number} is retired.",
            "Choose another version, or let an admin bring it back to draft.",
        )
    if rules.approved_only and version.stage not in ("approved", "production"):
        return (
            f"version {number} is {version.stage}, and this project deploys approved ones only.",
            "Let an admin approve it, or choose an approved version.",
        )
    if version.override_at is not None:
        return "", ""
    if version.severity == "critical":
        worst = [finding for finding in version.findings if finding.severity == "critical"]
        return (
            f"the scan of version {number} found {len(worst)} critical "
            f"finding{'' if len(worst) == 1 else 's'}: {worst[0].file}: {worst[0].what[:160]}",
            "Use other files of it; an admin can override this with a reason.",
        )
    if rules.block_unscanned and version.scan_state != "scanned":
        return (
            f"version {number} is not scanned, and this project deploys scanned ones only.",
            "Scan it, or let an admin override this with a reason.",
        )
    return "", ""


def settle(tx: Session, model: Model) -> None:
    """Let a model bear the facts of its current version, after its versions changed.

    Without a version that is ready, it has the state and the error of the newest one.
    """
    rows = crud.versions(tx, model.id)
    ready = [row for row in rows if row.state == "ready"]
    production = [row for row in ready if row.stage == "production"]
    in_use = [row for row in ready if row.stage != "retired"]
    current = next(iter(production or in_use or ready), None)
    if current is not None:
        for name in _FACTS:
            setattr(model, name, getattr(current, name))
        model.version_id, model.state, model.error = current.id, "ready", None
    elif rows:
        model.version_id = rows[0].id
        model.state, model.error = rows[0].state, rows[0].error


def readable_model(tx: Session, actor: Actor, model_id: str) -> Model:
    """A model's row. NotFound when the actor cannot see it."""
    model = crud.model(tx, model_id)
    visible = (
        model is not None
        and model.tenant_id == actor.tenant_id
        and (model.project_id is None or actor.may("model:read", model.project_id))
    )
    if model is None or not visible:
        raise NotFound(f"There is no model {model_id}.", remedy="See the Models page.")
    return model


def _readable(tx: Session, actor: Actor, version_id: str) -> ModelVersion:
    row = crud.version(tx, version_id)
    if row is None:
        raise NotFound(f"There is no version {version_id}.", remedy="See the model's versions.")
    readable_model(tx, actor, row.model_id)
    return row
