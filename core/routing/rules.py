"""Use cases of routing rules: look, compare, set, go back. Versions are kept."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import ValidationError
from sqlalchemy.orm import Session

from core.contracts.route_table import Capability, Policy
from core.kernel import audit, clock, database, events, ids, ranges
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, InvalidInput, NotFound
from core.projects import services as projects
from core.routing import composition, crud, targets
from core.routing.models import RouteRules
from core.routing.schemas import AMONG_TARGETS, Proposal, RuleChange, Rules, RulesView, TargetRule

_RANGE_ERRORS = {"greater_than", "greater_than_equal", "less_than_equal"}
# What the names of rules end with, and how it is told.
_UNITS = {"_ms": "ms", "_percent": "%", "_s": "s"}
_NAMES = {
    "hedge_percent": "hedged at most",
    "shadow": "shadow to",
    "shadow_percent": "shadowed",
    "cached": "answers kept",
}


def list_rules(actor: Actor, project_id: str) -> list[RulesView]:
    """The rules of every model of a project that can be called."""
    _require(actor, "deployment:read", project_id)
    with database.reading() as session:
        newest = crud.newest(session, project_id)
    return [
        _view(model, newest.get((project_id, model))) for model in composition.models(project_id)
    ]


def shared_names(actor: Actor, project_id: str, capability: Capability | None = None) -> list[str]:
    """The names of a project's routes with targets: with one capability, or all."""
    _require(actor, "deployment:read", project_id)
    with database.reading() as session:
        rules = crud.rules_of(session, project_id)
    servers = composition.servers(project_id)
    return [
        name
        for name in targets.names(rules)
        if capability is None or capability in targets.capabilities(rules[name], servers)
    ]


def require_models(actor: Actor, project_id: str, names: Iterable[str]) -> None:
    """Whether callers of a project can use all of these names.

    Raises NotFound: There is no such model; names the nearest.
    """
    _require(actor, "deployment:read", project_id)
    for name in names:
        _known(project_id, name)


def history(actor: Actor, project_id: str, model: str) -> list[RulesView]:
    """The versions of a model's rules, the newest first. NotFound when there is no such model."""
    _require(actor, "deployment:read", project_id)
    with database.reading() as session:
        rows = crud.versions(session, actor.tenant_id, project_id, model)
    if not rows:
        # Also a route that was removed has a history, and can be brought back.
        _known(project_id, model)
    return [_view(model, row) for row in (*rows, None)]


def current(actor: Actor, project_id: str, model: str, *, new: bool = False) -> Rules:
    """The rules that hold for a model; with `new` also for one that is not there yet.

    Raises NotFound: There is no such model.
    """
    _require(actor, "deployment:read", project_id)
    with database.reading() as session:
        view = _newest(session, actor, project_id, model)
    if not view.version and not new:
        _known(project_id, model)
    return view.rules


def changed(before: Rules, after: Rules) -> list[RuleChange]:
    """What differs between two versions, for a look before it is published."""
    return [
        RuleChange(rule=name, before=_told(name, old), after=_told(name, new))
        for name in Rules.model_fields
        if (old := getattr(before, name)) != (new := getattr(after, name))
    ]


def lines(rules: Rules) -> list[str]:
    """The rules in words, one a line; each target and each fallback has a line of its own.

    What says nothing without another rule is left out.
    """
    found = [f"target: {_item(target)}" for target in rules.targets]
    found += [f"fallback {number}: {name}" for number, name in enumerate(rules.fallbacks, 1)]
    unused = {"targets", "fallbacks"}
    unused |= {"hedge_after_ms"} if rules.hedge != "delay" else set()
    unused |= {"hedge_percent"} if rules.hedge == "off" else set()
    unused |= {"shadow_percent"} if not rules.shadow else set()
    others = (name for name in Rules.model_fields if name not in unused)
    return found + [f"{_name(name)}: {_told(name, getattr(rules, name))}" for name in others]


def read(given: dict[str, Any]) -> Rules:
    """Rules from what a person gave.

    Raises:
        InvalidInput: A rule that does not exist, or a value out of range.
    """
    try:
        return Rules.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] in _RANGE_ERRORS:
            raise _out_of_range(first["loc"], first["input"], given) from None
        rule = ".".join(str(part) for part in first["loc"]) or "targets"
        raise InvalidInput(
            f"The rule {rule} cannot be used: {first['msg']}.",
            value=first["input"],
            remedy="See: bud routes set --help",
        ) from None


