"""Composes the route table from what is deployed and hosted, rules, keys, limits and prices."""

from __future__ import annotations

import msgspec

from core.access import services as access
from core.accounts import api_keys
from core.captures import services as captures
from core.contracts.guardrails import Guardrail
from core.contracts.route_table import (
    ApiKey,
    BlockRule,
    Capability,
    Hedge,
    Hosted,
    Limit,
    Price,
    Project,
    Replica,
    Route,
    Shadow,
)
from core.deployments import hosted
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentRoute, HostedRoute
from core.guardrails import services as guardrails
from core.kernel import database
from core.kernel.actor import Actor
from core.limits import services as limits
from core.prices import services as prices
from core.projects import services as projects
from core.response_cache import services as response_cache
from core.routing import crud, targets
from core.routing.schemas import Rules

Composed = tuple[
    list[Route], list[ApiKey], list[Limit], list[BlockRule], list[Guardrail], list[Project]
]


# Where Bud's own model servers say how they are.
_HEALTH_PATH = "/health"


def servers(project_id: str) -> dict[str, list[Capability]]:
    """The deployments and hosted endpoints of a project by name, and what each can do."""
    found: dict[str, list[Capability]] = {
        each.name: list(each.capabilities)
        for each in deployments.routes()
        if each.project_id == project_id
    }
    hosted_ones = [each for each in hosted.routes() if each.project_id == project_id]
    return found | {each.name: [each.capability] for each in hosted_ones}


def hosted_names(project_id: str) -> list[str]:
    """The names of a project's hosted endpoints."""
    return [each.name for each in hosted.routes() if each.project_id == project_id]


def models(project_id: str) -> list[str]:
    """The names that callers of a project can use."""
    with database.reading() as session:
        rules = crud.rules_of(session, project_id)
    return sorted({*servers(project_id), *targets.names(rules)})


def compose() -> Composed:
    """The routes, keys, limits, blocking rules, guardrails and projects of now."""
    keys = [
        ApiKey(
            id=key.id,
            sha256=key.sha256,
            project_id=key.project_id,
            user_id=key.user_id,
            expires_unix_s=key.expires_at.timestamp() if key.expires_at else None,
            models=tuple(key.models),
            scopes=tuple(key.scopes),
            networks=tuple(key.networks),
        )
        for key in api_keys.active_keys()
    ]
    local = [_route(source) for source in deployments.routes()]
    routes = _ruled([*local, *[_hosted(source) for source in hosted.routes()]])
    return routes, keys, _limits(), _blocks(), guardrails.active_guardrails(), _projects()


def _ruled(routes: list[Route]) -> list[Route]:
    """The routes with the rules that hold for them, and those that hold targets."""
    with database.reading() as session:
        newest = crud.newest(session)
        rules = {place: Rules.model_validate(row.rules) for place, row in newest.items()}
    every = [*routes, *_with_targets(routes, rules)]
    return [
        _with(route, rules[route.project_id, route.model])
        if (route.project_id, route.model) in rules
        else route
        for route in every
    ]


def _with_targets(routes: list[Route], rules: dict[tuple[str, str], Rules]) -> list[Route]:
    own = {(route.project_id, route.model) for route in routes}
    found = [
        targets.composed(
            project_id,
            model,
            each,
            {route.model: route for route in routes if route.project_id == project_id},
        )
        for (project_id, model), each in rules.items()
        if each.targets and (project_id, model) not in own
    ]
    return [route for route in found if route is not None]


def _with(route: Route, rules: Rules) -> Route:
    replicas = [
        msgspec.structs.replace(replica, health_path=rules.health_path)
        if replica.hosted is not None
        else replica
        for replica in route.replicas
    ]
    return msgspec.structs.replace(
        route,
        replicas=replicas,
        policy=rules.policy,
        fallbacks=list(rules.fallbacks),
        timeouts=targets.timeouts(rules),
        hedge=_hedge(rules),
        shadow=Shadow(model=rules.shadow, percent=rules.shadow_percent) if rules.shadow else None,
        cached=rules.cached,
    )


def _hedge(rules: Rules) -> Hedge | None:
    if rules.hedge == "off":
        return None
    return Hedge(after_ms=rules.hedge_after_ms, percent=rules.hedge_percent)


def _limits() -> list[Limit]:
    return [
        Limit(
            project_id=limit.project_id,
            level=limit.level,
            subject=limit.subject,
            metric=limit.metric,
            window=limit.window,
            amount=limit.amount,
            when_alone=limit.when_alone,
        )
        for limit in limits.active_limits()
    ]


def _blocks() -> list[BlockRule]:
    return [
        BlockRule(name=block.name, project_id=block.project_id, **block.conditions.model_dump())
        for block in access.active_blocks()
    ]


def _projects() -> list[Project]:
    kept, caches = captures.active_captures(), response_cache.active_caches()
    return [
        Project(
            id=project.id,
            name=project.name,
            capture=kept.get(project.id),
            cache=caches.get(project.id),
        )
        for project in projects.list_projects(Actor.system())
    ]


def _route(source: DeploymentRoute) -> Route:
    return Route(
        model=source.name,
        project_id=source.project_id,
        deployment_id=source.deployment_id,
        upstream_model=source.name,
        capabilities=list(source.capabilities),
        replicas=[
            Replica(
                id=replica.id,
                base_url=f"http://127.0.0.1:{replica.port}",
                credential=replica.sealed_key,
                slots=replica.slots,
                health_path=_HEALTH_PATH,
            )
            for replica in source.replicas
        ],
        context_tokens=source.context_tokens,
        state=source.state,
        created_unix_s=int(source.created_at.timestamp()),
        price=_price(source),
    )


def _hosted(source: HostedRoute) -> Route:
    replica = Replica(
        id=source.endpoint_id,
        base_url=source.base_url,
        credential=source.sealed_credentials,
        hosted=Hosted(
            kind=source.kind,
            model=source.provider_model,
            account_id=source.account_id,
            options=source.options,
        ),
    )
    return Route(
        model=source.name,
        project_id=source.project_id,
        deployment_id=source.endpoint_id,
        upstream_model=source.provider_model,
        capabilities=[source.capability],
        replicas=[replica],
        context_tokens=source.context_tokens,
        created_unix_s=int(source.created_at.timestamp()),
        price=_price(source),
    )


def _price(source: DeploymentRoute | HostedRoute) -> Price | None:
    actor = Actor.system(source.tenant_id)
    found = prices.token_price(actor, source.project_id, source.name)
    if found is None:
        return None
    return Price(
        input_usd_per_million_tokens=found.input_usd_per_million_tokens,
        output_usd_per_million_tokens=found.output_usd_per_million_tokens,
        cached_usd_per_million_tokens=found.cached_usd_per_million_tokens,
    )
