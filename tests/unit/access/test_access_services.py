"""Blocking rules: set, replaced, listed, deleted, refused, published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.access import services as access
from core.contracts import route_table
from core.kernel import audit
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound, PermissionDenied
from core.projects import services as projects
from core.routing import services as routing

PROJECT = "prj_default"


@pytest.fixture
def project(data_dir: Path) -> str:
    from core.accounts import services as accounts

    accounts.bootstrap("ada@example.org", None)
    projects.bootstrap()
    return PROJECT


def test_a_rule_is_replaced_by_name_published_audited_and_deleted(
    project: str, admin: Actor
) -> None:
    routing.subscribe()
    first = access.set_block(admin, project, "scrapers", user_agents=["curl"], countries=["de"])
    again = access.set_block(admin, project, "scrapers", networks=["203.0.113.7", "2001:db8::/32"])
    everywhere = access.set_block(admin, access.EVERYWHERE, "old", paths=["/v1/completions"])
    named = access.set_block(admin, "Default", "scrapers", networks=again.conditions.networks)
    assert (named.id, named.project_id) == (first.id, project)
    assert again.id == first.id
    assert [rule.id for rule in access.list_blocks(admin, project)] == [everywhere.id, first.id]
    published = route_table.decode(routing.table_path().read_bytes())
    assert {(rule.name, rule.project_id, rule.networks) for rule in published.blocks} == {
        ("scrapers", project, ("203.0.113.7/32", "2001:db8::/32")),
        ("old", "", ()),
    }
    assert [(each.id, each.name) for each in published.projects] == [(project, "Default")]
    access.delete_block(admin, first.id)
    access.delete_block(admin, everywhere.id)
    assert route_table.decode(routing.table_path().read_bytes()).blocks == []
    actions = [entry.action for entry in audit.entries(admin, project)]
    assert actions.count("block.set") == 3
    assert actions.count("block.deleted") == 1


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ({}, "every request"),
        ({"networks": ["10.0.0.1/8"]}, "host bits"),
        ({"countries": ["DEU"]}, "two-letter"),
        ({"user_agent_patterns": ["("]}, "RE2"),
        # Python's own expressions know it; RE2 does not, as it cannot be found in bounded time.
        ({"user_agent_patterns": [r"(a)\1"]}, "RE2"),
        # Each is small enough for the gateway; together they would be left out there.
        ({"user_agent_patterns": [rf"(?:[a-z]{{100}}){{9}}{n}" for n in range(20)]}, "together"),
        ({"paths": ["v1"]}, "begins with /"),
        ({"paths": ["/v1/*/x"]}, "at its end"),
        ({"wishes": ["x"]}, "wishes"),
    ],
)
def test_conditions_that_cannot_be_used_are_refused(
    project: str, admin: Actor, conditions: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidInput, match=said):
        access.set_block(admin, project, "rule", **conditions)
    assert access.list_blocks(admin, project) == []


def test_only_admins_set_rules_and_only_those_of_every_project_everywhere(
    project: str, admin: Actor
) -> None:
    own = Actor("usr_a", "Ada", admin.tenant_id, projects={project: "admin"})
    member = Actor("usr_b", "Bo", admin.tenant_id, projects={project: "member"})
    made = access.set_block(own, project, "rule", networks=["192.0.2.0/24"])
    assert access.list_blocks(member, project) == [made]
    with pytest.raises(PermissionDenied):
        access.set_block(own, access.EVERYWHERE, "rule", networks=["192.0.2.0/24"])
    with pytest.raises(PermissionDenied):
        access.delete_block(member, made.id)
    stranger = Actor("usr_c", "Cy", admin.tenant_id)
    with pytest.raises(NotFound):
        access.delete_block(stranger, made.id)
