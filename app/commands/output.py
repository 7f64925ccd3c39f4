"""How the command line answers: text for a person, or JSON with `--json`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Annotated, Any

import typer

from core.kernel.errors import BudError, InvalidInput

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def show(value: object, text: str, *, as_json: bool) -> None:
    """Print `value` as JSON, or `text`."""
    typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=False) if as_json else text)


def show_line(value: object, *, as_json: bool, text: str) -> None:
    """Print one event of a stream: a line of JSON, or `text`."""
    typer.echo(json.dumps(plain(value), ensure_ascii=False) if as_json else text)


def plain(value: object) -> Any:
    """What JSON can hold. Secrets must be revealed by the command that means to show them."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    if isinstance(value, Iterable):
        return [plain(item) for item in value]
    return str(value)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> str:
    """Aligned columns under their names; `empty`, which says what to do next, without rows."""
    if not rows:
        return empty
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [
        max(len(line[position]) for line in [list(columns), *cells])
        for position in range(len(columns))
    ]
    lines = [[name.upper() for name in columns], *cells]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def details(pairs: Sequence[tuple[str, object]]) -> str:
    """Names and values, one a line."""
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in pairs)


def show_error(error: BudError, *, as_json: bool) -> None:
    """Print an error on standard error: what happened, the value at fault, what to do."""
    if as_json:
        document = {
            "error": {
                "code": error.code,
                "what": error.what,
                "value": plain(error.value),
                "remedy": error.remedy,
            }
        }
        typer.echo(json.dumps(document, indent=2, ensure_ascii=False), err=True)
        return
    typer.echo(f"Error: {error.what}", err=True)
    if error.value is not None and str(error.value) not in error.what:
        typer.echo(f"  Given:   {error.value}", err=True)
    if error.remedy:
        typer.echo(f"  Do this: {error.remedy}", err=True)


def note(text: str) -> None:
    """Say something beside the answer: standard error, so that answers can be piped."""
    typer.echo(text, err=True)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; without a terminal only `--yes` counts.

    Raises:
        InvalidInput: Nobody can be asked.
        typer.Abort: The person said no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise InvalidInput(f"{question} Nobody can be asked here.", remedy="Say yes with --yes.")
    typer.confirm(question, abort=True)
