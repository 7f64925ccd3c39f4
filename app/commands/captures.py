"""`bud captures`: prompts and answers that a project keeps, redacted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app import formats
from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json, Yes

if TYPE_CHECKING:
    from core.captures.schemas import CaptureView

group = typer.Typer(
    help="Kept prompts and answers: on, off, list, show, delete.", no_args_is_help=True
)


@group.command()
def on(
    keep_days: Annotated[int, typer.Option(help="Days until they are deleted.")] = 7,
    max_mb: Annotated[int, typer.Option(help="What they may take; the oldest go first.")] = 100,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Keep the prompts and answers of a project from now on, redacted."""
    from core.captures import services as captures

    made = captures.turn_on(
        context.operator(), context.project_id(project), keep_days=keep_days, max_mb=max_mb
    )
    output.show(made, _told(made), as_json=as_json)


@group.command()
def off(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Keep no more; what was kept stays until its days are over."""
    from core.captures import services as captures

    made = captures.turn_off(context.operator(), context.project_id(project))
    output.show(made, _told(made), as_json=as_json)


@group.command("list")
def list_captured(
    limit: Annotated[int, typer.Option(help="How many of the newest.")] = 20,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """List the newest kept requests, without their texts."""
    from core.captures import services as captures

    found = captures.list_captured(context.operator(), context.project_id(project), limit)
    rows = [
        (each.request_id, formats.when(each.at), each.endpoint, each.model, str(each.status))
        for each in found
    ]
    columns = ("request", "at", "endpoint", "model", "status")
    empty = "Nothing is kept. Turn it on: bud captures on"
    output.show(found, output.table(columns, rows, empty=empty), as_json=as_json)


@group.command()
def show(
    request: Annotated[str, typer.Argument(help="Request, by id.")],
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show a kept request with its answer; the audit log tells who did."""
    from core.captures import services as captures

    found = captures.show_captured(context.operator(), context.project_id(project), request)
    cut = " (cut)" if found.request_cut else "", " (cut)" if found.response_cut else ""
    text = f"Request{cut[0]}:\n{found.request}\n\nAnswer{cut[1]}:\n{found.response}"
    output.show(found, text, as_json=as_json)


@group.command()
def delete(yes: Yes = False, project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Delete all prompts and answers that a project kept."""
    from core.captures import services as captures

    actor, project_id = context.operator(), context.project_id(project)
    output.confirm(f"Delete all that project {project} kept?", yes=yes)
    deleted = captures.delete_captures(actor, project_id)
    files = f"{deleted} file{'' if deleted == 1 else 's'}"
    output.show({"files": deleted}, f"Deleted: {files}.", as_json=as_json)


def _told(view: CaptureView) -> str:
    state = "are kept" if view.enabled else "are no longer kept"
    return (
        f"Prompts and answers {state}; each is deleted after {view.keep_days} days, "
        f"and the oldest when all take over {view.max_mb} MB."
    )
