"""`bud limits`: what keys, users, projects and models may use at most."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json, Yes

group = typer.Typer(help="Limits and budgets: list, set, delete.", no_args_is_help=True)


@group.command("list")
def list_limits(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """List the limits of a project, with what this host has used of them now."""
    from app.limit_usage import told, used_now
    from core.accounts import api_keys
    from core.limits import services as limits

    actor, project_id = context.operator(), context.project_id(project)
    found = limits.list_limits(actor, project_id)
    keys = {key.id: key.name for key in api_keys.list_keys(actor, project_id)}
    used = used_now(found)
    rows = [
        (limit.id, limit.level, keys.get(limit.subject, limit.subject), told(limit),
         "" if now is None else f"{now:,.6g}")
        for limit, now in zip(found, used, strict=True)
    ]  # fmt: skip
    document = [
        {**limit.model_dump(mode="json"), "used_now": now}
        for limit, now in zip(found, used, strict=True)
    ]
    columns = ("id", "level", "of", "at most", "used now")
    empty = "No limits yet. Set one: bud limits set project requests 600 --per minute"
    output.show(document, output.table(columns, rows, empty=empty), as_json=as_json)


@group.command("set")
def set_limit(
    level: Annotated[str, typer.Argument(help="key, user, project or model.")],
    metric: Annotated[str, typer.Argument(help="requests, tokens, concurrent or usd.")],
    amount: Annotated[float, typer.Argument(help="How many, or USD; 0 stops everything.")],
    per: Annotated[
        str, typer.Option(help="minute, hour, day; day or month for usd; none for concurrent.")
    ] = "",
    subject: Annotated[
        str, typer.Option("--of", help="Key by name or id, user by id, or model by name.")
    ] = "",
    when_alone: Annotated[
        str | None,
        typer.Option(
            help="refuse or share: what holds when gateway hosts cannot reach each other; "
            "default: refuse for usd, else share."
        ),
    ] = None,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Set a limit, or change its amount."""
    from app.limit_usage import told
    from core.limits import services as limits

    asked: Any = (level, subject, metric, per, amount)
    alone: Any = when_alone
    made = limits.set_limit(
        context.operator(), context.project_id(project), *asked, when_alone=alone
    )
    output.show(
        made, f"{made.level} {subject or made.subject}: at most {told(made)}.", as_json=as_json
    )


@group.command()
def delete(
    limit: Annotated[str, typer.Argument(help="Limit, by id.")],
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take a limit away."""
    from core.limits import services as limits

    actor = context.operator()
    output.confirm(f"Delete limit {limit}?", yes=yes)
    limits.delete_limit(actor, limit)
    output.show({"deleted": limit}, f"{limit} is deleted.", as_json=as_json)
