"""`bud keys`: the API keys that callers use."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from app import formats
from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json, Yes
from core.kernel import clock
from core.kernel.errors import NotFound

if TYPE_CHECKING:
    from core.accounts.schemas import ApiKeyView

Key = Annotated[str, typer.Argument(help="Key, by name, id or last four characters.")]
Days = Annotated[int | None, typer.Option(help="Days until it ends; default: never.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", help="A model it may call; can be given again.")
]
Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        help="An endpoint it may call: chat.completions, completions, embeddings, messages, "
        "responses, moderations, rerank, images, audio, realtime, files, batches or models; "
        "can be given again.",
    ),
]
Networks = Annotated[
    list[str] | None,
    typer.Option(
        "--network", help="An IP address or CIDR range it may be used from; can be given again."
    ),
]

group = typer.Typer(help="API keys: list, create, restrict, revoke.", no_args_is_help=True)


@group.command("list")
def list_keys(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """List the API keys of a project."""
    from core.accounts import api_keys

    found = api_keys.list_keys(context.operator(), context.project_id(project))
    rows = [
        (
            *(key.name, f"…{key.last_four}", "revoked" if key.revoked_at else "active"),
            *(key.kind, ", ".join(key.models) or "all", ", ".join(key.scopes) or "all"),
            *(", ".join(key.networks) or "anywhere", formats.when(key.expires_at)),
        )
        for key in found
    ]
    columns = ("name", "key", "state", "kind", "models", "endpoints", "from", "expires")
    text = output.table(columns, rows, empty="No keys yet. Make one: bud keys create NAME")
    output.show(found, text, as_json=as_json)


@group.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    days: Days = None,
    model: Models = None,
    scope: Scopes = None,
    network: Networks = None,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Make an API key; it is shown this once."""
    from core.accounts import api_keys
    from core.routing import rules

    actor, project_id = context.operator(), context.project_id(project)
    rules.require_models(actor, project_id, model or ())
    made = api_keys.create_key(
        actor,
        project_id,
        name,
        api_keys.Restrictions(_in_days(days), model or (), scope or (), network or ()),
    )
    secret = made.secret.reveal()
    text = f"{secret}\n\nIt is shown this once. Use it as: Authorization: Bearer {secret[:8]}…"
    output.show({"key": made.key, "secret": secret}, text, as_json=as_json)


@group.command()
def restrict(
    key: Key,
    days: Days = None,
    model: Models = None,
    scope: Scopes = None,
    network: Networks = None,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Give a key other restrictions in the place of all it had; without options, none."""
    from core.accounts import api_keys
    from core.routing import rules

    found = _active(key, project)
    # One that it has already may be gone for now.
    new = [name for name in model or () if name not in found.models]
    rules.require_models(context.operator(), found.project_id, new)
    changed = api_keys.restrict_key(
        context.operator(),
        found.id,
        api_keys.Restrictions(_in_days(days), model or (), scope or (), network or ()),
    )
    told = (
        f"{changed.name} may call {', '.join(changed.models) or 'every model'} at "
        f"{', '.join(changed.scopes) or 'every endpoint'} from "
        f"{', '.join(changed.networks) or 'everywhere'}; it expires "
        f"{formats.when(changed.expires_at) if changed.expires_at else 'never'}."
    )
    output.show(changed, told, as_json=as_json)


@group.command()
def revoke(
    key: Key,
    yes: Yes = False,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """End an API key; the gateway refuses it within a second."""
    from core.accounts import api_keys

    found = _active(key, project)
    output.confirm(f"Revoke key {found.name}? Its callers get errors.", yes=yes)
    api_keys.revoke_key(context.operator(), found.id)
    output.show({"revoked": found.id}, f"{found.name} is revoked.", as_json=as_json)


def _active(key: str, project: str) -> ApiKeyView:
    from core.accounts import api_keys

    known = api_keys.list_keys(context.operator(), context.project_id(project))
    found = [
        row for row in known if key in (row.name, row.id, row.last_four) and row.revoked_at is None
    ]
    if len(found) != 1:
        what = "several active keys" if found else "no active key"
        raise NotFound(f"There is {what} {key!r}.", remedy="Give the id: bud keys list --json")
    return found[0]


def _in_days(days: int | None) -> datetime | None:
    return clock.now() + timedelta(days=days) if days is not None else None