def _out_of_range(at: tuple[int | str, ...], value: float, given: dict[str, Any]) -> InvalidInput:
    """A number that is too low or too high, under the name that the person knows it by."""
    rule = str(at[-1])
    if at[0] == "targets":
        label = f"{rule.title()} of {given['targets'][at[1]]['model']}"
        field = TargetRule.model_fields[rule]
    else:
        unit = next((unit for ending, unit in _UNITS.items() if rule.endswith(ending)), "")
        label = f"{_name(rule).capitalize()} ({unit})"
        field = Rules.model_fields[rule]
    bounds = {
        name: ranges.told(getattr(each, name))
        for each in field.metadata
        for name in ("ge", "gt", "le")
        if hasattr(each, name)
    }
    least = f"{bounds['ge']} to" if "ge" in bounds else f"more than {bounds['gt']}, up to"
    return ranges.out_of_range(label, value, f"{least} {bounds['le']}")


def propose(actor: Actor, project_id: str, model: str, rules: Rules) -> Proposal:
    """What publishing these rules would change; nothing is published.

    Raises:
        InvalidInput: Rules that the model cannot have: see `core.routing.targets.check`.
        NotFound: No such model, and no targets for a new one; or no such fallback or target.
    """
    _require(actor, "deployment:update", project_id)
    with database.reading() as session:
        _check(session, project_id, model, rules)
        now = _newest(session, actor, project_id, model)
    return Proposal(
        model=model,
        version=now.version,
        before=now.rules,
        rules=rules,
        changes=tuple(changed(now.rules, rules)),
    )


def set_rules(
    actor: Actor, project_id: str, model: str, rules: Rules, *, seen_version: int | None = None
) -> RulesView:
    """Publish other rules for a model; the same ones make no new version.

    With targets, a name that nothing has becomes a route of its own.

    Args:
        actor: Who does it.
        project_id: Of the model.
        model: As callers name it.
        rules: All that are to hold.
        seen_version: The version they were made from; None does not ask.

    Raises:
        Conflict: Somebody else has published since `seen_version`.
        InvalidInput: Rules that the model cannot have.
        NotFound: No such model, and no targets for a new one; or no such fallback or target.
    """
    _require(actor, "deployment:update", project_id)
    with database.transaction() as tx:
        _check(tx, project_id, model, rules)
        now = _newest(tx, actor, project_id, model)
        if seen_version not in (None, now.version):
            raise Conflict(
                f"Version {now.version} of the rules of {model} was published by "
                f"{now.set_by_name or 'nobody'} in the meantime.",
                value=seen_version,
                remedy="Look at it, and publish again.",
            )
        view = _added(tx, actor, project_id, now, rules)
    events.publish("routes.changed")
    return view


def remove(actor: Actor, project_id: str, model: str) -> RulesView:
    """Take away a route that has targets; its versions stay, and one can be published again.

    Raises:
        Conflict: Another route falls back to it.
        InvalidInput: It is the route of a deployment or hosted model.
        NotFound: There is no such route.
    """
    _require(actor, "deployment:update", project_id)
    if model in composition.servers(project_id):
        raise InvalidInput(
            f"{model} is a deployment or hosted model, whose route goes with it.", value=model
        )
    return set_rules(actor, project_id, model, Rules())


def roll_back(actor: Actor, project_id: str, model: str, version: int | None = None) -> RulesView:
    """Publish an earlier version again, as a new one; without a number the one before.

    Raises:
        NotFound: There is no such version, or none before.
        Conflict: It has no targets, so the route would be gone: `remove` is for that.
    """
    versions = history(actor, project_id, model)
    wanted = versions[0].version - 1 if version is None else version
    found = [each for each in versions if each.version == wanted]
    if not found:
        raise NotFound(
            f"{model} has no version {wanted} of its rules.",
            remedy=f"There are 0 to {versions[0].version}: bud routes history {model}",
        )
    if versions[0].rules.targets and not found[0].rules.targets:
        raise Conflict(
            f"Version {wanted} of {model} has no targets: the route would be gone.",
            remedy=f"Take it away, if that is meant: bud routes remove {model}",
        )
    return set_rules(actor, project_id, model, found[0].rules)


def _require(actor: Actor, permission: str, project_id: str) -> None:
    """Raises PermissionDenied; NotFound when the project is another tenant's."""
    actor.require(permission, project_id)
    projects.get_project(actor, project_id)


def _newest(tx: Session, actor: Actor, project_id: str, model: str) -> RulesView:
    versions = crud.versions(tx, actor.tenant_id, project_id, model)
    return _view(model, versions[0] if versions else None)


def _added(tx: Session, actor: Actor, project_id: str, now: RulesView, rules: Rules) -> RulesView:
    if now.rules == rules:
        return now
    model = now.model
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


