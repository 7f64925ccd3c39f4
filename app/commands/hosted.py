"""`bud models serve`, `served` and `withdraw`: hosted models under a name that callers use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from app import formats
from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.model_versions import ModelName, find
from app.commands.output import Json, Yes
from core.kernel.errors import InvalidInput

if TYPE_CHECKING:
    from core.deployments.schemas import HostedTask


def serve(
    model: ModelName,
    name: Annotated[
        str | None, typer.Option(help="The model name that callers use; default: made of its own.")
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help="What it is for: chat, embedding, rerank, moderation, image, speech, "
            "transcription or realtime."
        ),
    ] = "chat",
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Let callers use a hosted model through the gateway, with its account at the provider."""
    from core.deployments import hosted
    from core.deployments.schemas import HostedTask

    known = get_args(HostedTask)
    if task not in known:
        remedy = f"Say one of: {', '.join(known)}."
        raise InvalidInput("There is no such task.", value=task, remedy=remedy)
    found = find(model, project)
    made = hosted.serve(context.operator(), found.id, name, task=cast("HostedTask", task))
    said = f"Callers use {found.name} as {made.name}. It has no price until you set one."
    output.show(made, said, as_json=as_json)


def list_served(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """List the hosted models that callers of the project can use."""
    from core.deployments import hosted
    from core.registry import services as registry

    actor, project_id = context.operator(), context.project_id(project)
    found = hosted.list_hosted(actor, project_id)
    sources = {model.id: model.source for model in registry.list_models(actor, project_id)}
    rows = [
        (view.name, sources.get(view.model_id, formats.NONE), view.task, view.created_by_name)
        for view in found
    ]
    columns = ("name", "runs at", "task", "made by")
    text = output.table(columns, rows, empty="None yet. Serve one: bud models serve MODEL")
    output.show(found, text, as_json=as_json)


def withdraw(
    name: Annotated[str, typer.Argument(help="The name that callers use, or the endpoint's id.")],
    yes: Yes = False,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Take a hosted model away from callers; it stays in the registry."""
    from core.deployments import hosted

    actor = context.operator()
    found = hosted.find_hosted(actor, context.project_id(project), name)
    output.confirm(f"Withdraw {found.name}? Callers get an error from then on.", yes=yes)
    hosted.withdraw(actor, found.id)
    output.show({"withdrawn": found.id}, f"{found.name} is withdrawn.", as_json=as_json)
