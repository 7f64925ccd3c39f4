"""`bud providers`: accounts at providers of hosted models."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from app import formats
from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json, Yes
from core.kernel.errors import InvalidInput

if TYPE_CHECKING:
    from core.kernel.crypto import Secret
    from core.registry.schemas import ProviderKind, ProviderView

group = typer.Typer(
    help="Accounts at providers of hosted models: list, kinds, add, models, test, rotate, delete.",
    no_args_is_help=True,
)

_Name = Annotated[str, typer.Argument(help="Account, by name or id.", metavar="PROVIDER")]


@group.command("list")
def list_providers(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """List the accounts of a project."""
    from core.registry import providers

    found = providers.list_providers(context.operator(), context.project_id(project))
    rows = [
        (
            *(view.name, view.kind, view.base_url, len(view.models)),
            *("failed" if view.check_error else "ok", formats.when(view.checked_at)),
        )
        for view in found
    ]
    columns = ("name", "kind", "address", "models", "last test", "at")
    text = output.table(columns, rows, empty="No providers yet. See: bud providers kinds")
    output.show(found, text, as_json=as_json)


@group.command("kinds")
def list_kinds(as_json: Json = False) -> None:
    """List the kinds of providers, and what an account at each needs."""
    from core.registry import providers

    found = providers.kinds()
    rows = [
        (
            *(kind.id, kind.name, ", ".join(kind.credentials), ", ".join(kind.options)),
            kind.base_url or "give it with --base-url",
        )
        for kind in found
    ]
    columns = ("kind", "name", "credentials", "options", "address")
    output.show(found, output.table(columns, rows, empty=""), as_json=as_json)


@group.command()
def add(
    kind: Annotated[str, typer.Argument(help="See: bud providers kinds.")],
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Address; default: the kind's.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, such as region=us-east-1; repeat it.")
    ] = None,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Add an account, once its credentials were tested.

    They are asked for, or read from standard input: the key, or JSON where there are several.
    """
    from core.registry import providers
    from core.registry.schemas import ProviderRequest

    wanted = next((each for each in providers.kinds() if each.id == kind), None)
    request = ProviderRequest(
        kind=kind,
        name=name,
        base_url=base_url,
        options=dict(_pair(each) for each in option or ()),
        credentials=_credentials(wanted) if wanted is not None else {},
    )
    made = providers.add_provider(context.operator(), context.project_id(project), request)
    output.show(made, f"{made.name} lists {len(made.models)} models.", as_json=as_json)


@group.command("models")
def list_models(provider: _Name, project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """List the models that an account can use."""
    found = _find(provider, project).models
    rows = [(model.id, model.name, formats.tokens(model.context_tokens)) for model in found]
    text = output.table(("model", "name", "context"), rows, empty="It lists none.")
    output.show(found, text, as_json=as_json)


@group.command("test")
def check(provider: _Name, project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Ask an account for its models again."""
    from core.registry import providers

    tested = providers.test_provider(context.operator(), _find(provider, project).id)
    said = tested.check_error or f"It works: {len(tested.models)} models."
    output.show(tested, said, as_json=as_json)


@group.command()
def rotate(provider: _Name, project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Replace an account's credentials, once the new ones were tested."""
    from core.registry import providers

    found = _find(provider, project)
    kind = next(each for each in providers.kinds() if each.id == found.kind)
    changed = providers.rotate_credentials(context.operator(), found.id, _credentials(kind))
    output.show(changed, f"{changed.name} has new credentials.", as_json=as_json)


@group.command()
def delete(
    provider: _Name, yes: Yes = False, project: Project = DEFAULT_PROJECT, as_json: Json = False
) -> None:
    """Delete an account with its credentials."""
    from core.registry import providers

    found = _find(provider, project)
    output.confirm(f"Delete provider {found.name}?", yes=yes)
    providers.delete_provider(context.operator(), found.id)
    output.show({"deleted": found.id}, f"{found.name} is deleted.", as_json=as_json)


def _find(name: str, project: str) -> ProviderView:
    from core.registry import providers

    return providers.find_provider(context.operator(), context.project_id(project), name)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(
            "This is not NAME=VALUE.", value=text, remedy="Such as region=eu-west-1."
        )
    return name, value


def _credentials(kind: ProviderKind) -> dict[str, Secret]:
    """The credentials, never from the command line: that stands in the shell's history."""
    from core.kernel.crypto import Secret

    if sys.stdin.isatty():
        prompts = kind.credentials.items()
        asked = {name: typer.prompt(label, hide_input=True) for name, label in prompts}
        return {name: Secret(text) for name, text in asked.items()}
    text = sys.stdin.read().strip()
    if list(kind.credentials) in (["api_key"], ["service_account"]):
        return {next(iter(kind.credentials)): Secret(text)}
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        # Not chained, and without the value: it may hold a key.
        raise InvalidInput(
            "Standard input holds no JSON object with the credentials.",
            remedy=f"Give one with: {', '.join(kind.credentials)}.",
        )
    return {str(name): Secret(str(value)) for name, value in given.items()}
