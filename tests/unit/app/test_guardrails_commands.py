"""`bud guardrails`: added, listed, shown, tried, turned on, removed; and the table follows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import cli, guardrail_words
from app.commands import context
from core.accounts import services as accounts
from core.contracts import route_table
from core.contracts.guardrails import DenyList
from core.projects import services as projects
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

    def _run(*arguments: str, status: int = 0, text: bool = False) -> Any:
        found = cli.main([*arguments, *([] if text else ["--json"])])
        printed = capsys.readouterr()
        assert found == status, printed.err
        return printed.out if text else json.loads(printed.out if status == 0 else printed.err)

    yield _run
    context.operator.cache_clear()


def test_a_guardrail_from_add_to_remove(bud: Callable[..., Any]) -> None:
    made = bud("guardrails", "add", "no-falcon", "deny_list", "--word", "falcon", "--mask")
    assert (made["mode"], made["action"], made["settings"]["words"]) == (
        "report", "mask", ["falcon"],
    )  # fmt: skip
    assert bud("guardrails", "mode", "no-falcon", "enforce")["mode"] == "enforce"
    (rule,) = route_table.decode(routing.table_path().read_bytes()).guardrails
    assert rule.check == DenyList(words=("falcon",))
    assert rule.mode == "enforce"
    (tried,) = bud("guardrails", "test", "The Falcon flies")
    assert (tried["would"], tried["masked"]) == ("mask", "The [redacted: word] flies")
    told = bud("guardrails", "test", "The Falcon flies", text=True)
    assert "masks it" in told
    assert "The [redacted: word] flies" in told
    assert bud("guardrails", "show", "no-falcon")["id"] == made["id"]
    (listed,) = bud("guardrails", "list")
    assert (listed["name"], listed["last_24h"]) == ("no-falcon", [])
    assert "1 word" in bud("guardrails", "list", text=True)
    bud("guardrails", "remove", "no-falcon", "--yes")
    assert bud("guardrails", "list") == []
    assert "Add one" in bud("guardrails", "list", text=True)


def test_what_is_wrong_is_said(bud: Callable[..., Any]) -> None:
    missing = bud("guardrails", "show", "nobody", status=4)
    assert "none yet" in missing["error"]["remedy"]
    unsaid = bud("guardrails", "add", "cls", "classifier", "--url", "https://192.0.2.1/x", status=2)
    assert "private network" in unsaid["error"]["what"]
    assert (
        bud("guardrails", "add", "x", "pii", "--word", "y", status=2)["error"]["value"] == "words"
    )
    assert bud("guardrails", "test", "x", "--side", "both", status=2)["error"]["value"] == "both"


def test_what_guardrails_did_is_told_in_words() -> None:
    ran = (
        '[{"rule":"a","side":"input","outcome":"passed"},'
        '{"rule":"b","side":"output","outcome":"let_through"}]'
    )
    assert guardrail_words.told(ran) == "b let through (output)"
    assert guardrail_words.told("") == ""
