"""Routes with what the gateway does with them now, from the table and the workers' own word."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from core.contracts import gateway_state
from core.contracts.gateway_state import Breaker, ReplicaState, TargetState, WorkerState
from core.contracts.route_table import Price, Replica, Route, RouteTarget
from core.kernel import clock
from core.kernel.actor import Actor
from core.kernel.errors import NotFound
from core.kernel.settings import settings
from core.routing import rules, services
from core.routing.schemas import LiveReplica, LiveTarget, RouteKind, RouteView, RulesView

_WORST: tuple[Breaker, ...] = ("open", "half_open", "closed")


class _Routes(msgspec.Struct):
    """The part of a route table that is shown: keys and limits can be tens of thousands."""

    routes: list[Route] = []


def list_routes(actor: Actor, project_id: str) -> list[RouteView]:
    """Every route of a project as it is published, by name, with its live state."""
    versions = {view.model: view for view in rules.list_rules(actor, project_id)}
    routes = {route.model: route for route in _published(project_id)}
    workers = gateway_state.read(settings().data_dir, clock.unix_s())
    return [
        _view(routes[model], versions[model], routes, workers)
        for model in sorted(versions.keys() & routes.keys())
    ]


def get_route(actor: Actor, project_id: str, model: str) -> RouteView:
    """One route with its live state. NotFound names those there are."""
    routes = list_routes(actor, project_id)
    for view in routes:
        if view.model == model:
            return view
    raise NotFound(
        f"There is no route {model!r} in this project.",
        remedy=f"There are: {', '.join(view.model for view in routes) or 'none yet'}.",
    )


@dataclass(frozen=True)
class Capacity:
    """What the replicas of a route can work on at once, and what they do now.

    Attributes:
        slots: Of all replicas that Bud runs.
        in_flight: Requests at these, of all routes together, as of about a second ago.
        hosted: How many replicas are at providers, whose slots nobody knows.
    """

    slots: int
    in_flight: int
    hosted: int


def capacity(project_id: str, model: str) -> Capacity | None:
    """The capacity of a route with that of its targets; None when there is no such route."""
    routes = {route.model: route for route in _published(project_id)}
    if model not in routes:
        return None
    parts = [routes[model], *(routes[t.model] for t in routes[model].targets if t.model in routes)]
    replicas = {replica.id: replica for route in parts for replica in route.replicas}
    own = {id_ for id_, replica in replicas.items() if replica.hosted is None}
    workers = gateway_state.read(settings().data_dir, clock.unix_s())
    return Capacity(
        slots=sum(replicas[id_].slots for id_ in own),
        in_flight=sum(
            each.in_flight for worker in workers for each in worker.replicas if each.id in own
        ),
        hosted=len(replicas) - len(own),
    )


def _published(project_id: str) -> list[Route]:
    """The routes of the published table; none before the first one."""
    try:
        table = msgspec.json.decode(services.table_path().read_bytes(), type=_Routes)
    except (FileNotFoundError, msgspec.DecodeError):
        return []
    return [route for route in table.routes if route.project_id == project_id]


def _view(
    route: Route, version: RulesView, routes: dict[str, Route], workers: list[WorkerState]
) -> RouteView:
    targets = route.targets or [RouteTarget(model=route.model)]
    found = [target for target in targets if target.model in routes]
    return RouteView(
        **dict(version),
        kind=_kind(route),
        state=route.state,
        capabilities=tuple(route.capabilities),
        targets=tuple(_target(route, each, found, routes[each.model], workers) for each in found),
        workers=len(workers),
    )


def _kind(route: Route) -> RouteKind:
    if route.targets:
        return "targets"
    return "hosted" if any(replica.hosted for replica in route.replicas) else "deployment"


def _target(
    route: Route,
    target: RouteTarget,
    beside: list[RouteTarget],
    own: Route,
    workers: list[WorkerState],
) -> LiveTarget:
    price = own.price or Price()
    place = (route.project_id, route.model, own.deployment_id)
    traffic = [each for worker in workers for each in worker.targets if _place(each) == place]
    return LiveTarget(
        model=target.model,
        deployment_id=own.deployment_id,
        state=own.state,
        weight=target.weight,
        priority=target.priority,
        share=_share(route, target, beside),
        input_usd_per_million_tokens=price.input_usd_per_million_tokens,
        output_usd_per_million_tokens=price.output_usd_per_million_tokens,
        requests=sum(each.requests for each in traffic),
        failures=sum(each.failures for each in traffic),
        replicas=tuple(_replica(replica, workers) for replica in own.replicas),
    )


def _share(route: Route, target: RouteTarget, beside: list[RouteTarget]) -> float | None:
    if route.policy == "cheapest":
        return None
    total = sum(each.weight for each in beside if each.priority == target.priority)
    return target.weight / total if total else 0.0


def _place(target: TargetState) -> tuple[str, str, str]:
    return (target.project_id, target.model, target.deployment_id)


def _replica(replica: Replica, workers: list[WorkerState]) -> LiveReplica:
    said = [each for worker in workers for each in worker.replicas if each.id == replica.id]
    return LiveReplica(
        id=replica.id,
        seen=bool(said),
        health="away" if any(each.health == "away" for each in said) else "up",
        breaker=min((each.breaker for each in said), key=_WORST.index, default="closed"),
        draining=any(each.draining for each in said),
        in_flight=sum(each.in_flight for each in said),
        requests=sum(each.requests for each in said),
        failures=sum(each.failures for each in said),
        latency_ms=_latency_ms(said),
    )


def _latency_ms(said: list[ReplicaState]) -> float | None:
    """The workers' means, weighted by how much each has seen."""
    timed = [each for each in said if each.latency_ms and each.requests]
    if not timed:
        return None
    requests = sum(each.requests for each in timed)
    return sum(each.latency_ms * each.requests for each in timed) / requests
