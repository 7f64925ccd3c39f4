"""`bud models sources|refresh|undo`: the catalogue's public sources, fetched anew."""

from __future__ import annotations

from typing import Annotated

import typer

from app import formats
from app.commands import context, follow, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json

_MOST_ROWS = 40
SourceName = Annotated[str, typer.Argument(help="Source, such as models.dev.", metavar="SOURCE")]


def sources(as_json: Json = False) -> None:
    """List the catalogue's public sources, with the date of what it has of each."""
    from core.registry import refreshes

    found = refreshes.sources(context.operator())
    rows = [
        (each.name, each.dated or formats.NONE, "old" if each.is_old else "current",
         "fetched here" if each.is_refreshed else "with Bud", f"{each.rows:,}", each.url)
        for each in found
    ]  # fmt: skip
    columns = ("source", "as of", "state", "came", "rows", "read from")
    output.show(found, output.table(columns, rows, empty="None."), as_json=as_json)


def refresh(
    name: SourceName,
    apply: Annotated[
        bool, typer.Option("--apply", help="Apply what differs, without looking first.")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait and show the steps.")] = True,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Fetch a source of the catalogue anew and show what differs; needs the network."""
    from core.registry import refreshes

    actor = context.operator()
    found, job_id = refreshes.start(actor, context.project_id(project), name)
    changes = ""
    if wait:
        follow.job(actor, job_id)
        found = next(each for each in refreshes.list_refreshes(actor) if each.id == found.id)
        if found.state == "found":
            rows = refreshes.difference(actor, found.id).head(_MOST_ROWS)
            table = output.table(tuple(rows.columns), [*rows.itertuples(index=False)], empty="")
            changes = f"\n\n{table}" if len(rows) else ""
    if apply and found.state == "found":
        found = refreshes.apply(actor, found.id)
    text = (
        f"{found.feed}: {found.added:,} added, {found.removed:,} removed, "
        f"{found.changed:,} changed ({found.state}, job {job_id}).{changes}"
    )
    output.show({"refresh": found, "job_id": job_id}, text, as_json=as_json)


def undo(name: SourceName, as_json: Json = False) -> None:
    """Take the newest applied refresh of a source back: the one before stands again."""
    from core.registry import refreshes

    found = refreshes.take_back(context.operator(), name)
    output.show(found, f"The refresh of {name} of {found.created_at:%Y-%m-%d} is taken back.",
                as_json=as_json)  # fmt: skip
