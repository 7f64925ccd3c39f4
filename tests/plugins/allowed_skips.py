"""A skip must be expected: one that `tests/allowed_skips.toml` does not list fails the run.

The reasons of all skips are printed.
"""

from __future__ import annotations

import fnmatch
import tomllib
from pathlib import Path

import pytest

ALLOWED = Path(__file__).resolve().parents[1] / "allowed_skips.toml"


class AllowedSkips:
    """Collects skips and holds them against the list."""

    def __init__(self, allowed: list[dict[str, str]]) -> None:
        self._allowed = allowed
        self.expected: list[tuple[str, str]] = []
        self.unexpected: list[tuple[str, str]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report.nodeid, report.longrepr)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report.nodeid, report.longrepr)

    def _note(self, test: str, why: object) -> None:
        reason = str(why[2]) if isinstance(why, tuple) else str(why)
        reason = reason.removeprefix("Skipped: ")
        listed = any(
            fnmatch.fnmatch(test, entry["test"]) and entry["reason"] in reason
            for entry in self._allowed
        )
        (self.expected if listed else self.unexpected).append((test, reason))

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unexpected and session.exitstatus in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.expected:
            terminalreporter.section("skipped, as tests/allowed_skips.toml allows")
            for test, reason in self.expected:
                terminalreporter.line(f"{test}: {reason}")
        if self.unexpected:
            terminalreporter.section("skips that fail this run", red=True)
            for test, reason in self.unexpected:
                terminalreporter.line(f"{test}: {reason}")
            terminalreporter.line("Allow one in tests/allowed_skips.toml, with its reason.")


def pytest_configure(config: pytest.Config) -> None:
    # Under xdist the workers report to the controller, which alone judges.
    if not hasattr(config, "workerinput"):
        entries = tomllib.loads(ALLOWED.read_text()).get("skip", [])
        config.pluginmanager.register(AllowedSkips(entries), "allowed_skips_of_bud")