def _check(tx: Session, project_id: str, model: str, rules: Rules) -> None:
    servers = composition.servers(project_id)
    others = crud.rules_of(tx, project_id)
    own = others.pop(model, Rules())
    if rules.targets:
        targets.check(project_id, model, rules, servers, others)
    elif own.targets and model not in servers:
        _check_removal(model, rules, others)
    else:
        _known(project_id, model)
    _check_details(project_id, model, rules)
    _check_hedge(rules)
    _check_shadow(project_id, model, rules, others)
    targets.check_fallbacks(model, rules, others)
    _check_fallbacks(project_id, model, rules)


def _check_removal(model: str, rules: Rules, others: dict[str, Rules]) -> None:
    if rules != Rules():
        raise InvalidInput(
            f"{model} needs a target: it is no deployment or hosted model itself.",
            remedy=f"Name one with --target, or take it away: bud routes remove {model}",
        )
    users = [name for name, each in sorted(others.items()) if model in each.fallbacks]
    if users:
        raise Conflict(
            f"{', '.join(users)} falls back to {model}.",
            remedy=f"Take the fallback away: bud routes set {users[0]} --fallback ''",
        )


def _check_details(project_id: str, model: str, rules: Rules) -> None:
    if rules.split_by != "request" and not rules.targets:
        raise InvalidInput(
            f"{model} has no targets to split requests among.",
            value=rules.split_by,
            remedy="Make a route with targets: bud routes set NAME --target … --split-by key",
        )
    if rules.policy in AMONG_TARGETS and not rules.targets:
        others = ", ".join(each for each in get_args(Policy) if each not in AMONG_TARGETS)
        raise InvalidInput(
            f"{model} has no targets, and its replicas are alike in weight and price.",
            value=rules.policy,
            remedy=f"Choose {others}; or make a route with targets: bud routes set NAME --target …",
        )
    if rules.policy == "cheapest" and rules.split_by == "key":
        raise InvalidInput(
            "The cheapest target gets every request, whose key it may be.",
            value="split by key",
            remedy="Split by request, or choose another policy.",
        )
    if rules.health_path and model not in composition.hosted_names(project_id):
        raise InvalidInput(
            f"{model} is no hosted model; model servers of Bud's own are asked without this.",
            value=rules.health_path,
            remedy="Leave the health path out.",
        )


def _check_hedge(rules: Rules) -> None:
    if (rules.hedge == "delay") != (rules.hedge_after_ms is not None):
        raise InvalidInput(
            "A hedge after a delay needs the delay, and no other hedge has one.",
            value=f"{rules.hedge}, {_told('hedge_after_ms', rules.hedge_after_ms)}",
            remedy="Such as: bud routes set NAME --hedge 250",
        )


def _check_shadow(project_id: str, model: str, rules: Rules, others: dict[str, Rules]) -> None:
    shadow = rules.shadow
    if not shadow:
        return
    if shadow == model:
        raise InvalidInput(
            f"Copies of the requests to {model} go to another model.",
            value=shadow,
            remedy="Choose another one.",
        )
    _known(project_id, shadow)
    servers = composition.servers(project_id)

    def can(name: str, its: Rules) -> set[Capability]:
        return set(targets.capabilities(its, servers) if its.targets else servers.get(name, []))

    mine, its = can(model, rules), can(shadow, others.get(shadow, Rules()))
    if not mine & its:
        told = f"{model}: {', '.join(sorted(mine))}; {shadow}: {', '.join(sorted(its))}"
        raise InvalidInput(
            f"{shadow} can do nothing that {model} can.",
            value=told,
            remedy="Choose a model that can do the same.",
        )


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
        near = difflib.get_close_matches(model, models, n=3, cutoff=0.4) or models[:3]
        raise NotFound(
            f"There is no model {model!r} in this project.",
            value=model,
            remedy=f"The nearest: {', '.join(near)}. All: bud routes list."
            if near
            else "It has none yet: bud deploy.",
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


def _name(rule: str) -> str:
    for ending in _UNITS:
        rule = rule.removesuffix(ending) if rule not in _NAMES else rule
    return _NAMES.get(rule, rule).replace("_", " ")


def _told(rule: str, value: object) -> str:
    if value is None:
        return "not set" if rule == "hedge_after_ms" else "the gateway's own"
    if isinstance(value, tuple):
        return ", ".join(_item(each) for each in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g} {next(unit for ending, unit in _UNITS.items() if rule.endswith(ending))}"
    return str(value) or "none"


def _item(value: str | TargetRule) -> str:
    if isinstance(value, str):
        return value
    later = f" at priority {value.priority}" if value.priority else ""
    return f"{value.model} × {value.weight:g}{later}"
