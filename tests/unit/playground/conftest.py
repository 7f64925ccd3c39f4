"""A member of a project whose gateway is a scripted one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.accounts import services as accounts
from core.kernel.actor import Actor
from core.kernel.settings import settings
from core.projects import services as projects
from tests.doubles.scripted_gateway import ScriptedGateway


@pytest.fixture
def gateway() -> Iterator[ScriptedGateway]:
    made = ScriptedGateway()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def person(
    data_dir: Path, gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch, admin: Actor
) -> Actor:
    """A member of the default project, whose gateway is the scripted one."""
    monkeypatch.setenv("BUD_GATEWAY_PORT", str(gateway.port))
    settings.cache_clear()
    accounts.bootstrap("admin@example.org", None)
    projects.bootstrap()
    user = accounts.add_user(admin, "ann@example.org", project_id=accounts.DEFAULT_PROJECT_ID).user
    return Actor(user.id, user.email, accounts.TENANT_ID, "member", dict(user.projects))
