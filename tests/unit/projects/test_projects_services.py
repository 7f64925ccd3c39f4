"""Projects: names, who may make them, who sees which."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.accounts import services as accounts
from core.kernel import audit
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from core.projects import services as projects

MEMBER_OF_DEFAULT = Actor("usr_m", "m", "ten_default", "member", {"prj_default": "member"})
ADMIN_OF_DEFAULT = Actor("usr_p", "p", "ten_default", "member", {"prj_default": "admin"})


@pytest.fixture
def tenant(data_dir: Path, quick_passwords: None) -> Path:
    accounts.bootstrap("admin@example.org", Secret("correct-horse-battery"))
    projects.bootstrap()
    projects.bootstrap()
    return data_dir


def test_the_default_project_comes_first(tenant: Path, admin: Actor) -> None:
    projects.create_project(admin, "Alpha")
    assert [project.name for project in projects.list_projects(admin)] == ["Default", "Alpha"]
    assert [project.name for project in projects.list_projects(MEMBER_OF_DEFAULT)] == ["Default"]
    assert projects.list_projects(Actor.system("ten_other")) == []


def test_a_project_is_found_by_id_and_name_by_those_in_it(tenant: Path, admin: Actor) -> None:
    alpha = projects.create_project(admin, "  Alpha ")
    assert projects.get_project(admin, "Alpha") == projects.get_project(admin, alpha.id) == alpha
    for wanted in ("Alpha", alpha.id):
        with pytest.raises(NotFound):
            projects.get_project(MEMBER_OF_DEFAULT, wanted)


def test_names_are_unique_and_short(tenant: Path, admin: Actor) -> None:
    with pytest.raises(Conflict):
        projects.create_project(admin, "Default")
    for name in ("", "   ", "x" * 81):
        with pytest.raises(InvalidInput):
            projects.create_project(admin, name)


def test_only_admins_make_projects(tenant: Path) -> None:
    for actor in (MEMBER_OF_DEFAULT, ADMIN_OF_DEFAULT):
        with pytest.raises(PermissionDenied):
            projects.create_project(actor, "Mine")


def test_members_are_set_by_the_projects_admin_in_projects_there_are(
    tenant: Path, admin: Actor
) -> None:
    user = accounts.add_user(admin, "ana@example.org", project_id=None).user
    with pytest.raises(NotFound):
        projects.set_member(admin, "prj_none", user.id, "member")
    with pytest.raises(NotFound):
        projects.set_member(admin, "prj_default", "usr_none", "member")
    with pytest.raises(PermissionDenied):
        projects.set_member(MEMBER_OF_DEFAULT, "prj_default", user.id, "admin")
    projects.set_member(ADMIN_OF_DEFAULT, "prj_default", user.id, "member")
    assert accounts.get_user(admin, user.id).projects == {"prj_default": "member"}
    assert audit.entries(admin, "prj_default")[0].action == "project.member_changed"


def test_only_a_demo_project_can_be_deleted(tenant: Path, admin: Actor) -> None:
    with pytest.raises(NotFound):
        projects.delete_demo_project(admin, "prj_default")
    demo = projects.create_project(admin, "Demo", demo=True)
    projects.delete_demo_project(admin, demo.id)
    assert [project.name for project in projects.list_projects(admin)] == ["Default"]
