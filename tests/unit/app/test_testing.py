"""`bud test` and `bud bench`: everything runs, and anything that fails is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from app import bench, testing
from core.kernel.errors import NotFound

ROOT = Path(__file__).resolve().parents[3]


def run_pytest(folder: Path, test: str, **variables: str) -> subprocess.CompletedProcess[str]:
    (folder / "tests").mkdir()
    (folder / "tests" / "test_it.py").write_text(test)
    # Nothing of the run that this test is part of.
    of_run = ("PYTEST_", "SLIPCOVER_")
    environment = {name: each for name, each in os.environ.items() if not name.startswith(of_run)}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.plugins.allowed_skips", "tests"],
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_skip_that_is_not_listed_fails_the_run(tmp_path: Path) -> None:
    test = "import pytest\ndef test_a(): pytest.skip('not today')\ndef test_b(): pass\n"
    run = run_pytest(tmp_path, test)
    assert run.returncode == 1
    assert "skips that fail this run" in run.stdout
    assert "tests/test_it.py::test_a: not today" in run.stdout
    assert "1 passed, 1 skipped" in run.stdout.splitlines()[-1]


def test_a_module_that_skips_itself_counts(tmp_path: Path) -> None:
    run = run_pytest(tmp_path, "import pytest\npytest.importorskip('no_such_module')\n")
    assert run.returncode == 1
    assert "could not import 'no_such_module'" in run.stdout


def test_a_listed_skip_is_printed_with_its_reason(tmp_path: Path) -> None:
    test = "import pytest\ndef test_a(): pytest.skip('no browser: none found')\n"
    run = run_pytest(tmp_path, test)
    assert run.returncode == 0, run.stdout
    assert "as tests/allowed_skips.toml allows" in run.stdout
    assert "test_a: no browser: none found" in run.stdout


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    test = "import pytest\n@pytest.mark.xfail\ndef test_a(): assert False\n"
    assert run_pytest(tmp_path, test).returncode == 0


ALONE = ["tests/integration/test_simulator_local.py"]


def which(command: Sequence[str]) -> str:
    """Whether pytest is asked for what may run beside other things, or for what may not."""
    if "not alone" in command:
        assert "-n" in command
        return "tests"
    assert command[:3] == ["pytest", "-m", "alone"]
    assert "-n" not in command
    assert command[-len(ALONE) :] == ALONE
    return "alone"


@pytest.mark.parametrize("fails_in", ["tests", "alone"])
@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(
    ("check_status", "pytest_status", "status"), [(0, 0, 0), (1, 0, 1), (0, 1, 1), (1, 2, 2)]
)
def test_any_failure_fails_the_whole(
    check_status: int,
    pytest_status: int,
    status: int,
    slow: bool,
    fails_in: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []

    def run(command: Sequence[str], _: object) -> int:
        said.append(which(command))
        return pytest_status if said[-1] == fails_in else 0

    fails = ("-c", f"print('why'); raise SystemExit({check_status})")
    passes = ("-c", "")
    checks = {"types": passes, "style": fails} if slow else {"style": fails, "types": passes}
    monkeypatch.setattr(testing, "_CHECKS", checks)
    monkeypatch.setattr(testing.generated_docs, "stale", list)
    monkeypatch.setattr(testing, "find_browser", lambda _: "/usr/bin/browser")
    monkeypatch.setattr(testing, "_run", run)
    assert testing.run([], say=said.append) == status
    assert ("Failed beside the tests: style" in said) == (check_status != 0)
    assert ("    why" in said) == (check_status != 0)
    # The last check is waited for once the tests are over.
    style, types = (
        next(index for index, line in enumerate(said) if f"{name} (" in line)
        for name in ("style", "types")
    )
    assert (style > said.index("tests")) == slow
    # What measures the machine comes behind all of them.
    assert said.index("alone") > max(style, types, said.index("tests"))


def test_stale_docs_fail_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(testing, "_CHECKS", {"types": ("-c", "")})
    monkeypatch.setattr(testing.generated_docs, "stale", lambda: ["docs/settings.md"])
    monkeypatch.setattr(testing, "find_browser", lambda _: "")
    monkeypatch.setattr(testing, "_run", lambda *_: 0)
    assert testing.run([], say=print) == 1


def test_with_arguments_only_pytest_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(testing, "find_browser", lambda _: "")
    monkeypatch.setattr(testing, "_start", lambda *_: pytest.fail("not asked for"))
    monkeypatch.setattr(testing, "_run", lambda arguments, _: seen.append(arguments) or 0)
    assert testing.run(["tests/unit", "-x"], say=print) == 0
    assert testing.run(["tests/unit"], coverage=True, say=print) == 0
    assert seen == [["pytest", "tests/unit", "-x"], ["pytest", "-n", "1", "tests/unit"]]


def test_a_browser_that_is_named_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUD_BROWSER", "/opt/browser")
    assert testing.find_browser(print) == "/opt/browser"


def test_without_any_browser_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.delenv("BUD_BROWSER", raising=False)
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr(testing, "_quietly", lambda *_: False)
    assert testing.find_browser(said.append) == ""
    assert "will be skipped" in said[-1]


def test_what_tests_need_is_installed_where_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/curl" if name == "curl" else None)
    monkeypatch.setattr(testing, "_quietly", lambda *command: not ran.append(command))
    monkeypatch.setattr(testing, "_may_install", lambda: False)
    testing.install_tools(said.append)
    assert (said, ran) == (["No cc can be had here: its tests will be skipped."], [])
    monkeypatch.setattr(testing, "_may_install", lambda: True)
    testing.install_tools(said.append)
    assert ran[0] == ("apt-get", "update")
    assert ran[1][-2:] == ("gcc", "libc6-dev")


def test_benchmarks_are_found_by_what_they_define(tmp_path: Path) -> None:
    (tmp_path / "latency.py").write_text('"""Added latency.\n\nMore."""\n\ndef run(json): ...\n')
    (tmp_path / "helper.py").write_text("def go(): ...\n")
    assert bench.available(tmp_path) == {"latency": "Added latency."}


def test_an_unknown_benchmark_is_refused() -> None:
    with pytest.raises(NotFound, match="no benchmark 'nothing'"):
        bench.run("nothing", as_json=False)
