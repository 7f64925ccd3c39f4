"""`bud demo`: a believable project to look at, marked as demo."""

from __future__ import annotations

import typer

from app.commands import context, output
from app.commands.output import Json

group = typer.Typer(help="The demo project: load, remove.", no_args_is_help=True)


@group.command()
def load(as_json: Json = False) -> None:
    """Load the demo project: users, deployments and 30 days of requests."""
    from core.demo import services as demo

    made = demo.load(context.operator())
    output.show(
        made, "The demo project is loaded. Remove it with: bud demo remove", as_json=as_json
    )


@group.command()
def remove(as_json: Json = False) -> None:
    """Remove everything of the demo project."""
    from core.demo import services as demo

    gone = demo.remove(context.operator())
    output.show(gone, "The demo project is gone.", as_json=as_json)
