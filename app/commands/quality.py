"""`bud test`, `bud bench` and `bud completion`."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands import output
from app.commands.output import Json
from core.kernel.errors import InvalidInput

_SHELLS = ("bash", "zsh", "fish")


def run_tests(
    context: typer.Context,
    coverage: Annotated[
        bool,
        typer.Option("--coverage", help="Measure branch coverage, which takes a fifth more CPU."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Run every check and test; with arguments, only pytest with them."""
    from app import testing

    def say(text: str) -> None:
        output.show_line({"message": text}, as_json=as_json, text=text)

    raise typer.Exit(testing.run(context.args, coverage=coverage, say=say))


def run_benchmark(
    name: Annotated[str | None, typer.Argument(help="Which; without it they are listed.")] = None,
    as_json: Json = False,
) -> None:
    """Run a benchmark."""
    from app import bench

    if name is not None:
        bench.run(name, as_json=as_json)
        return
    known = bench.available()
    text = output.table(("benchmark", "what it measures"), list(known.items()), empty="None yet.")
    output.show(known, text, as_json=as_json)


def completion(
    shell: Annotated[str, typer.Argument(help="bash, zsh or fish.")], as_json: Json = False
) -> None:
    """Print the completion script of a shell.

    For bash: bud completion bash > ~/.local/share/bash-completion/completions/bud
    """
    from typer.completion import (  # type: ignore[attr-defined]  # re-exported, not declared so
        get_completion_script,
    )

    if shell not in _SHELLS:
        raise InvalidInput(
            "Bud has no completion for this shell.", value=shell, remedy="Use bash, zsh or fish."
        )
    script = get_completion_script(prog_name="bud", complete_var="_BUD_COMPLETE", shell=shell)
    output.show({"shell": shell, "script": script}, script, as_json=as_json)
