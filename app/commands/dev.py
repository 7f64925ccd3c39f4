"""`bud dev`: for people who change Bud: generated files and lock files."""

from __future__ import annotations

import typer

from app.commands import output
from app.commands.output import Json
from core.kernel.errors import Conflict

group = typer.Typer(help="For developers: lock, docs.", no_args_is_help=True)


@group.command()
def lock(as_json: Json = False) -> None:
    """Resolve pyproject.toml anew and write the lock files in requirements/."""
    from app import locks

    changed = locks.write()
    text = f"Changed: {', '.join(changed)}" if changed else "Nothing changed."
    output.show({"changed": changed}, text, as_json=as_json)


@group.command()
def docs(
    check: bool = typer.Option(False, "--check", help="Write nothing; fail when one is stale."),
    as_json: Json = False,
) -> None:
    """Write .env.sample and docs/settings.md from the settings class."""
    from app import generated_docs

    stale = generated_docs.stale()
    if check and stale:
        raise Conflict(
            f"Not what the settings say: {', '.join(stale)}.", remedy="Write them: bud dev docs"
        )
    if not check:
        generated_docs.write()
    text = f"Written: {', '.join(stale)}" if stale else "Everything is up to date."
    output.show({"stale": stale}, text, as_json=as_json)
