"""`bud routes`: what answers for each model, how requests are shared, and what answers instead."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import formats, route_words
from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json, Yes
from core.kernel.errors import InvalidInput

if TYPE_CHECKING:
    from core.routing.schemas import LiveTarget, RouteView, RulesView

group = typer.Typer(
    help="Routes: list, show, set, remove, history, roll-back.", no_args_is_help=True
)

_Model = Annotated[str, typer.Argument(help="Model, as callers name it.")]
_Seconds = float | None
_TARGET = re.compile(r"(?P<model>[^=@]+)(=(?P<weight>[0-9.]+))?(@(?P<priority>[0-9]+))?")


@group.command("list")
def list_rules(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """List the routes of a project, with what they do now."""
    from core.routing import live

    found = live.list_routes(context.operator(), context.project_id(project))
    output.show(found, _routes(found), as_json=as_json)


@group.command()
def show(model: _Model, project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Show a route's targets and replicas: traffic, health, breakers, latency."""
    from core.routing import live

    found = live.get_route(context.operator(), context.project_id(project), model)
    output.show(found, _route(found), as_json=as_json)


@group.command("set")
def set_rules(
    model: _Model,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="What answers: NAME, NAME=WEIGHT or NAME=WEIGHT@PRIORITY; repeat it. The lowest "
            "priority, 0, is used first. A new name becomes a route."
        ),
    ] = None,
    split_by: Annotated[
        str | None,
        typer.Option(help="request, or key: a key always gets the same target."),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="p2c, least_loaded, prefix or fastest; with targets also weighted or cheapest."
        ),
    ] = None,
    fallback: Annotated[
        list[str] | None,
        typer.Option(help="A model that answers when this one cannot; repeat it. '' for none."),
    ] = None,
    connect: Annotated[_Seconds, typer.Option(help="Seconds for a connection; 0: default.")] = None,
    first_token: Annotated[
        _Seconds, typer.Option(help="Seconds up to the first token; 0: default.")
    ] = None,
    between_tokens: Annotated[
        _Seconds, typer.Option(help="Seconds from one token to the next; 0: default.")
    ] = None,
    total: Annotated[
        _Seconds, typer.Option(help="Seconds for the whole request; 0: default.")
    ] = None,
    health_path: Annotated[
        str | None,
        typer.Option(help="Where a hosted model's server is asked for its health. '' for never."),
    ] = None,
    hedge: Annotated[
        str | None,
        typer.Option(
            help="When a second replica is asked too: off, p95, or milliseconds such as 250."
        ),
    ] = None,
    hedge_percent: Annotated[
        float | None, typer.Option(help="How many requests may be sent twice at most, in percent.")
    ] = None,
    shadow: Annotated[
        str | None,
        typer.Option(
            help="Copies of requests go to this model unseen: NAME, or NAME=PERCENT. '' for none."
        ),
    ] = None,
    cached: Annotated[
        bool | None,
        typer.Option("--cached/--not-cached", help="Whether its answers are kept: bud cache."),
    ] = None,
    project: Project = DEFAULT_PROJECT,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Change a route; what is not named stays. The difference is shown first.

    A canary: bud routes set chat --target stable=90 --target canary=10
    """
    from core.routing import rules

    actor, project_id = context.operator(), context.project_id(project)
    given = rules.current(actor, project_id, model, new=bool(target)).model_dump()
    if target is not None:
        given["targets"] = [_target(each) for each in target]
    if split_by is not None:
        given["split_by"] = split_by
    if health_path is not None:
        given["health_path"] = health_path
    if policy is not None:
        given["policy"] = policy
    if fallback is not None:
        given["fallbacks"] = [each for each in fallback if each]
    if hedge is not None:
        given |= _hedge(hedge)
    if hedge_percent is not None:
        given["hedge_percent"] = hedge_percent
    if shadow is not None:
        given |= _shadow(shadow)
    if cached is not None:
        given["cached"] = cached
    seconds = {
        "connect_s": connect,
        "first_token_s": first_token,
        "between_tokens_s": between_tokens,
        "total_s": total,
    }
    given |= {name: each or None for name, each in seconds.items() if each is not None}
    proposal = rules.propose(actor, project_id, model, rules.read(given))
    if proposal.changes:
        told = "; ".join(f"{each.rule}: {each.before} → {each.after}" for each in proposal.changes)
        output.confirm(f"Publish for {model}: {told}?", yes=yes)
    made = rules.set_rules(actor, project_id, model, proposal.rules, seen_version=proposal.version)
    output.show(made, f"{model}: version {made.version} of its rules holds.", as_json=as_json)


@group.command()
def remove(
    model: _Model, project: Project = DEFAULT_PROJECT, yes: Yes = False, as_json: Json = False
) -> None:
    """Take away a route that has targets; they stay, and so do the route's versions."""
    from core.routing import rules

    actor, project_id = context.operator(), context.project_id(project)
    output.confirm(f"Take away the route {model}? Its callers get 404.", yes=yes)
    made = rules.remove(actor, project_id, model)
    output.show(made, f"{model} is gone. Again: bud routes roll-back {model}", as_json=as_json)


