"""What commands need before they call a service: the running Bud, the operator, the project."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

from core.kernel.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from core.kernel.actor import Actor

Project = Annotated[
    str, typer.Option("--project", envvar="BUD_PROJECT", help="Project, by name or id.")
]
DEFAULT_PROJECT = "prj_default"


@cache
def operator() -> Actor:
    """The actor of the command line, once the data folder is known to be set up.

    Every change made here reaches the gateway: routing hears of it in this process.
    """
    from core.accounts import services as accounts
    from core.kernel.settings import settings
    from core.routing import services as routing

    use_running_ports()
    if not settings().database_url and not (settings().data_dir / "bud.db").exists():
        raise Unavailable(
            f"Bud was never started on {settings().data_dir}.",
            remedy="Start it with: bud up — or name its folder in BUD_DATA_DIR.",
        )
    routing.subscribe()
    return accounts.operator()


def project_id(name_or_id: str) -> str:
    """The id of a project. NotFound with the names there are."""
    from core.projects import services as projects

    found = projects.list_projects(operator())
    for project in found:
        if name_or_id in (project.id, project.name):
            return project.id
    names = ", ".join(project.name for project in found)
    raise NotFound(f"There is no project {name_or_id!r}.", remedy=f"There are: {names}.")


def use_running_ports() -> None:
    """Let the settings name the ports of the Bud that runs, which its flags may have changed."""
    from app import supervisor
    from core.kernel.settings import settings

    state = supervisor.running(settings().data_dir)
    if not state:
        return
    ports = state.get("ports")
    chosen = {"BUD_HOST": state.get("host")}
    if isinstance(ports, dict):
        chosen |= {"BUD_APP_PORT": ports.get("app"), "BUD_GATEWAY_PORT": ports.get("gateway")}
    for name, value in chosen.items():
        if value is not None:
            os.environ[name] = str(value)
    settings.cache_clear()


def is_running() -> bool:
    """Whether `bud up` runs on the data folder now."""
    from app import supervisor
    from core.kernel.settings import settings

    return supervisor.running(settings().data_dir) is not None
