"""`bud deploy` and `bud deployments`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from app import formats
from app.commands import context, follow, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json, Yes
from core.kernel.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from core.deployments.schemas import DeploymentView, EngineChanges
    from core.kernel.actor import Actor

group = typer.Typer(
    help="Deployments: list, show, logs, start, stop, restart, scale, edit, copy, delete.",
    no_args_is_help=True,
)

_Name = Annotated[str, typer.Argument(help="Deployment, by name or id.", metavar="DEPLOYMENT")]
_Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is done, and show the steps.")]
_Context = Annotated[
    int | None, typer.Option("--context", help="Tokens of one conversation; default: chosen.")
]
_Slots = Annotated[
    int | None, typer.Option("--slots", help="Requests at once, a replica; default: chosen.")
]
_Threads = Annotated[
    int | None, typer.Option("--threads", help="CPU threads, a replica; default: chosen.")
]
_AUTO = "auto"
_NewContext = Annotated[
    str | None, typer.Option("--context", help="Tokens of one conversation; auto: Bud chooses.")
]
_NewSlots = Annotated[
    str | None, typer.Option("--slots", help="Requests at once, a replica; auto: Bud chooses.")
]
_NewThreads = Annotated[
    str | None, typer.Option("--threads", help="CPU threads, a replica; auto: Bud chooses.")
]
_SETTLE_S = 120.0


def deploy(
    model: Annotated[str, typer.Argument(help="Model, by name or id.")],
    name: Annotated[
        str | None, typer.Option(help="The model name callers use; default: the model's.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="chat, embedding or rerank; default: chosen.")
    ] = None,
    context_tokens: _Context = None,
    slots: _Slots = None,
    threads: _Threads = None,
    replicas: Annotated[int, typer.Option(help="How many model servers.")] = 1,
    version: Annotated[
        int | None, typer.Option(help="Of the model, by its number; default: in production.")
    ] = None,
    wait: _Wait = False,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Deploy a model on this machine."""
    from core.deployments import services as deployments
    from core.deployments.schemas import DeploymentRequest
    from core.registry import services as registry
    from core.registry import versions

    actor, project_id = context.operator(), context.project_id(project)
    chosen = registry.find_model(actor, project_id, model)
    pinned = None if version is None else versions.find_version(actor, chosen.id, version).id
    request = DeploymentRequest.model_validate(
        {
            "project_id": project_id,
            "name": name or deployments.suggest_name(actor, project_id, chosen),
            "model_id": chosen.id,
            "model_version_id": pinned,
            "task": task,
            "context_tokens": context_tokens,
            "slots": slots,
            "threads": threads,
            "replicas": replicas,
        }
    )
    _show_result(actor, deployments.deploy(actor, request).id, wait=wait, as_json=as_json)


