"""`bud keys`: the API keys that callers use."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from app import formats
from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json, Yes
from core.kernel import clock
from core.kernel.errors import NotFound

group = typer.Typer(help="API keys: list, create, revoke.", no_args_is_help=True)


@group.command("list")
def list_keys(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """List the API keys of a project."""
    from core.accounts import api_keys

    found = api_keys.list_keys(context.operator(), context.project_id(project))
    rows = [
        (
            *(key.name, f"…{key.last_four}", "revoked" if key.revoked_at else "active"),
            *(key.kind, ", ".join(key.models) or "all", formats.when(key.expires_at)),
        )
        for key in found
    ]
    columns = ("name", "key", "state", "kind", "models", "expires")
    text = output.table(columns, rows, empty="No keys yet. Make one: bud keys create NAME")
    output.show(found, text, as_json=as_json)


@group.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    days: Annotated[int | None, typer.Option(help="Days until it ends; default: never.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="A model it may call; can be given again.")
    ] = None,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Make an API key; it is shown this once."""
    from core.accounts import api_keys

    expires_at = clock.now() + timedelta(days=days) if days is not None else None
    made = api_keys.create_key(
        context.operator(), context.project_id(project), name,
        expires_at=expires_at, models=model or (),
    )  # fmt: skip
    secret = made.secret.reveal()
    text = f"{secret}\n\nIt is shown this once. Use it as: Authorization: Bearer {secret[:8]}…"
    output.show({"key": made.key, "secret": secret}, text, as_json=as_json)


@group.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Key, by name, id or last four characters.")],
    yes: Yes = False,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """End an API key; the gateway refuses it within a second."""
    from core.accounts import api_keys

    actor = context.operator()
    known = api_keys.list_keys(actor, context.project_id(project))
    found = [
        row for row in known if key in (row.name, row.id, row.last_four) and row.revoked_at is None
    ]
    if len(found) != 1:
        what = "several active keys" if found else "no active key"
        raise NotFound(f"There is {what} {key!r}.", remedy="Give the id: bud keys list --json")
    output.confirm(f"Revoke key {found[0].name}? Its callers get errors.", yes=yes)
    api_keys.revoke_key(actor, found[0].id)
    output.show({"revoked": found[0].id}, f"{found[0].name} is revoked.", as_json=as_json)
