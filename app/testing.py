"""`bud test`: every check of the project.

Without arguments all of it runs, as in CI; the types are checked beside the tests, which wait half
of the time. What measures the machine, tests marked `alone`, runs behind all else. With arguments
only pytest runs, with them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app import generated_docs
from core.kernel.settings import ROOT

BROWSER_VARIABLE = "BUD_BROWSER"
VALKEY_VARIABLE = "BUD_VALKEY_SERVER"

# The first one, without windows, takes the least CPU.
_BROWSERS = (
    *("chromium-headless-shell", "chromium", "chromium-browser"),
    *("google-chrome", "google-chrome-stable"),
)
_VALKEYS = ("valkey-server", "redis-server")
# What tests run that a bare machine lacks, with Debian's packages.
_TOOLS = {"curl": ("curl",), "cc": ("gcc", "libc6-dev")}
_INSTALL_WAIT_S = 300
# Read by slipcover's plugin of pytest in each worker; `tests/plugins/coverage.py` prints the table.
_COVERAGE = {
    "SLIPCOVER_ENABLED": "1",
    "SLIPCOVER_BRANCH": "1",
    "SLIPCOVER_SOURCE": "core,gateway",
}
_TESTS = (
    "pytest",
    # Grouped by `tests/plugins/groups.py`; one worker more than cores, because tests of browsers
    # and processes wait half of the time.
    *("-n", "3", "--no-loadscope-reorder", "--durations", "20", "-ra"),
    *("-m", "not alone"),
)
_ALONE = ("pytest", "-m", "alone", "--durations", "5")
_ALONE_MARK = "pytest.mark.alone"

# Quick ones first; the last one takes minutes on a fresh clone and is waited for at the end.
_CHECKS = {
    "ruff check": ("-m", "ruff", "check", "."),
    "ruff format": ("-m", "ruff", "format", "--check", "."),
    "lint-imports": ("-c", "from importlinter.cli import lint_imports_command as c; c()"),
    "mypy --strict": ("-m", "mypy"),
}


@dataclass
class _Check:
    """A check that runs as a process, beside others."""

    name: str
    process: subprocess.Popen[str]
    started_s: float


def run(arguments: Sequence[str], *, coverage: bool = False, say: Callable[[str], None]) -> int:
    """Run the checks and the tests; the exit status: not 0 when anything failed.

    Args:
        arguments: For pytest, which then runs alone.
        coverage: Measure branch coverage too, and print its table.
        say: Is told how it goes.
    """
    browser = find_browser(say)
    found = {BROWSER_VARIABLE: browser, VALKEY_VARIABLE: find_valkey(say)}
    install_tools(say)
    without_coverage = {**os.environ, **{name: path for name, path in found.items() if path}}
    environment = without_coverage | (_COVERAGE if coverage else {})
    if arguments:
        # Slipcover's plugin measures in workers alone.
        workers = ("-n", "1") if coverage else ()
        return _run(["pytest", *workers, *arguments], environment)
    running = [_start(name, command) for name, command in _CHECKS.items()]
    failed = _stale_docs(say)
    failed += [check.name for check in running[:-1] if not _passed(check, say)]
    status = _run(_TESTS, environment)
    failed += [check.name for check in running[-1:] if not _passed(check, say)]
    # Slipcover would need a worker, and would take time that they measure.
    alone = _run([*_ALONE, *_with_tests_alone()], without_coverage)
    if failed:
        say(f"Failed beside the tests: {', '.join(failed)}")
    return status or alone or (1 if failed else 0)


def _with_tests_alone() -> list[str]:
    """The files with a test marked `alone`: to import all others would take longer."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if _ALONE_MARK in file.read_text()]


def _stale_docs(say: Callable[[str], None]) -> list[str]:
    stale = generated_docs.stale()
    say(f"{'✗' if stale else '✓'} generated docs")
    if not stale:
        return []
    say(f"    stale: {', '.join(stale)}; write them with: bud dev docs")
    return ["generated docs"]


def _start(name: str, command: Sequence[str]) -> _Check:
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return _Check(name, process, time.monotonic())


def _passed(check: _Check, say: Callable[[str], None]) -> bool:
    output, _ = check.process.communicate()
    passed = check.process.returncode == 0
    say(f"{'✓' if passed else '✗'} {check.name} ({time.monotonic() - check.started_s:.0f} s)")
    if not passed:
        say("\n".join(f"    {line}" for line in output.strip().splitlines()[-60:]))
    return passed


def _run(module: Sequence[str], environment: dict[str, str]) -> int:
    command = [sys.executable, "-m", *module]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def find_browser(say: Callable[[str], None]) -> str:
    """The browser for tests that need one: its path, or "" for playwright's own or none at all.

    One that is there is used; else Debian's own is installed when that is allowed, else
    playwright's. When neither can be had, the tests that need one are skipped and counted.
    """
    given = installed_browser()
    if given:
        return given
    if _may_install():
        say("Installing Debian's chromium for the browser tests …")
        if _install_debs("chromium-headless-shell"):
            return installed_browser()
    say("Installing playwright's chromium for the browser tests …")
    if not _quietly(sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"):
        say("No browser can be had here: the browser tests will be skipped.")
    return ""


def installed_browser() -> str:
    """The browser that is asked for by BUD_BROWSER, else one that is installed, else ""."""
    return os.environ.get(BROWSER_VARIABLE) or _installed(_BROWSERS)


def find_valkey(say: Callable[[str], None]) -> str:
    """A Valkey for the tests of limits over hosts, else a Redis; "" when neither can be had."""
    given = installed_valkey()
    if not given and _may_install():
        say("Installing Debian's Valkey or Redis for the tests of limits over hosts …")
        for name in _VALKEYS:
            if _install_debs(name) and (given := installed_valkey()):
                break
    name = Path(given).name if given else "neither Valkey nor Redis: their tests are skipped"
    say(f"Limits over hosts are tested with {name}.")
    return given


def installed_valkey() -> str:
    """The server that is asked for by BUD_VALKEY_SERVER, else one that is installed, else ""."""
    return os.environ.get(VALKEY_VARIABLE) or _installed(_VALKEYS)


def install_tools(say: Callable[[str], None]) -> None:
    """Have what else tests run; what cannot be had is said, and its tests are skipped."""
    for name, packages in _TOOLS.items():
        if shutil.which(name) is None and _may_install():
            say(f"Installing Debian's {' and '.join(packages)} for the tests …")
            _install_debs(*packages)
        if shutil.which(name) is None:
            say(f"No {name} can be had here: its tests will be skipped.")


def _installed(programs: Sequence[str]) -> str:
    return next((path for name in programs if (path := shutil.which(name))), "")


def _may_install() -> bool:
    return _is_debian() and os.geteuid() == 0 and shutil.which("apt-get") is not None


def _install_debs(*packages: str) -> bool:
    """Whether Debian's packages could be installed."""
    _quietly("apt-get", "update")
    return _quietly("apt-get", "install", "--yes", "--no-install-recommends", *packages)


def _is_debian() -> bool:
    # Ubuntu's chromium package needs snap, which containers and CI machines do not have.
    release = Path("/etc/os-release")
    return release.exists() and "ID=debian" in release.read_text().splitlines()


def _quietly(*command: str) -> bool:
    try:
        run = subprocess.run(
            command, capture_output=True, check=False, timeout=_INSTALL_WAIT_S,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return run.returncode == 0
