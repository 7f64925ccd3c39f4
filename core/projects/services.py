"""Use cases of projects."""

from __future__ import annotations

from sqlalchemy import select

from core.accounts import services as accounts
from core.kernel import audit, clock, database, events, ids
from core.kernel.actor import Actor, Role
from core.kernel.errors import Conflict, InvalidInput, NotFound
from core.projects.models import Project
from core.projects.schemas import ProjectView


def bootstrap() -> None:
    """Make the default project; does nothing when it exists. Needs the default tenant."""
    with database.transaction() as tx:
        if tx.get(Project, accounts.DEFAULT_PROJECT_ID) is not None:
            return
        tx.add(_project(accounts.DEFAULT_PROJECT_ID, accounts.TENANT_ID, "Default", demo=False))
        audit.record(
            tx, Actor.system(), "project.created", f"project:{accounts.DEFAULT_PROJECT_ID}"
        )


def list_projects(actor: Actor) -> list[ProjectView]:
    """The projects the actor can read, by name, the default one first."""
    query = select(Project).where(Project.tenant_id == actor.tenant_id).order_by(Project.name)
    with database.reading() as session:
        found = [row for row in session.scalars(query) if actor.may("project:read", row.id)]
    found.sort(key=lambda row: row.id != accounts.DEFAULT_PROJECT_ID)
    return [ProjectView.model_validate(row) for row in found]


def get_project(actor: Actor, project_id: str) -> ProjectView:
    """One project, by id or name. NotFound when the actor cannot read it."""
    for project in list_projects(actor):
        if project_id in (project.id, project.name):
            return project
    raise NotFound(f"There is no project {project_id}.", remedy="See the Projects page.")


def create_project(actor: Actor, name: str, *, demo: bool = False) -> ProjectView:
    """Make a project. Conflict when the name is taken; admins only."""
    actor.require("project:create")
    name = name.strip()
    if not 1 <= len(name) <= 80:
        raise InvalidInput(
            f"A project name has 1 to 80 characters; this one has {len(name):,}.",
            remedy="Shorten it." if name else "Say what the project is for.",
        )
    project = _project(ids.new_id("prj"), actor.tenant_id, name, demo=demo)
    with database.transaction() as tx:
        taken = select(Project).where(Project.tenant_id == actor.tenant_id, Project.name == name)
        if tx.scalar(taken) is not None:
            raise Conflict(f"There is already a project {name!r}.", remedy="Choose another name.")
        tx.add(project)
        audit.record(tx, actor, "project.created", f"project:{project.id}", name=name)
    events.publish("projects.changed")
    return ProjectView.model_validate(project)


def set_member(actor: Actor, project_id: str, user_id: str, role: Role | None) -> None:
    """Give a user a role in a project, or take it away with None: their keys in it end too.

    Raises:
        NotFound: No such project, or no such user.
        PermissionDenied: The actor does not administer the project.
    """
    project = get_project(actor, project_id)
    accounts.set_membership(actor, project.id, user_id, role)


def delete_demo_project(actor: Actor, project_id: str) -> None:
    """Delete a project that is marked as demo; what is in it must be gone already."""
    actor.require("project:delete")
    with database.transaction() as tx:
        project = tx.get(Project, project_id)
        if project is None or not project.demo:
            raise NotFound(f"There is no demo project {project_id}.")
        tx.delete(project)
        audit.record(tx, actor, "project.deleted", f"project:{project_id}", name=project.name)
    events.publish("projects.changed")


def _require_project(actor: Actor, project_id: str) -> None:
    if project_id not in [project.id for project in list_projects(actor)]:
        raise NotFound(f"There is no project {project_id!r}.", remedy="See the Projects page.")


def _project(project_id: str, tenant_id: str, name: str, *, demo: bool) -> Project:
    return Project(id=project_id, tenant_id=tenant_id, name=name, demo=demo, created_at=clock.now())


accounts.register_project_check(_require_project)
