"""The command line: answers, JSON, errors, exit codes, completion, and how fast it is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from app import cli
from app.commands import context, follow
from core.accounts import services as accounts
from core.kernel import errors
from core.kernel.crypto import Secret
from core.kernel.settings import Settings, settings
from core.projects import services as projects
from core.registry import services as registry
from tests.machine import slowness

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def bud(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Any]]:
    """Run a command with `--json` on a folder that was set up; what it printed, decoded."""
    accounts.bootstrap("admin@example.org", Secret("correct-horse-battery"))
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


def commands() -> Iterator[tuple[str, Any]]:
    root: Any = typer.main.get_command(cli.app)
    waiting = [("bud", root)]
    while waiting:
        path, command = waiting.pop()
        children = getattr(command, "commands", {})
        waiting.extend((f"{path} {name}", child) for name, child in children.items())
        if not children:
            yield path, command


def test_every_command_has_json_and_says_what_it_does() -> None:
    found = dict(commands())
    assert len(found) > 40
    for path, command in found.items():
        options = {word for parameter in command.params for word in parameter.opts}
        assert "--json" in options, path
        assert command.help, path


def test_help_is_there_at_once_and_imports_nothing_heavy() -> None:
    started = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-m", "app.cli", "--help"], cwd=ROOT, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    took_s = time.perf_counter() - started
    assert "deploy" in run.stdout
    heavy = ("sqlalchemy", "pandas", "streamlit", "dbos", "pydantic", "duckdb", "httpx", "psutil")
    code = f"import app.cli, sys; print([n for n in {heavy!r} if n in sys.modules])"
    imported = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert imported.stdout.strip() == "[]"
    assert took_s < 2.0 * slowness()  # 0.2 s alone; tests share two cores


def test_the_supervisor_stays_light() -> None:
    code = (
        "import app.supervisor, core.kernel.settings, sys;"
        "print([n for n in ('sqlalchemy', 'streamlit', 'pandas', 'aiohttp') if n in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_users_are_added_disabled_and_reset(bud: Callable[..., Any]) -> None:
    added = bud("users", "add", "Ann@Example.org", "--name", "Ann")
    assert added["user"]["email"] == "ann@example.org"
    assert accounts.log_in("ann@example.org", Secret(added["one_time_password"]), "test")
    reset = bud("users", "reset", "ann@example.org")
    assert reset["one_time_password"] != added["one_time_password"]
    bud("users", "disable", "ann@example.org")
    listed = {user["email"]: user for user in bud("users", "list")}
    assert not listed["ann@example.org"]["enabled"]
    bud("users", "enable", "ann@example.org")
    bud("users", "role", "ann@example.org", "admin")
    listed = {user["email"]: user for user in bud("users", "list")}
    assert listed["ann@example.org"]["enabled"]
    assert listed["ann@example.org"]["role"] == "admin"


def test_keys_are_shown_once_and_revoked(bud: Callable[..., Any]) -> None:
    made = bud("keys", "create", "ci", "--days", "7")
    assert made["secret"].startswith("bud-")
    assert made["key"]["expires_at"] is not None
    assert made["secret"] not in json.dumps(bud("keys", "list"))
    bud("keys", "revoke", "ci", "--yes")
    assert bud("keys", "list")[0]["revoked_at"] is not None
    assert bud("keys", "revoke", "ci", "--yes", status=4)["error"]["code"] == "not_found"


def test_projects_keep_things_apart(bud: Callable[..., Any]) -> None:
    made = bud("projects", "create", "Research")
    bud("keys", "create", "theirs", "--project", "Research")
    assert [key["name"] for key in bud("keys", "list", "--project", made["id"])] == ["theirs"]
    assert bud("keys", "list") == []
    wrong = bud("keys", "list", "--project", "Nowhere", status=4)
    assert wrong["error"]["remedy"] == "There are: Default, Research."


def test_a_change_reaches_the_route_table(bud: Callable[..., Any], data_dir: Path) -> None:
    made = bud("keys", "create", "ci")
    table = json.loads((data_dir / "routes" / "table.json").read_text())
    assert made["key"]["id"] in [key["id"] for key in table["keys"]]


def test_empty_lists_say_what_to_do(
    bud: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    del bud
    assert cli.main(["deployments", "list"]) == 0
    assert "bud deploy MODEL" in capsys.readouterr().out


def test_an_error_says_what_value_and_remedy(
    bud: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["users", "add", "nobody"]) == 2
    text = capsys.readouterr().err
    assert text.splitlines() == [
        "Error: This is not an e-mail address.",
        "  Given:   nobody",
        "  Do this: Use name@example.org.",
    ]
    error = bud("users", "add", "nobody", status=2)["error"]
    assert (error["code"], error["value"]) == ("invalid_input", "nobody")


def test_wrong_usage_is_said_with_where_to_look(bud: Callable[..., Any]) -> None:
    error = bud("deploy", status=2)["error"]
    assert "Missing argument" in error["what"]
    assert error["remedy"] == "See: bud deploy --help"


def test_nothing_is_deleted_when_nobody_can_be_asked(bud: Callable[..., Any]) -> None:
    bud("keys", "create", "ci")
    assert "Say yes with --yes" in bud("keys", "revoke", "ci", status=2)["error"]["remedy"]
    assert bud("keys", "list")[0]["revoked_at"] is None


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.InvalidInput("x"), 2),
        (errors.PermissionDenied("x"), 3),
        (errors.NotFound("x"), 4),
        (errors.NoCapacity("x"), 5),
        (errors.RateLimited("x", retry_after_s=1), 6),
        (errors.UpstreamFailed("x"), 7),
        (errors.KeyProblem("x"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("app.checkup.look", fail)
    assert cli.main(["doctor"]) == status


def test_a_folder_that_was_never_set_up_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BUD_DATA_DIR", str(tmp_path / "nothing"))
    settings.cache_clear()
    context.operator.cache_clear()
    assert cli.main(["models", "list"]) == 7
    assert "Bud was never started on" in capsys.readouterr().err
    settings.cache_clear()


def test_waiting_for_a_job_without_bud_is_refused(bud: Callable[..., Any]) -> None:
    del bud
    with pytest.raises(errors.Unavailable, match="Bud does not run"):
        follow.job(context.operator(), "job_x")


def test_bash_completes_commands() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "app.cli"],
        cwd=ROOT,
        env={
            **os.environ,
            "_BUD_COMPLETE": "complete_bash",
            "COMP_WORDS": "bud depl",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.split() == ["deploy", "deployments"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    assert "_BUD_COMPLETE" in capsys.readouterr().out


def test_logs_of_bud_itself(bud: Callable[..., Any], data_dir: Path) -> None:
    (data_dir / "logs").mkdir()
    (data_dir / "logs" / "app.log").write_text("one\ntwo\n")
    assert bud("logs", "app", "-n", "1") == {"log": "app", "line": "two"}
    assert bud("logs", "nothing", status=4)["error"]["remedy"] == "There are: app."


def test_a_deployment_is_renamed_and_a_value_given_back_to_bud(bud: Callable[..., Any]) -> None:
    registry.add_starter(context.operator())
    made = bud("deploy", registry.STARTER_NAME, "--name", "smol", "--slots", "1")
    bud("jobs", "cancel", made["job_id"])
    edited = bud("deployments", "edit", "smol", "--name", "tiny", "--slots", "auto", "--yes")
    assert edited["name"] == "tiny"
    assert edited["requested"]["slots"] is None
    error = bud("deployments", "edit", "tiny", "--slots", "many", "--yes", status=2)["error"]
    assert error["value"] == "many"


def test_limits_are_set_listed_and_deleted(bud: Callable[..., Any]) -> None:
    made = bud("limits", "set", "project", "requests", "600", "--per", "minute")
    assert (made["subject"], made["amount"]) == ("prj_default", 600)
    assert bud("limits", "list") == [made | {"used_now": None}]
    wrong = bud("limits", "set", "project", "usd", "5", status=2)
    assert "usd per day" in wrong["error"]["remedy"]
    bud("limits", "delete", made["id"], "--yes")
    assert bud("limits", "list") == []


def test_help_says_first_sentences_whole_and_the_defaults_of_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["--help"]) == 0
    listed = capsys.readouterr().out
    assert "every model server." in listed
    assert "..." not in listed.split("Commands:")[1]
    assert cli.main(["up", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for name in ("host", "app_port", "gateway_port", "gateway_workers"):
        assert f"BUD_{name.upper()} or {Settings.model_fields[name].default}." in said
