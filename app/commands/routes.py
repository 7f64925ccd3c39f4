"""`bud routes`: how each model's requests are shared among replicas, and what answers instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json, Yes

if TYPE_CHECKING:
    from core.routing.schemas import RulesView

group = typer.Typer(help="Routing rules: list, set, history, roll-back.", no_args_is_help=True)

_Model = Annotated[str, typer.Argument(help="Model, as callers name it.")]
_Seconds = float | None


@group.command("list")
def list_rules(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """List the models of a project with their rules."""
    from core.routing import rules

    found = rules.list_rules(context.operator(), context.project_id(project))
    empty = "No models yet. Deploy one: bud deploy"
    output.show(found, _table(found, empty), as_json=as_json)


@group.command("set")
def set_rules(
    model: _Model,
    policy: Annotated[
        str | None,
        typer.Option(help="p2c, least_loaded, weighted, prefix, cheapest or fastest."),
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
    project: Project = DEFAULT_PROJECT,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Change rules of a model; what is not named stays. The difference is shown first."""
    from core.routing import rules

    actor, project_id = context.operator(), context.project_id(project)
    now = rules.history(actor, project_id, model)[0].rules
    given = now.model_dump()
    if policy is not None:
        given["policy"] = policy
    if fallback is not None:
        given["fallbacks"] = [each for each in fallback if each]
    seconds = {
        "connect_s": connect,
        "first_token_s": first_token,
        "between_tokens_s": between_tokens,
        "total_s": total,
    }
    given |= {name: each or None for name, each in seconds.items() if each is not None}
    wanted = rules.read(given)
    changes = rules.changed(now, wanted)
    if changes:
        told = "; ".join(f"{each.rule}: {each.before} → {each.after}" for each in changes)
        output.confirm(f"Publish for {model}: {told}?", yes=yes)
    made = rules.set_rules(actor, project_id, model, wanted)
    output.show(made, f"{model}: version {made.version} of its rules holds.", as_json=as_json)


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


def _table(found: list[RulesView], empty: str) -> str:
    rows = [
        (
            each.model,
            each.version,
            each.rules.policy,
            ", ".join(each.rules.fallbacks),
            "" if each.rules.total_s is None else f"{each.rules.total_s:g} s",
            each.set_by_name,
        )
        for each in found
    ]
    columns = ("model", "version", "policy", "fallbacks", "total", "set by")
    return output.table(columns, rows, empty=empty)
