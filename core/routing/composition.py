"""Composes the route table from what is deployed and hosted, rules, keys, limits and prices."""

from __future__ import annotations

import msgspec

from core.access import services as access
from core.accounts import api_keys
from core.contracts.route_table import (
    ApiKey,
    BlockRule,
    Hosted,
    Limit,
    PhaseTimeouts,
    Price,
    Project,
    Replica,
    Route,
)
from core.deployments import hosted
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentRoute, HostedRoute
from core.kernel import database
from core.kernel.actor import Actor
from core.limits import services as limits
from core.prices import services as prices
from core.projects import services as projects
from core.routing import crud
from core.routing.schemas import Rules

Composed = tuple[list[Route], list[ApiKey], list[Limit], list[BlockRule], list[Project]]


def models(project_id: str) -> list[str]:
    """The names that callers of a project can use."""
    names = [each.name for each in deployments.routes() if each.project_id == project_id]
    names += [each.name for each in hosted.routes() if each.project_id == project_id]
    return sorted(names)


def compose() -> Composed:
    """The routes, keys, limits, blocking rules and projects of now."""
    keys = [
        ApiKey(
            id=key.id,
            sha256=key.sha256,
            project_id=key.project_id,
            user_id=key.user_id,
            expires_unix_s=key.expires_at.timestamp() if key.expires_at else None,
            models=key.models,
            scopes=tuple(key.scopes),
            networks=tuple(key.networks),
        )
        for key in api_keys.active_keys()
    ]
    local = [_route(source) for source in deployments.routes()]
    routes = _ruled([*local, *[_hosted(source) for source in hosted.routes()]])
    return routes, keys, _limits(), _blocks(), _projects()


def _ruled(routes: list[Route]) -> list[Route]:
    """The routes with the rules that hold for them."""
    with database.reading() as session:
        newest = crud.newest(session)
        rules = {place: Rules.model_validate(row.rules) for place, row in newest.items()}
    return [
        _with(route, rules[route.project_id, route.model])
        if (route.project_id, route.model) in rules
        else route
        for route in routes
    ]


def _with(route: Route, rules: Rules) -> Route:
    timeouts = PhaseTimeouts(
        connect_s=rules.connect_s,
        first_token_s=rules.first_token_s,
        between_tokens_s=rules.between_tokens_s,
        total_s=rules.total_s,
    )
    return msgspec.structs.replace(
        route, policy=rules.policy, fallbacks=list(rules.fallbacks), timeouts=timeouts
    )


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
    return [
        Project(id=project.id, name=project.name)
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
