"""`bud models` and `bud providers`: sources, versions, stages, scans and accounts."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import cli
from app.commands import context
from core.accounts import services as accounts
from core.kernel.crypto import Secret
from core.kernel.settings import settings
from core.projects import services as projects
from core.registry import annotations
from core.registry import services as registry
from tests.doubles.provider_server import KEY, Providers, serving


@pytest.fixture
def bud(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Run a command with `--json` and a standard input; what it printed, decoded."""
    accounts.bootstrap("admin@example.org", Secret("correct-horse-battery"))
    projects.bootstrap()
    context.operator.cache_clear()

    def _run(*arguments: str, status: int = 0, stdin: str = "") -> Any:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        found = cli.main([*arguments, "--json"])
        printed = capsys.readouterr()
        assert found == status, printed.err
        return json.loads(printed.out or printed.err)

    yield _run
    context.operator.cache_clear()


def test_each_source_is_recognised_by_its_form(bud: Callable[..., Any], tmp_path: Path) -> None:
    for source, kind in (
        ("owner/name", "huggingface owner/name"),
        ("https://huggingface.co/owner/other", "huggingface owner/other"),
        ("https://1.1.1.1/m.gguf", "url https://1.1.1.1/m.gguf"),
        ("s3://bucket/models/m", "s3 s3://bucket/models/m"),
    ):
        assert bud("models", "add", source, "--no-wait")["model"]["source"] == kind
    said = bud("models", "add", str(tmp_path / "none.gguf"), status=2)["error"]["what"]
    assert "There is nothing at" in said


def test_versions_stages_and_the_policy(bud: Callable[..., Any]) -> None:
    starter = registry.add_starter(context.operator())
    annotations.set_tags(context.operator(), "prj_default", f"model:{starter.id}", ["tiny"])
    found = bud("models", "search", "TINY", "smollm2")["models"]
    assert [model["id"] for model in found] == [starter.id]
    assert bud("models", "search", "tiny", "huge")["models"] == []
    shown = bud("models", "show", starter.name)
    assert (shown["tags"], shown["versions"][0]["stage"]) == (["tiny"], "approved")
    assert bud("models", "stage", starter.name, "production")["stage"] == "production"
    listed = bud("models", "versions", starter.name)
    assert [period["version_number"] for period in listed["production"]] == [1]
    assert (
        "no stage 'live'" in bud("models", "stage", starter.name, "live", status=2)["error"]["what"]
    )
    assert bud("models", "policy", "--approved-only")["approved_only"] is True
    assert bud("models", "policy") == {"approved_only": True, "block_unscanned": False}
    assert "forbids nothing" in bud(
        "models", "override", starter.name, "--reason", "x", status=5
    )["error"]["what"]  # fmt: skip


class _Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("true",)


def test_any_file_is_scanned_and_a_critical_one_ends_with_1(
    bud: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(_Evil()))
    report = bud("models", "scan", str(path), status=1)
    assert (report["severity"], report["findings"][0]["file"]) == ("critical", "model.pkl")


def test_an_account_is_added_tested_and_deleted_without_its_key_on_the_command_line(
    bud: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUD_PRIVATE_HOSTS", "127.0.0.1")
    settings.cache_clear()
    assert {"openai", "bedrock", "vertex"} <= {kind["id"] for kind in bud("providers", "kinds")}
    with serving(Providers()) as double:
        address = ("--base-url", f"{double.url}/openai/v1")
        wrong = bud("providers", "add", "openai", *address, stdin="sk-wrong", status=3)
        assert "sk-wrong" not in json.dumps(wrong)
        made = bud("providers", "add", "openai", "--name", "Ours", *address, stdin=f"{KEY}\n")
        assert KEY not in json.dumps(made)
        assert [model["id"] for model in bud("providers", "models", "ours")] == [
            "gpt-4o",
            "gpt-4o-mini",
        ]
        assert bud("providers", "test", "Ours")["check_error"] is None
        double.key = "sk-next"
        assert bud("providers", "rotate", "Ours", stdin="sk-next")["check_error"] is None
    added = bud("models", "add", "gpt-4o", "--provider", "Ours")["model"]
    assert (added["kind"], added["provider_model"]) == ("hosted", "gpt-4o")
    bud("models", "delete", "gpt-4o", "--yes")
    bud("providers", "delete", "Ours", "--yes")
    assert bud("providers", "list") == []


def test_the_catalogue_is_searched_shown_and_compared(bud: Callable[..., Any]) -> None:
    chat = "Commercial chat product, 10 M users"
    wanted = (
        "--use",
        "commercial_chat",
        "--can",
        "tools",
        "--open",
        "--max-b",
        "10",
        "--limit",
        "5",
    )
    found = bud("models", "search", "qwen3", *wanted)
    rows = found["catalogue"]
    assert (len(rows), found["total"] >= 5) == (5, True)
    assert all(row["tools"] and row["open_weights"] and row["parameters"] <= 10e9 for row in rows)
    assert {row["licence"] for row in rows} == {"apache-2.0"}
    shown = bud("models", "show", "qwen/qwen3-8b")
    assert shown["fact_sources"]["parameters"]
    assert shown["prices"][0]["source"]
    compared = bud("models", "compare", "qwen/qwen3-8b", "qwen/qwen3-14b", "--use", chat)
    assert compared["qwen/qwen3-8b"][chat] == "yes"
    refused = bud("models", "search", "x", "--use", "comercial chat", status=2)["error"]
    assert refused["what"] == "There is no use 'comercial chat'."
    assert refused["remedy"].startswith(f"The nearest: {chat}")
