"""`bud doctor`: looks at the machine, the installation and the data folder."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands import output
from app.commands.output import Json

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
