"""`bud users` and `bud projects`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app import formats
from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json
from core.kernel.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from core.accounts.schemas import UserView
    from core.kernel.actor import Role

users = typer.Typer(help="Users: list, add, disable, enable, reset, role.", no_args_is_help=True)
projects = typer.Typer(
    help="Projects: list, create, add-member, remove-member.", no_args_is_help=True
)

_User = Annotated[str, typer.Argument(help="User, by e-mail address or id.", metavar="USER")]
_Role = Annotated[str, typer.Option("--role", help="admin or member.")]


@users.command("list")
def list_users(as_json: Json = False) -> None:
    """List every user."""
    from core.accounts import services as accounts

    found = accounts.list_users(context.operator())
    rows = [
        (
            *(user.email, user.name, user.role, "enabled" if user.enabled else "disabled"),
            *(formats.ago(user.last_log_in_at), len(user.projects)),
        )
        for user in found
    ]
    columns = ("e-mail", "name", "role", "state", "last log-in", "projects")
    output.show(found, output.table(columns, rows, empty="No users."), as_json=as_json)


@users.command("add")
def add_user(
    email: Annotated[str, typer.Argument(help="E-mail address.")],
    name: Annotated[str, typer.Option(help="Name.")] = "",
    role: _Role = "member",
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Add a user and print their one-time password."""
    from core.accounts import services as accounts

    made = accounts.add_user(
        context.operator(), email, name, _role(role), context.project_id(project)
    )
    _show_password(made.user, made.one_time_password.reveal(), as_json=as_json)


@users.command("reset")
def reset_password(user: _User, as_json: Json = False) -> None:
    """Give a user a new one-time password and end their sessions."""
    from core.accounts import services as accounts

    found = _find(user)
    secret = accounts.reset_password(context.operator(), found.id)
    _show_password(found, secret.reveal(), as_json=as_json)


def _show_password(user: UserView, password: str, *, as_json: bool) -> None:
    text = f"{user.email}\none-time password: {password}\nIt is shown this once."
    output.show({"user": user, "one_time_password": password}, text, as_json=as_json)


@users.command()
def disable(user: _User, as_json: Json = False) -> None:
    """Disable a user: their sessions and API keys end at once."""
    _set_enabled(user, enabled=False, as_json=as_json)


@users.command()
def enable(user: _User, as_json: Json = False) -> None:
    """Let a disabled user log in again."""
    _set_enabled(user, enabled=True, as_json=as_json)


def _set_enabled(user: str, *, enabled: bool, as_json: bool) -> None:
    from core.accounts import services as accounts

    found = _find(user)
    accounts.set_user_enabled(context.operator(), found.id, enabled)
    state = "enabled" if enabled else "disabled"
    output.show({"id": found.id, "enabled": enabled}, f"{found.email} is {state}.", as_json=as_json)


@users.command("role")
def set_role(
    user: _User,
    role: Annotated[str, typer.Argument(help="admin or member.")],
    as_json: Json = False,
) -> None:
    """Make a user an admin of everything, or a member."""
    from core.accounts import services as accounts

    found = _find(user)
    accounts.set_role(context.operator(), found.id, _role(role))
    output.show({"id": found.id, "role": role}, f"{found.email} is {role}.", as_json=as_json)


@projects.command("list")
def list_projects(as_json: Json = False) -> None:
    """List the projects."""
    from core.projects import services

    found = services.list_projects(context.operator())
    rows = [
        (project.name, project.id, "demo" if project.demo else "", formats.ago(project.created_at))
        for project in found
    ]
    text = output.table(("name", "id", "kind", "made"), rows, empty="No projects.")
    output.show(found, text, as_json=as_json)


@projects.command("create")
def create_project(
    name: Annotated[str, typer.Argument(help="Name.")], as_json: Json = False
) -> None:
    """Make a project."""
    from core.projects import services

    made = services.create_project(context.operator(), name)
    output.show(made, f"Project {made.name} is {made.id}.", as_json=as_json)


@projects.command("add-member")
def add_member(
    user: _User, role: _Role = "member", project: Project = DEFAULT_PROJECT, as_json: Json = False
) -> None:
    """Give a user a role in a project."""
    _set_membership(user, project, _role(role), as_json=as_json)


@projects.command("remove-member")
def remove_member(user: _User, project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Take a user out of a project."""
    _set_membership(user, project, None, as_json=as_json)


def _set_membership(user: str, project: str, role: Role | None, *, as_json: bool) -> None:
    from core.projects import services

    found, project_id = _find(user), context.project_id(project)
    services.set_member(context.operator(), project_id, found.id, role)
    done = f"{found.email} is {role or 'no longer a member'} in {project_id}."
    value = {"user_id": found.id, "project_id": project_id, "role": role}
    output.show(value, done, as_json=as_json)


def _find(name: str) -> UserView:
    from core.accounts import services as accounts

    for user in accounts.list_users(context.operator()):
        if name.lower() in (user.email, user.id):
            return user
    raise NotFound(f"There is no user {name!r}.", remedy="See: bud users list")


def _role(text: str) -> Role:
    if text == "admin":
        return "admin"
    if text == "member":
        return "member"
    raise InvalidInput("There is no such role.", value=text, remedy="Use admin or member.")
