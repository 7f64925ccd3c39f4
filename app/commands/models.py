"""`bud models`: what can be deployed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import formats
from app.commands import context, follow, licences, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json, Yes

if TYPE_CHECKING:
    from core.registry.schemas import ModelView

group = typer.Typer(help="Models: list, add, show, delete.", no_args_is_help=True)
group.command("license")(licences.show_licence)

_Name = Annotated[str, typer.Argument(help="Model, by name or id.", metavar="MODEL")]


@group.command("list")
def list_models(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """List the models a project can use."""
    from core.registry import services as registry

    found = registry.list_models(context.operator(), context.project_id(project))
    rows = [
        (
            *(model.name, model.state, formats.short_count(model.parameters)),
            *(model.quantization or formats.NONE, formats.size(model.size_bytes)),
            *(formats.tokens(model.context_tokens), ", ".join(model.capabilities)),
        )
        for model in found
    ]
    columns = ("name", "state", "parameters", "quantization", "size", "context", "can do")
    text = output.table(columns, rows, empty="No models yet. Add one: bud models add FILE")
    output.show(found, text, as_json=as_json)


@group.command()
def add(
    source: Annotated[
        str, typer.Argument(help="A GGUF file, a folder with one, or a Hugging Face owner/name.")
    ],
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    file: Annotated[
        str | None, typer.Option(help="Which file of the Hugging Face repository.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait and show the steps.")] = True,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Add a model from this machine or from Hugging Face."""
    from core.registry import services as registry

    actor, project_id = context.operator(), context.project_id(project)
    path = Path(source).expanduser()
    if path.exists() or not _is_hub_id(source):
        model, job_id = registry.add_local(actor, project_id, str(path.absolute()), name)
    else:
        model, job_id = registry.add_from_hub(actor, project_id, source, file, name)
    if wait:
        follow.job(actor, job_id)
    model = registry.get_model(actor, model.id)
    output.show(
        {"model": model, "job_id": job_id},
        f"{model.name} is {model.state} (job {job_id}).",
        as_json=as_json,
    )


def _is_hub_id(source: str) -> bool:
    looks_local = source.startswith((".", "/", "~")) or source.endswith(".gguf")
    return not looks_local and source.removeprefix("https://huggingface.co/").count("/") == 1


@group.command("show")
def show_model(model: _Name, project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Show what is known of a model."""
    found = _find(model, project)
    pairs = [
        (field.replace("_", " "), formats.NONE if value is None else value)
        for field, value in found.model_dump().items()
    ]
    output.show(found, output.details(pairs), as_json=as_json)


@group.command("delete")
def delete_model(
    model: _Name, yes: Yes = False, project: Project = DEFAULT_PROJECT, as_json: Json = False
) -> None:
    """Delete a model and Bud's copy of its files."""
    from core.registry import services as registry

    found = _find(model, project)
    output.confirm(f"Delete model {found.name}?", yes=yes)
    registry.delete_model(context.operator(), found.id)
    output.show({"deleted": found.id}, f"{found.name} is deleted.", as_json=as_json)


def _find(name: str, project: str) -> ModelView:
    from core.registry import services as registry

    return registry.find_model(context.operator(), context.project_id(project), name)
