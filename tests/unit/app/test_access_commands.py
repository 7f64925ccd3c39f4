"""`bud keys`, `bud blocks` and `bud captures`, and that the gateway's table follows them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import cli
from app.commands import context
from app.widgets.api_keys import SCOPE_NAMES
from core.accounts import services as accounts
from core.accounts.api_keys import SCOPES
from core.contracts import route_table
from core.contracts.route_table import Capture, RouteTable
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentRequest
from core.projects import services as projects
from core.registry import services as registry
from core.routing import services as routing


@pytest.fixture
def bud(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Run a command with `--json` on a folder that was set up; what it printed, decoded."""
    accounts.bootstrap("admin@example.org", None)
    projects.bootstrap()
    context.operator.cache_clear()
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: PTH123, SIM115

    def _run(*arguments: str, status: int = 0) -> Any:
        found = cli.main([*arguments, "--json"])
        printed = capsys.readouterr()
        assert found == status, printed.err
        return json.loads(printed.out if status == 0 else printed.err)

    yield _run
    context.operator.cache_clear()


def table() -> RouteTable:
    return route_table.decode(routing.table_path().read_bytes())


def deploy(name: str) -> None:
    """A deployment that nothing runs."""
    actor = context.operator()
    request = DeploymentRequest(
        project_id="prj_default", name=name, model_id=registry.add_starter(actor).id,
        context_tokens=256, slots=1, threads=1,
    )  # fmt: skip
    deployments.deploy(actor, request)


def test_keys_blocks_and_captures_reach_the_table(
    bud: Callable[..., Any], quick_passwords: None
) -> None:
    bud("keys", "create", "ci", "--scope", "messages", "--network", "10.0.0.0/8")
    (key,) = table().keys
    assert (key.scopes, key.networks) == (("messages",), ("10.0.0.0/8",))
    assert "called 'ci' already" in str(bud("keys", "create", "ci", status=5))
    deploy("smol")
    for command in (("restrict", "ci"), ("create", "other")):
        told = bud("keys", *command, "--model", "smool", status=4)
        assert "The nearest: smol" in str(told)
    bud("keys", "restrict", "ci", "--model", "smol", "--days", "9")
    (key,) = table().keys
    assert (key.models, key.scopes, key.networks) == (("smol",), (), ())
    assert key.expires_unix_s is not None
    bud("keys", "create", "wrong", "--scope", "wishes", status=2)

    made = bud("blocks", "set", "bots", "--user-agent", "bot", "--path", "/v1/*", "--everywhere")
    bud("blocks", "set", "net", "--network", "192.0.2.0/24")
    assert [(rule.name, rule.project_id) for rule in table().blocks] == [
        ("bots", ""), ("net", "prj_default"),
    ]  # fmt: skip
    assert len(bud("blocks", "list")) == 2
    bud("blocks", "delete", made["id"], "--yes")
    assert [rule.name for rule in table().blocks] == ["net"]
    bud("blocks", "set", "spiders", "--path", "/v1/models")
    assert bud("blocks", "delete", "spiders", "--yes") == {"deleted": "spiders"}
    assert [rule.name for rule in table().blocks] == ["net"]
    bud("blocks", "set", "none", status=2)

    bud("captures", "on", "--keep-days", "2", "--max-mb", "3")
    assert table().projects[0].capture == Capture(keep_days=2, max_bytes=3_000_000)
    assert bud("captures", "list") == []
    bud("captures", "show", "req_gone", status=4)
    assert bud("captures", "delete", "--yes") == {"files": 0}
    assert bud("captures", "off")["enabled"] is False
    assert table().projects[0].capture is None


def test_every_scope_of_a_key_has_a_name_on_its_page() -> None:
    assert set(SCOPE_NAMES) == set(SCOPES)
