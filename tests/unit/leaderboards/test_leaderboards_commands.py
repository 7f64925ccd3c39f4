"""`bud leaderboard` through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import cli
from app.commands import context
from core.accounts import services as accounts
from core.kernel.crypto import Secret
from core.projects import services as projects


@pytest.fixture
def bud(
    data_dir: Path, quick_passwords: None, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Any]]:
    """Run a command; what it printed, decoded with `--json`."""
    accounts.bootstrap("admin@example.org", Secret("correct-horse-battery"))
    projects.bootstrap()
    context.operator.cache_clear()

    def _run(*arguments: str, status: int = 0) -> Any:
        found = cli.main(["leaderboard", *arguments])
        printed = capsys.readouterr()
        assert found == status, printed.err
        text = printed.out if status == 0 else printed.err
        return json.loads(text) if "--json" in arguments else text

    yield _run
    context.operator.cache_clear()


def test_tasks_and_boards_are_listed(bud: Callable[..., Any]) -> None:
    assert "over a year old" in bud("list")
    found = bud("list", "--json")
    assert "BFCL v4" in found["tasks"]["tools"]
    assert len(found["boards"]) == 13


def test_the_key_question_is_answered(bud: Callable[..., Any]) -> None:
    asked = ("combine", "tools", "--open", "--max-b", "10", "--use", "commercial_chat")
    found = bud(*asked, "--weight", "bfcl=2", "--limit", "3", "--json")
    assert [model["position"] for model in found["models"]] == [1, 2, 3]
    assert found["query"]["use"] == "Commercial chat product, 10 M users"
    best = found["models"][0]
    assert best["open_weights"] is True
    assert best["parameters"] <= 10e9
    assert best["verdict"] in ("yes", "conditional")
    assert best["score"] == max(model["score"] for model in found["models"])
    assert found["boards"][0]["weight"] == 2
    assert found["version"]
    text = bud(*asked)
    assert "apache-2.0" in text
    assert "Left out:" in text


def test_a_board_and_a_models_figures_are_shown_with_their_source(bud: Callable[..., Any]) -> None:
    assert "ShishirPatil/gorilla@" in bud("board", "bfcl", "--limit", "2")
    rows = bud("board", "llm-stats", "--json")["rows"]
    assert any(row["is_self_reported"] for row in rows)
    figures = bud("evidence", "qwen3-8b", "--task", "tools", "--json")
    assert figures[0]["counts"] is True
    assert figures[0]["source_url"].startswith("https://github.com/ShishirPatil/gorilla/tree/")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("show", "cooking"), 4, "There are: chat"),
        (("combine", "tools", "--weight", "bfcl"), 2, "BOARD=WEIGHT"),
        (("combine", "tools", "--weight", "crux=1"), 2, "There are: bfcl, tau2"),
        (("combine", "tools", "--use", "comercial"), 2, "The nearest: Commercial chat"),
        (("board", "BFLC"), 4, "BFCL"),
        (("refresh", "Luck"), 4, "These can"),
    ],
)
def test_what_is_wrong_is_said_with_a_remedy(
    bud: Callable[..., Any], arguments: tuple[str, ...], status: int, said: str
) -> None:
    assert said in bud(*arguments, "--json", status=status)["error"]["remedy"]
