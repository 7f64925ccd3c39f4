"""`bud batches`: many requests in a file, worked on when nobody else needs the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app import formats
from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json, Yes

if TYPE_CHECKING:
    from core.batches.schemas import BatchView

group = typer.Typer(help="Batches: list, show, cancel.", no_args_is_help=True)

_BatchId = Annotated[str, typer.Argument(help="Batch, by id.", metavar="BATCH")]


@group.command("list")
def list_batches(
    limit: Annotated[int, typer.Option(help="How many of the newest.")] = 20,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """List the newest batches of a project."""
    from core.batches import services as batches

    found = batches.list_batches(context.operator(), context.project_id(project), limit)
    rows = [
        (
            *(view.id, view.endpoint, view.model or formats.NONE, view.status),
            *(_lines(view), formats.ago(view.created_at)),
        )
        for view in found
    ]
    columns = ("id", "endpoint", "model", "status", "lines", "made")
    empty = "No batches yet. Callers make them with POST /v1/batches."
    output.show(found, output.table(columns, rows, empty=empty), as_json=as_json)


@group.command()
def show(batch: _BatchId, project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Show a batch: how far it is, and where its files are."""
    from core.batches import services as batches

    view = batches.get_batch(context.operator(), context.project_id(project), batch)
    lines = [
        f"{view.id}: {view.status}, {_lines(view)}",
        f"asks {view.endpoint} of {view.model or 'several models'}, with key {view.key_id}",
        f"made {formats.when(view.created_at)}, expires {formats.when(view.expires_at)}"
        + (f", ended {formats.when(view.ended_at)}" if view.ended_at else ""),
        f"tokens: {view.input_tokens:,} in, {view.output_tokens:,} out",
        f"files: input {view.input_file_id}, answers {view.output_file_id or formats.NONE}, "
        f"errors {view.error_file_id or formats.NONE}",
    ]
    if view.job_id:
        lines.append(f"job {view.job_id}: bud jobs show {view.job_id}")
    if view.error:
        lines.append(f"Error: {view.error}")
    output.show(view, "\n".join(lines), as_json=as_json)


@group.command()
def cancel(
    batch: _BatchId, yes: Yes = False, project: Project = DEFAULT_PROJECT, as_json: Json = False
) -> None:
    """Stop a batch; what was answered until then stays."""
    from core.batches import services as batches

    actor, project_id = context.operator(), context.project_id(project)
    output.confirm(f"Cancel {batch}? Its other lines are not asked.", yes=yes)
    view = batches.cancel_batch(actor, project_id, batch)
    output.show(view, f"{batch} is being cancelled: {_lines(view)}.", as_json=as_json)


def _lines(view: BatchView) -> str:
    if not view.total:
        return "not read yet" if view.is_active else "none asked"
    failed = f", {view.failed:,} with an error" if view.failed else ""
    return f"{view.completed + view.failed:,} of {view.total:,} lines{failed}"
