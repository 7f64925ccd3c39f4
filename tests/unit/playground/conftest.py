"""A member of a project whose gateway is a scripted one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.accounts import services as accounts
from core.kernel.actor import Actor
from core.kernel.settings import settings
from tests.doubles.scripted_gateway import ScriptedGateway


@pytest.fixture
def gateway() -> Iterator[ScriptedGateway]:
    made = ScriptedGateway()
    made.start()
    yield made
    made.stop()


@pytest.fixture
def person(data_dir: Path, gateway: ScriptedGateway, monkeypatch: pytest.MonkeyPatch) -> Actor:
    """A member of the default project, whose gateway is the scripted one."""
    monkeypatch.setenv("BUD_GATEWAY_PORT", str(gateway.port))
    settings.cache_clear()
    project = accounts.DEFAULT_PROJECT_ID
    return Actor("usr_ann", "ann@example.org", accounts.TENANT_ID, "member", {project: "member"})
