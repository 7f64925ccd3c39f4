"""The response cache of a project: turned on, published, purged, turned off; routes left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from core.contracts import route_table
from core.contracts.route_table import Cache
from core.kernel import audit
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound, PermissionDenied
from core.projects import services as projects
from core.response_cache import services as cache
from core.routing import services as routing
from gateway.cache.disk_store import DiskStore
from gateway.cache.entries import Entry

PROJECT = "prj_default"


@pytest.fixture
def project(data_dir: Path) -> str:
    from core.accounts import services as accounts

    accounts.bootstrap("ada@example.org", None)
    projects.bootstrap()
    routing.subscribe()
    return PROJECT


def published() -> Cache | None:
    return route_table.decode(routing.table_path().read_bytes()).projects[0].cache


def test_a_project_turns_it_on_purges_and_turns_it_off(project: str, admin: Actor) -> None:
    assert cache.get_cache(admin, project) is None
    for change in (cache.turn_off, cache.purge):
        with pytest.raises(NotFound):
            change(admin, project)
    on = cache.turn_on(admin, project, ttl_s=60, max_mb=5)
    assert (on.enabled, on.answers, on.used_bytes) == (True, 0, 0)
    assert published() == Cache(ttl_s=60.0, max_bytes=5_000_000)
    cache.turn_on(admin, project, ttl_s=30, max_mb=5, all_requests=True)
    assert published() == Cache(ttl_s=30.0, max_bytes=5_000_000, all_requests=True)
    # What was kept before a purge is not found under the new generation.
    cache.purge(admin, project)
    assert published() == Cache(ttl_s=30.0, max_bytes=5_000_000, all_requests=True, generation=1)
    cache.turn_off(admin, project)
    assert published() is None
    # Nor is what was kept before it was off.
    cache.turn_on(admin, project)
    assert published() == Cache(ttl_s=3600.0, max_bytes=100_000_000, generation=2)
    assert {each.action for each in audit.entries(admin, project_id=project)} >= {
        "cache.on",
        "cache.off",
        "cache.purged",
    }


def test_only_admins_of_the_project_change_it(project: str, admin: Actor) -> None:
    cache.turn_on(admin, project)
    member = Actor("usr_m", "grace@example.org", "ten_default", "member", {project: "member"})
    assert cache.get_cache(member, project) is not None
    for change in (cache.turn_on, cache.turn_off, cache.purge):
        with pytest.raises(PermissionDenied):
            change(member, project)
    for wrong in ({"ttl_s": 0}, {"max_mb": 10_001}, {"ttl_s": 30 * 86_400 + 1}):
        with pytest.raises(InvalidInput, match=r"is out of range\. Give 1 to "):
            cache.turn_on(admin, project, **wrong)


async def test_what_the_gateway_of_this_host_keeps_is_told(
    project: str, admin: Actor, data_dir: Path
) -> None:
    cache.turn_on(admin, project)
    store = DiskStore(data_dir)
    entry = Entry(2e9, "application/json", b"x" * 1000, 1, None)
    store.put(project, b"k" * 32, Cache(ttl_s=60.0, max_bytes=10_000), entry)
    await store.close()
    view = cache.get_cache(admin, project)
    assert view is not None
    assert view.answers == 1
    assert view.used_bytes is not None
    assert 1000 < view.used_bytes < 1100


def test_the_command_line_shows_changes_and_purges(project: str) -> None:
    run = CliRunner().invoke
    said = run(app, ["cache", "on", "--ttl", "120", "--project", "Default"])
    assert said.exit_code == 0, said.output
    assert "temperature 0 or a seed" in said.output
    shown = run(app, ["cache", "show", "--json"])
    assert shown.exit_code == 0, shown.output
    told = json.loads(shown.output)
    assert (told["cache"]["ttl_s"], told["last_24h"]["hits"]) == (120, 0)
    assert run(app, ["cache", "purge", "--yes"]).exit_code == 0
    found = published()
    assert found is not None
    assert found.generation == 1
    assert "no longer kept" in run(app, ["cache", "off"]).output
    assert published() is None
