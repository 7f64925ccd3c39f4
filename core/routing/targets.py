"""Routes that hold targets: what they may be, and what they become in the route table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from sqlalchemy.orm import Session

from core.contracts.route_table import Capability, PhaseTimeouts, Price, Route, RouteTarget
from core.deployments import services as deployments
from core.deployments.states import STATES
from core.kernel.errors import InvalidInput, NotFound
from core.routing import crud
from core.routing.schemas import Rules

_MOST_SHOWN = 10


def names(rules: Mapping[str, Rules]) -> list[str]:
    """Which of these models, with their rules, are routes that hold targets."""
    return sorted(model for model, each in rules.items() if each.targets)


def capabilities(rules: Rules, servers: Mapping[str, list[Capability]]) -> list[Capability]:
    """What every target of a route can do, of those that are there."""
    found = [servers[target.model] for target in rules.targets if target.model in servers]
    return _common(found) if found else []


def check(
    project_id: str,
    model: str,
    wanted: Rules,
    known: Mapping[str, list[Capability]],
    others: Mapping[str, Rules],
) -> None:
    """Whether a route of this name may have these targets.

    Args:
        project_id: Of the route.
        model: What it is called.
        wanted: With the targets.
        known: The deployments and hosted models of the project, with what each can do.
        others: The rules of the project's other models.

    Raises:
        InvalidInput: The name is taken, or the targets make no sense.
        NotFound: A target is no deployment or hosted model of the project.
    """
    if model in known:
        raise InvalidInput(
            f"{model} is the name of a deployment or hosted model; a route with targets has a "
            "name of its own.",
            value=model,
            remedy=f"Give the route another name, such as {model}-all. To change how {model} "
            f"itself is routed: on the page Gateway click {model}, then Edit.",
        )
    deployments.require_good_name(model, "route")
    targets = [target.model for target in wanted.targets]
    twice = {name for name in targets if targets.count(name) > 1}
    if twice:
        raise InvalidInput("A target stands once in a route.", value=", ".join(sorted(twice)))
    for name in targets:
        _check_target(project_id, name, known, others)
    if not any(target.weight > 0 for target in wanted.targets):
        raise InvalidInput(
            f"All targets of {model} have the weight 0: nothing would answer.",
            remedy="Give one of them a weight above 0.",
        )
    if not _common([known[name] for name in targets]):
        told = "; ".join(f"{name}: {', '.join(known[name])}" for name in targets)
        raise InvalidInput("The targets of a route must have a capability in common.", value=told)
    _check_cycles(model, wanted, targets, others)


def _check_target(
    project_id: str,
    name: str,
    known: Mapping[str, list[Capability]],
    others: Mapping[str, Rules],
) -> None:
    if name in known:
        return
    if name in others and others[name].targets:
        raise InvalidInput(
            f"{name} has targets itself; a target is a deployment or a hosted model.",
            value=name,
            remedy=f"Name its targets: {', '.join(each.model for each in others[name].targets)}.",
        )
    elsewhere = any(
        source.name == name and source.project_id != project_id for source in deployments.routes()
    )
    hint = " Targets are of the route's own project." if elsewhere else ""
    shown = ", ".join(sorted(known)[:_MOST_SHOWN]) or "none yet"
    raise NotFound(
        f"There is no deployment or hosted model {name!r} in this project.{hint}",
        value=name,
        remedy=f"It has: {shown}.",
    )


def _check_cycles(
    model: str, wanted: Rules, targets: list[str], others: Mapping[str, Rules]
) -> None:
    """A fallback must not lead to what has just failed."""
    own = sorted(set(targets) & set(wanted.fallbacks))
    if own:
        raise InvalidInput(
            f"{own[0]} is a target of {model} and its fallback too.",
            value=own[0],
            remedy="Leave it out of the fallbacks, or give it a higher --target priority.",
        )
    for name in targets:
        if name in others and model in others[name].fallbacks:
            raise InvalidInput(
                f"{name} falls back to {model}, which would ask {name} again.",
                value=name,
                remedy=f"Take the fallback away: bud routes set {name} --fallback ''",
            )


def check_fallbacks(model: str, wanted: Rules, others: Mapping[str, Rules]) -> None:
    """Raises InvalidInput: a fallback is a route that has the model as its target."""
    for name in wanted.fallbacks:
        rules = others.get(name)
        if rules and model in {target.model for target in rules.targets}:
            raise InvalidInput(
                f"{name} would ask {model} again: it is a target of it.",
                value=name,
                remedy="Choose another fallback.",
            )


def composed(
    project_id: str, model: str, rules: Rules, routes: Mapping[str, Route]
) -> Route | None:
    """The route of a model with targets; None when none of them is there any more.

    Args:
        project_id: Of the route.
        model: What it is called.
        rules: With the targets.
        routes: Those of the project's deployments and hosted models, by name.
    """
    held = [target for target in rules.targets if target.model in routes]
    found = [routes[target.model] for target in held]
    if not found:
        return None
    taking = [routes[target.model] for target in held if target.weight > 0] or found
    digest = hashlib.sha256(f"{project_id}/{model}".encode()).hexdigest()
    lengths = [route.context_tokens for route in found if route.context_tokens]
    return Route(
        model=model,
        project_id=project_id,
        deployment_id=f"rte_{digest[:24]}",
        upstream_model=model,
        capabilities=_common([route.capabilities for route in found]),
        context_tokens=min(lengths, default=0),
        state=min((route.state for route in taking), key=_state_rank),
        created_unix_s=min(route.created_unix_s for route in found),
        price=_highest([route.price for route in found if route.price]),
        targets=[
            RouteTarget(model=target.model, weight=target.weight, priority=target.priority)
            for target in held
        ],
        split_by=rules.split_by,
    )


def timeouts(rules: Rules) -> PhaseTimeouts:
    """Those of the rules."""
    return PhaseTimeouts(
        connect_s=rules.connect_s,
        first_token_s=rules.first_token_s,
        between_tokens_s=rules.between_tokens_s,
        total_s=rules.total_s,
    )


def _common(capabilities: Iterable[list[Capability]]) -> list[Capability]:
    first, *rest = capabilities
    return [each for each in first if all(each in other for other in rest)]


def _state_rank(state: str) -> tuple[bool, bool, int]:
    serves = state in STATES and STATES[state].serves
    return (not serves, state != "restarting", list(STATES).index(state))


def _highest(prices: list[Price]) -> Price | None:
    """What a request costs at most, for budgets that are reserved before a target is chosen."""
    if not prices:
        return None

    def most(values: Iterable[float | None]) -> float | None:
        return max((value for value in values if value is not None), default=None)

    return Price(
        input_usd_per_million_tokens=most(each.input_usd_per_million_tokens for each in prices),
        output_usd_per_million_tokens=most(each.output_usd_per_million_tokens for each in prices),
        cached_usd_per_million_tokens=most(each.cached_usd_per_million_tokens for each in prices),
    )


def is_taken(tx: Session, project_id: str, name: str) -> bool:
    """Whether a route with targets has this name."""
    return name in names(crud.rules_of(tx, project_id))


def users(tx: Session, project_id: str, name: str) -> list[str]:
    """The routes that have a deployment or hosted model of this name as a target."""
    return [
        model
        for model, rules in sorted(crud.rules_of(tx, project_id).items())
        if name in {target.model for target in rules.targets}
    ]


deployments.register_route_names(is_taken, users)
