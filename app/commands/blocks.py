"""`bud blocks`: requests that the gateway refuses, by address, country, user agent or path."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json, Yes
from core.kernel.errors import Conflict

if TYPE_CHECKING:
    from core.access.schemas import BlockView

group = typer.Typer(help="Blocking rules: list, set, delete.", no_args_is_help=True)
_Several = list[str] | None


@group.command("list")
def list_blocks(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """List the rules that hold in a project."""
    from core.access import services as access

    found = access.list_blocks(context.operator(), context.project_id(project))
    rows = [
        (rule.id, rule.name, "here" if rule.project_id else "everywhere", _told(rule))
        for rule in found
    ]
    empty = "No rules yet. Set one: bud blocks set NAME --network 203.0.113.0/24"
    columns = ("id", "name", "holds", "refuses")
    output.show(found, output.table(columns, rows, empty=empty), as_json=as_json)


@group.command("set")
def set_block(
    name: Annotated[str, typer.Argument(help="What refused callers are told.")],
    network: Annotated[_Several, typer.Option(help="An IP address or CIDR range.")] = None,
    country: Annotated[
        _Several, typer.Option(help="A two-letter code, as BUD_COUNTRY_HEADER gives it.")
    ] = None,
    user_agent: Annotated[
        _Several, typer.Option(help="Part of the User-Agent header, in any case.")
    ] = None,
    user_agent_pattern: Annotated[
        _Several, typer.Option(help="Regular expression (RE2) found in the User-Agent header.")
    ] = None,
    path: Annotated[
        _Several, typer.Option(help="A path, or its beginning with * at the end.")
    ] = None,
    everywhere: Annotated[bool, typer.Option(help="In every project, not in one.")] = False,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Refuse what meets one of each kind of condition given; each option can be given again."""
    from core.access import services as access

    made = access.set_block(
        context.operator(),
        access.EVERYWHERE if everywhere else context.project_id(project),
        name,
        networks=network or (),
        countries=country or (),
        user_agents=user_agent or (),
        user_agent_patterns=user_agent_pattern or (),
        paths=path or (),
    )
    output.show(made, f"{made.name} refuses {_told(made)}.", as_json=as_json)


@group.command()
def delete(
    rule: Annotated[str, typer.Argument(help="Rule, by name or id.")],
    project: Project = DEFAULT_PROJECT,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take a rule away."""
    from core.access import services as access

    actor = context.operator()
    output.confirm(f"Delete rule {rule}?", yes=yes)
    known = access.list_blocks(actor, context.project_id(project))
    named = [each.id for each in known if rule == each.name]
    if len(named) > 1:
        raise Conflict(
            f"Several rules are named {rule}: here and in every project.",
            remedy="Give the id: bud blocks list",
        )
    access.delete_block(actor, named[0] if named else rule)
    output.show({"deleted": rule}, f"{rule} is deleted.", as_json=as_json)


def _told(rule: BlockView) -> str:
    given = rule.conditions.model_dump(exclude_defaults=True)
    return " and ".join(
        f"{kind.replace('_', ' ')} {' or '.join(values)}" for kind, values in given.items()
    )
