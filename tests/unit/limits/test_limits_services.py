"""Limits: set, changed, listed, deleted, refused, published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.accounts import api_keys
from core.contracts import route_table
from core.kernel import audit
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound, PermissionDenied
from core.limits import services as limits
from core.projects import services as projects
from core.routing import services as routing

PROJECT = "prj_default"


@pytest.fixture
def project(data_dir: Path) -> str:
    from core.accounts import services as accounts

    accounts.bootstrap("ada@example.org", None)
    projects.bootstrap()
    return PROJECT


def test_setting_again_changes_the_amount_and_the_table(project: str, admin: Actor) -> None:
    routing.subscribe()
    first = limits.set_limit(admin, project, "project", "Default", "usd", "month", 20)
    again = limits.set_limit(admin, project, "project", project, "usd", "month", 30)
    assert (again.id, again.subject, again.when_alone) == (first.id, project, "refuse")
    assert [limit.amount for limit in limits.list_limits(admin, project)] == [30]
    (published,) = route_table.decode(routing.table_path().read_bytes()).limits
    assert (published.name, published.amount) == ("project.usd_per_month", 30)
    limits.delete_limit(admin, first.id)
    assert route_table.decode(routing.table_path().read_bytes()).limits == []
    actions = [entry.action for entry in audit.entries(admin, project)]
    assert sorted(action for action in actions if action.startswith("limit.")) == [
        "limit.deleted", "limit.set", "limit.set",
    ]  # fmt: skip


def test_a_key_and_its_user_are_named_as_people_know_them(project: str, admin: Actor) -> None:
    key = api_keys.create_key(admin, project, "ci").key
    of_key = limits.set_limit(admin, project, "key", "ci", "tokens", "minute", 1000)
    of_user = limits.set_limit(admin, project, "user", key.user_id, "concurrent", "", 4)
    assert (of_key.subject, of_key.when_alone) == (key.id, "share")
    assert of_user.subject == key.user_id
    of_token = limits.set_limit(admin, project, "user", "keycloak:ada", "concurrent", "", 4)
    assert of_token.subject == "keycloak:ada"
    for level, subject in (("key", "nobody"), ("user", "usr_nobody"), ("project", "prj_nobody")):
        asked: Any = (level, subject)
        with pytest.raises(NotFound):
            limits.set_limit(admin, project, *asked, "requests", "day", 1)


def test_what_holds_when_hosts_are_alone_is_one_of_two_words(project: str, admin: Actor) -> None:
    word: Any = "open"
    with pytest.raises(InvalidInput, match=r"Use refuse or share\."):
        limits.set_limit(admin, project, "project", "", "usd", "day", 1, when_alone=word)
    assert limits.list_limits(admin, project) == []


@pytest.mark.parametrize(
    ("level", "metric", "window", "amount"),
    [
        ("project", "usd", "minute", 1.0),
        ("project", "concurrent", "day", 1.0),
        ("project", "requests", "", 1.0),
        ("project", "wishes", "day", 1.0),
        ("project", "requests", "day", -1.0),
        ("project", "requests", "day", 1.5),
        ("project", "tokens", "day", 5e9),
        ("project", "usd", "day", float("nan")),
        ("model", "usd", "day", 1.0),
        ("team", "usd", "day", 1.0),
    ],
)
def test_what_cannot_be_limited_so_is_refused(
    project: str, admin: Actor, level: Any, metric: Any, window: Any, amount: float
) -> None:
    subject = "" if level == "model" else project
    with pytest.raises(InvalidInput):
        limits.set_limit(admin, project, level, subject, metric, window, amount)
    assert limits.list_limits(admin, project) == []


def test_members_read_and_admins_of_the_project_set(project: str, admin: Actor) -> None:
    made = limits.set_limit(admin, project, "model", "tiny", "requests", "day", 5)
    member = Actor("usr_m", "m@example.org", "ten_default", "member", {project: "member"})
    assert limits.list_limits(member, project) == [made]
    with pytest.raises(PermissionDenied):
        limits.delete_limit(member, made.id)
    with pytest.raises(PermissionDenied):
        limits.set_limit(member, project, "model", "tiny", "requests", "day", 6)
    stranger = Actor("usr_s", "s@example.org", "ten_default", "member", {"prj_b": "admin"})
    with pytest.raises(NotFound):
        limits.delete_limit(stranger, made.id)
    assert limits.forget_project(admin, project) == 1
    assert limits.list_limits(admin, project) == []
