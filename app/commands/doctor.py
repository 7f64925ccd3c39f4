"""`bud doctor`: looks at the machine, the installation and the data folder."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands import output
from app.commands.output import Json
from core.kernel.errors import Unavailable

_HEALTH_PATHS = {"app": "/_stcore/health", "gateway": "/health"}
_MARKS = {"ok": "✓", "warning": "!", "problem": "✗"}


def doctor(
    packages: Annotated[int, typer.Option(help="How many of the largest packages to list.")] = 12,
    as_json: Json = False,
) -> None:
    """Check this machine and this installation; exit status 1 when something is wrong."""
    from app import checkup

    findings = checkup.look(largest=packages)
    lines = [
        f"{_MARKS[finding.state]} {finding.name:<14} {finding.says}"
        + (f"\n{'':17}Do this: {finding.remedy}" if finding.remedy else "")
        for finding in findings
    ]
    output.show(findings, "\n".join(lines), as_json=as_json)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)


def health(as_json: Json = False) -> None:
    """Say whether the dashboard and the gateway answer."""
    from app import ports, supervisor
    from core.kernel.settings import settings

    state = supervisor.running(settings().data_dir)
    if state is None:
        raise Unavailable("Bud does not run.", remedy="Start it with: bud up")
    answering = {
        part: ports.answers(f"{state.get(f'{part}_url')}{path}", timeout_s=3.0)
        for part, path in _HEALTH_PATHS.items()
    }
    silent = ", ".join(part for part, answers in answering.items() if not answers)
    if silent:
        raise Unavailable(f"Does not answer: {silent}.", remedy="See: bud logs")
    output.show(answering, "The dashboard and the gateway answer.", as_json=as_json)
