"""Use cases of routing rules: look, compare, set, go back. Versions are kept."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from core.kernel import audit, clock, database, events, ids
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound
from core.routing import composition, crud
from core.routing.models import RouteRules
from core.routing.schemas import RuleChange, Rules, RulesView


def list_rules(actor: Actor, project_id: str) -> list[RulesView]:
    """The rules of every model of a project that can be called."""
    actor.require("deployment:read", project_id)
    with database.reading() as session:
        newest = crud.newest(session, project_id)
    return [
        _view(model, newest.get((project_id, model))) for model in composition.models(project_id)
    ]


def history(actor: Actor, project_id: str, model: str) -> list[RulesView]:
    """The versions of a model's rules, the newest first. NotFound when there is no such model."""
    actor.require("deployment:read", project_id)
    _known(project_id, model)
    with database.reading() as session:
        rows = crud.versions(session, actor.tenant_id, project_id, model)
    return [_view(model, row) for row in (*rows, None)]


def changed(before: Rules, after: Rules) -> list[RuleChange]:
    """What differs between two versions, for a look before it is published."""
    return [
        RuleChange(rule=name, before=_told(old), after=_told(new))
        for name in Rules.model_fields
        if (old := getattr(before, name)) != (new := getattr(after, name))
    ]


def read(given: dict[str, Any]) -> Rules:
    """Rules from what a person gave.

    Raises:
        InvalidInput: A rule that does not exist, or a value out of range.
    """
    try:
        return Rules.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        rule = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"The rule {rule} cannot be used: {first['msg']}.",
            value=first["input"],
            remedy="See: bud routes set --help",
        ) from None


def set_rules(actor: Actor, project_id: str, model: str, rules: Rules) -> RulesView:
    """Publish other rules for a model; the same ones make no new version.

    Raises:
        InvalidInput: A fallback that is the model itself or stands twice.
        NotFound: No such model, or no such fallback, in the project.
    """
    actor.require("deployment:update", project_id)
    _known(project_id, model)
    _check_fallbacks(project_id, model, rules)
    with database.transaction() as tx:
        view = _added(tx, actor, project_id, model, rules)
    events.publish("routes.changed")
    return view


def roll_back(actor: Actor, project_id: str, model: str, version: int | None = None) -> RulesView:
    """Publish an earlier version again, as a new one; without a number the one before.

    Raises:
        NotFound: There is no such version, or none before.
    """
    versions = history(actor, project_id, model)
    wanted = versions[0].version - 1 if version is None else version
    found = [each for each in versions if each.version == wanted]
    if not found:
        raise NotFound(
            f"{model} has no version {wanted} of its rules.",
            remedy=f"There are 0 to {versions[0].version}: bud routes history {model}",
        )
    return set_rules(actor, project_id, model, found[0].rules)


def _added(tx: Session, actor: Actor, project_id: str, model: str, rules: Rules) -> RulesView:
    versions = crud.versions(tx, actor.tenant_id, project_id, model)
    now = _view(model, versions[0] if versions else None)
    if now.rules == rules:
        return now
    row = RouteRules(
        id=ids.new_id("rul"),
        tenant_id=actor.tenant_id,
        project_id=project_id,
        model=model,
        version=now.version + 1,
        rules=rules.model_dump(mode="json"),
        set_at=clock.now(),
        set_by_name=actor.name,
    )
    tx.add(row)
    changes = {each.rule: f"{each.before} → {each.after}" for each in changed(now.rules, rules)}
    audit.record(
        tx, actor, "route.changed", f"route:{model}", project_id=project_id,
        version=row.version, changes=changes,
    )  # fmt: skip
    return _view(model, row)


def _check_fallbacks(project_id: str, model: str, rules: Rules) -> None:
    if model in rules.fallbacks or len(set(rules.fallbacks)) != len(rules.fallbacks):
        raise InvalidInput(
            "A fallback is another model, and stands once.",
            value=", ".join(rules.fallbacks),
            remedy="Leave the model itself and repeats out.",
        )
    for fallback in rules.fallbacks:
        _known(project_id, fallback)


def _known(project_id: str, model: str) -> None:
    models = composition.models(project_id)
    if model not in models:
        raise NotFound(
            f"There is no model {model!r} in this project.",
            remedy=f"It has: {', '.join(models) or 'none yet'}.",
        )


def _view(model: str, row: RouteRules | None) -> RulesView:
    if row is None:
        return RulesView(model=model, version=0, rules=Rules(), set_at=None, set_by_name="")
    return RulesView(
        model=model,
        version=row.version,
        rules=Rules.model_validate(row.rules),
        set_at=row.set_at,
        set_by_name=row.set_by_name,
    )


def _told(value: object) -> str:
    if value is None:
        return "the gateway's own"
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return f"{value:g} s" if isinstance(value, float) else str(value)