@group.command("list")
def list_deployments(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """List the deployments of a project."""
    from core.deployments import services as deployments

    found = deployments.list_deployments(context.operator(), context.project_id(project))
    rows = [
        (
            *(view.name, view.model_name, view.state),
            f"{view.ready_replicas}/{view.desired_replicas}",
            *(formats.tokens(view.context_tokens), formats.size(view.planned_bytes)),
            view.reason or "",
        )
        for view in found
    ]
    columns = ("name", "model", "state", "ready", "context", "memory", "reason")
    text = output.table(columns, rows, empty="Nothing is deployed. Start with: bud deploy MODEL")
    output.show(found, text, as_json=as_json)


@group.command("show")
def show_deployment(
    deployment: _Name, project: Project = DEFAULT_PROJECT, as_json: Json = False
) -> None:
    """Show a deployment and its replicas."""
    view = _find(deployment, project)
    pairs = [
        ("name", view.name),
        ("model", view.model_name),
        ("state", f"{view.state} {view.reason or ''}".strip()),
        ("context", formats.tokens(view.context_tokens)),
        ("slots", f"{view.slots} a replica"),
        ("threads", f"{view.threads} a replica"),
        ("memory", formats.size(view.planned_bytes)),
    ]
    rows = [
        (
            *(replica.index, replica.state, replica.pid or formats.NONE),
            *(replica.port or formats.NONE, formats.size(replica.memory_bytes)),
            *(replica.restarts, replica.last_error or ""),
        )
        for replica in view.replicas
    ]
    columns = ("replica", "state", "process", "port", "memory", "restarts", "last error")
    text = output.table(columns, rows, empty="No replica runs.")
    output.show(view, f"{output.details(pairs)}\n\n{text}", as_json=as_json)


@group.command()
def logs(
    deployment: _Name,
    replica: Annotated[int, typer.Option(help="Which replica.")] = 0,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many to begin with.")] = 50,
    follow_on: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new lines.")
    ] = False,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show the log of a model server."""
    from core.deployments import services as deployments

    actor, view = context.operator(), _find(deployment, project)
    chunk = deployments.logs(actor, view.id, replica)
    shown = chunk.lines[-lines:]
    while True:
        for line in shown:
            output.show_line({"replica": replica, "line": line}, as_json=as_json, text=line)
        if not follow_on:
            return
        time.sleep(0.5)
        chunk = deployments.logs(actor, view.id, replica, offset=chunk.next_offset)
        shown = chunk.lines


@group.command()
def start(
    deployment: _Name,
    wait: _Wait = False,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Start a stopped or failed deployment."""
    from core.deployments import services as deployments

    actor, view = context.operator(), _find(deployment, project)
    deployments.start(actor, view.id)
    _show_result(actor, view.id, wait=wait, as_json=as_json)


@group.command()
def stop(
    deployment: _Name,
    wait: _Wait = False,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Stop a deployment; requests in flight are finished."""
    from core.deployments import services as deployments

    actor, view = context.operator(), _find(deployment, project)
    deployments.stop(actor, view.id)
    _show_result(actor, view.id, wait=wait, as_json=as_json)


@group.command()
def restart(
    deployment: _Name,
    wait: _Wait = False,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Replace every model server."""
    from core.deployments import services as deployments

    actor, view = context.operator(), _find(deployment, project)
    deployments.restart(actor, view.id)
    _show_result(actor, view.id, wait=wait, as_json=as_json)


@group.command()
def scale(
    deployment: _Name,
    replicas: Annotated[int, typer.Argument(help="How many model servers.")],
    wait: _Wait = False,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Change the number of replicas."""
    from core.deployments import services as deployments

    actor, view = context.operator(), _find(deployment, project)
    deployments.scale(actor, view.id, replicas)
    _show_result(actor, view.id, wait=wait, as_json=as_json)


@group.command()
def edit(
    deployment: _Name,
    name: Annotated[str | None, typer.Option(help="A new name for callers to use.")] = None,
    context_tokens: _NewContext = None,
    slots: _NewSlots = None,
    threads: _NewThreads = None,
    yes: Yes = False,
    wait: _Wait = False,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Rename a deployment, or change its settings, for which it restarts."""
    from core.deployments import services as deployments

    actor, view = context.operator(), _find(deployment, project)
    changes: EngineChanges = {}
    if context_tokens is not None:
        changes["context_tokens"] = _number_or_auto(context_tokens)
    if slots is not None:
        changes["slots"] = _number_or_auto(slots)
    if threads is not None:
        changes["threads"] = _number_or_auto(threads)
    if changes:
        output.confirm(f"{view.name} restarts to take this. Go on?", yes=yes)
    elif name is not None:
        output.confirm(f"Who calls {view.name} must then call {name}. Go on?", yes=yes)
    deployments.edit(actor, view.id, name=name, **changes)
    _show_result(actor, view.id, wait=wait, as_json=as_json)


def _number_or_auto(text: str) -> int | None:
    if text == _AUTO:
        return None
    try:
        return int(text)
    except ValueError:
        raise InvalidInput(
            "This is not a number.", value=text, remedy=f"Give a whole number, or {_AUTO}."
        ) from None


@group.command()
def copy(
    deployment: _Name,
    name: Annotated[str, typer.Argument(help="The name of the copy.")],
    wait: _Wait = False,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Deploy the same again under another name."""
    from core.deployments import services as deployments

    actor, view = context.operator(), _find(deployment, project)
    made = deployments.copy(actor, view.id, name)
    _show_result(actor, made.id, wait=wait, as_json=as_json)


@group.command("delete")
def delete_deployment(
    deployment: _Name, yes: Yes = False, project: Project = DEFAULT_PROJECT, as_json: Json = False
) -> None:
    """Stop a deployment and forget it."""
    from core.deployments import services as deployments

    view = _find(deployment, project)
    output.confirm(f"Delete deployment {view.name}? Its callers get errors.", yes=yes)
    deployments.delete(context.operator(), view.id)
    output.show({"deleted": view.id}, f"{view.name} is being deleted.", as_json=as_json)


def _find(name: str, project: str) -> DeploymentView:
    from core.deployments import services as deployments

    return deployments.find_deployment(context.operator(), context.project_id(project), name)


def _show_result(actor: Actor, deployment_id: str, *, wait: bool, as_json: bool) -> None:
    from core import jobs
    from core.deployments import services as deployments

    view = deployments.get_deployment(actor, deployment_id)
    active = jobs.find_active(actor, view.project_id, f"deployment:{view.id}")
    if wait:
        if active is not None:
            follow.job(actor, active.id)
        view = _settled(actor, deployment_id)
    text = f"{view.name} is {view.state}."
    if view.state == "ready" and "chat" in deployments.capabilities(actor, view):
        text += f' Try it: bud chat {view.name} "Hello"'
    elif view.state == "ready":
        text += " Try it on the page Gateway, under Try it."
    elif not wait and active is not None:
        text += f" Watch it: bud jobs wait {active.id}"
    output.show(view, text, as_json=as_json)


def _settled(actor: Actor, deployment_id: str) -> DeploymentView:
    """Wait until the deployment is in the state that was asked for, or has failed."""
    from core.deployments import services as deployments

    deadline_s = time.monotonic() + _SETTLE_S
    while True:
        view = deployments.get_deployment(actor, deployment_id)
        if view.state in (_end_state(view), "failed"):
            return view
        if time.monotonic() > deadline_s:
            raise Unavailable(
                f"{view.name} is still {view.state} after {_SETTLE_S:.0f} s.",
                remedy=f"See: bud deployments show {view.name}",
            )
        time.sleep(0.3)


def _end_state(view: DeploymentView) -> str:
    return "stopped" if view.desired_state == "stopped" else "ready"