@group.command()
def history(model: _Model, project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Show every version of a model's rules, the newest first."""
    from core.routing import rules

    found = rules.history(context.operator(), context.project_id(project), model)
    output.show(found, _table(found, ""), as_json=as_json)


@group.command("roll-back")
def roll_back(
    model: _Model,
    version: Annotated[int | None, typer.Option(help="Which; default: the one before.")] = None,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Publish an earlier version of a model's rules again."""
    from core.routing import rules

    made = rules.roll_back(context.operator(), context.project_id(project), model, version)
    output.show(made, f"{model}: version {made.version} of its rules holds.", as_json=as_json)


def _target(text: str) -> dict[str, Any]:
    """A target as it is given: `NAME=WEIGHT@PRIORITY`."""
    found = _TARGET.fullmatch(text.strip())
    if found is None:
        raise InvalidInput(
            "A target is NAME, NAME=WEIGHT or NAME=WEIGHT@PRIORITY.",
            value=text,
            remedy="Such as: --target stable=90 --target gpt-4o-mini@1",
        )
    return {name: each for name, each in found.groupdict().items() if each is not None}


def _hedge(text: str) -> dict[str, Any]:
    """A hedge as it is given: off, p95, or a delay in ms."""
    if text in ("off", "p95"):
        return {"hedge": text, "hedge_after_ms": None}
    try:
        return {"hedge": "delay", "hedge_after_ms": float(text)}
    except ValueError:
        raise InvalidInput(
            "A hedge is off, p95, or a delay in milliseconds.", value=text, remedy="Such as: 250"
        ) from None


def _shadow(text: str) -> dict[str, Any]:
    """A shadow as it is given: `NAME` or `NAME=PERCENT`."""
    name, _, percent = text.partition("=")
    try:
        return {"shadow": name} | ({"shadow_percent": float(percent)} if percent else {})
    except ValueError:
        raise InvalidInput(
            "A shadow is NAME, or NAME=PERCENT.", value=text, remedy="Such as: large-next=10"
        ) from None


def _routes(found: list[RouteView]) -> str:
    rows = [
        (
            each.model,
            each.state,
            each.version,
            each.rules.policy,
            ", ".join(f"{target.model} {_share(target)}" for target in each.targets)
            if each.kind == "targets"
            else each.kind,
            ", ".join(each.rules.fallbacks),
            sum(target.in_flight for target in each.targets) if each.workers else "",
        )
        for each in found
    ]
    columns = ("model", "state", "version", "policy", "targets", "fallbacks", "in flight")
    return output.table(columns, rows, empty="No models yet. Deploy one: bud deploy")


def _share(target: LiveTarget) -> str:
    return "by price" if target.share is None else formats.percent(target.share)


def _route(found: RouteView) -> str:
    targets = output.table(
        ("target", "priority", "share", "state", "sent", "failed"),
        [
            (each.model, each.priority, _share(each), each.state, each.requests,
             each.failures)
            for each in found.targets
        ],
        empty="It has no targets.",
    )  # fmt: skip
    replicas = output.table(
        ("replica", "of", "health", "breaker", "in flight", "sent", "failed", "first byte"),
        [
            (each.id, target.model, each.health if each.seen else "", each.breaker,
             each.in_flight, each.requests, each.failures,
             "" if each.latency_ms is None else f"{each.latency_ms:.0f} ms")
            for target in found.targets
            for each in target.replicas
        ],
        empty="No replica answers now.",
    )  # fmt: skip
    workers = f"{found.workers} gateway worker{'' if found.workers == 1 else 's'}"
    heard = workers if found.workers else "No worker: the gateway does not run"
    head = output.details(
        [
            ("Route", f"{found.model} ({found.state})"),
            ("Version", f"{found.version} {found.set_by_name}".strip()),
            ("Policy", f"{found.rules.policy}, split by {found.rules.split_by}"),
            ("Also", "; ".join(route_words.extras(found.rules)) or "nothing more"),
            ("Seen by", heard),
        ]
    )
    return f"{head}\n\n{targets}\n\n{replicas}"


def _table(found: list[RulesView], empty: str) -> str:
    rows = [
        (
            each.model,
            each.version,
            ", ".join(f"{target.model}={target.weight:g}" for target in each.rules.targets),
            each.rules.policy,
            ", ".join(each.rules.fallbacks),
            "" if each.rules.total_s is None else f"{each.rules.total_s:g} s",
            each.set_by_name,
        )
        for each in found
    ]
    columns = ("model", "version", "targets", "policy", "fallbacks", "total", "set by")
    return output.table(columns, rows, empty=empty)
