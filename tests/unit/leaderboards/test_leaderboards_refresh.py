"""A board fetched anew: the difference is shown, applied by an admin, and can be taken back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import jobs
from core.accounts import services as accounts
from core.jobs import engine
from core.kernel import audit
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, NotFound, PermissionDenied
from core.leaderboards import refresh, refreshes, scores, services
from core.leaderboards.adapters.boards import BOARDS, Row
from core.projects import services as projects
from tests.doubles.github_server import DAY, SHA, GitHub, serving

PROJECT = "prj_default"
BOARD = "Vectara HHEM"


@pytest.fixture
def github(monkeypatch: pytest.MonkeyPatch) -> Iterator[GitHub]:
    with serving(GitHub()) as running:
        monkeypatch.setenv("BUD_GITHUB_API_URL", running.url)
        monkeypatch.setenv("BUD_GITHUB_RAW_URL", running.url)
        yield running


@pytest.fixture
def running(github: GitHub, data_dir: Path, quick_passwords: None) -> Iterator[GitHub]:
    accounts.bootstrap("admin@example.org", None)
    projects.bootstrap()
    engine.launch()
    yield github
    engine.shutdown()


def _readme(changed: dict[str, str], added: str = "") -> str:
    """The board as it is shipped, with some rates changed and a line added."""
    shipped = scores.of_board("ten_default", BOARD)
    wide = shipped.pivot_table(index="published_name", columns="metric", values="score")
    columns = ["Hallucination Rate", "Factual Consistency Rate", "Answer Rate"]
    columns.append("Average Summary Length (Words)")
    lines = [f"|Model|{'|'.join(columns)}|", "|----|----:|----:|----:|----:|"]
    for name, row in wide[columns].iterrows():
        rate = changed.get(str(name), f"{row[columns[0]]}")
        lines.append(f"|{name}|{rate} %|{row[columns[1]]} %|{row[columns[2]]} %|{row[columns[3]]}|")
    return "\n".join([*lines, added, ""])


def _fetch(actor: Actor, *, until: str) -> str:
    found, job_id = refreshes.start(actor, PROJECT, BOARD)
    deadline = time.monotonic() + 60
    while (job := jobs.get(actor, job_id)).state != until:
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    return found.id


def test_a_difference_is_shown_then_applied_then_taken_back(running: GitHub, admin: Actor) -> None:
    path = "vectara/hallucination-leaderboard/README.md"
    running.files[path] = _readme(
        {"qwen/qwen3-8b": "1.1"}, "|qwen/qwen3-8b-brand-new|9.9 %|90.1 %|100 %|80|"
    )
    before = services.board(admin, PROJECT, BOARD).table
    refresh_id = _fetch(admin, until="succeeded")
    (found,) = refreshes.list_refreshes(admin, BOARD)
    assert (found.state, found.changed, found.removed) == ("found", 1, 0)
    assert found.added >= 2
    assert found.source == f"vectara/hallucination-leaderboard@{SHA[:12]} ({DAY})"
    changes = refreshes.difference(admin, refresh_id)
    changed = changes[changes["change"] == "changed"].iloc[0]
    assert (changed["published_name"], changed["score_now"], changed["score_then"]) == (
        *("qwen/qwen3-8b", 4.8),
        1.1,
    )
    assert services.board(admin, PROJECT, BOARD).table.equals(before)  # nothing is applied yet

    assert refreshes.apply(admin, refresh_id).decided_by == admin.name
    table = services.board(admin, PROJECT, BOARD).table
    assert table["published_name"].iloc[0] == "qwen/qwen3-8b"
    assert table["model_id"].iloc[0] == "qwen/qwen3-8b"
    view = next(each for each in services.boards(admin, PROJECT) if each.name == BOARD)
    assert (view.is_refreshed, str(view.dated)) == (True, DAY)
    with pytest.raises(Conflict, match="is applied"):
        refreshes.apply(admin, refresh_id)
    actions = [each.action for each in audit.entries(admin, None, subject=f"board:{BOARD}")]
    assert {"board.fetched", "board.applied"} <= set(actions)

    refreshes.revert(admin, BOARD)
    assert services.board(admin, PROJECT, BOARD).table.equals(before)
    with pytest.raises(Conflict, match="came with Bud"):
        refreshes.revert(admin, BOARD)


def test_a_hub_that_is_down_or_a_file_that_is_broken_changes_nothing(
    running: GitHub, admin: Actor
) -> None:
    running.status = 503
    _fetch(admin, until="failed")
    assert "GitHub answered 503" in (refreshes.list_refreshes(admin, BOARD)[0].error or "")
    running.status = 200
    running.files["vectara/hallucination-leaderboard/README.md"] = (
        "|Model|Hallucination Rate|\n|---|---|\n|a/b|3 %|\n"
    )
    refresh_id = _fetch(admin, until="failed")
    found = refreshes.list_refreshes(admin, BOARD)[0]
    assert found.state == "failed"
    assert "hold 1 figures" in (found.error or "")
    with pytest.raises(Conflict, match="is failed"):
        refreshes.apply(admin, refresh_id)
    assert not scores.file_of("ten_default", BOARD).exists()


def test_only_boards_with_a_connector_and_only_admins(data_dir: Path, admin: Actor) -> None:
    with pytest.raises(NotFound, match="cannot be refreshed") as error:
        refreshes.start(admin, PROJECT, "HELM")
    assert "BFCL" in error.value.remedy
    member = Actor("usr_m", "m@example.org", "ten_default", "member", {PROJECT: "admin"})
    for call in (
        lambda: refreshes.start(member, PROJECT, BOARD),
        lambda: refreshes.apply(member, "ref_x"),
        lambda: refreshes.revert(member, BOARD),
    ):
        with pytest.raises(PermissionDenied):
            call()


def test_boards_are_due_by_the_setting(
    data_dir: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refreshes.start_due(admin) == []
    monkeypatch.setenv("BUD_REFRESH_BOARDS_DAYS", "7")
    refreshes.settings.cache_clear()
    assert refreshes.start_due(admin) == list(BOARDS)
    assert refreshes.start_due(admin) == []


def test_names_keep_their_models_and_strangers_stay_unresolved() -> None:
    rows = [
        Row("leaderboard", "Hallucination Rate", "qwen/qwen3-8b", 4.0),
        Row("leaderboard", "Hallucination Rate", "nobody/never-heard-of-it-3b", 5.0),
        Row("leaderboard", "A figure nobody knows", "qwen/qwen3-8b", 6.0),
    ]
    made = refresh.frame(BOARD, rows, f"x/y@abc ({DAY})", DAY)
    assert made["model_id"].dropna().tolist() == ["qwen/qwen3-8b"]
    assert len(made) == 2
    assert set(made["date"]) == {DAY}
