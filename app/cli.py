"""`bud`: the command line. Commands are thin; heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import sys
from typing import Any

import typer
from typer.completion import (  # type: ignore[attr-defined]  # re-exported, not declared so
    completion_init,
)
from typer.core import TyperGroup

from app.commands import (
    batches,
    blocks,
    cache,
    captures,
    catalogue,
    chat,
    demo,
    deployments,
    dev,
    doctor,
    gateway,
    guardrails,
    hardware,
    jobs,
    keys,
    leaderboards,
    limits,
    metrics,
    models,
    output,
    providers,
    quality,
    routes,
    simulate,
    simulator,
    up,
    users,
)
from core.kernel.errors import BudError, InvalidInput

_EXIT_CODES = """Exit codes: 0 done · 1 failed · 2 wrong usage or input · 3 not allowed ·
4 not found · 5 not possible in this state, or no room · 6 too many requests ·
7 something Bud needs does not answer · 130 interrupted"""

_WHOLE_CHARACTERS = 1_000


class _WholeHelp(TyperGroup):
    """A group that says the first sentence of each command whole, on as many lines as it takes."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        found = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, command.get_short_help_str(_WHOLE_CHARACTERS))
                    for name, command in found.items()
                    if command is not None and not command.hidden
                ]
            )


app = typer.Typer(
    name="bud",
    cls=_WholeHelp,
    help="Run AI models as a service on machines you own or rent.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _add(group: typer.Typer, name: str) -> None:
    app.add_typer(group, name=name, cls=_WholeHelp)


app.command()(up.up)
app.command()(up.down)
_add(models.group, "models")
_add(providers.group, "providers")
_add(catalogue.group, "catalogue")
app.command()(deployments.deploy)
_add(deployments.group, "deployments")
app.command()(chat.chat)
_add(leaderboards.group, "leaderboard")
_add(keys.group, "keys")
_add(limits.group, "limits")
_add(blocks.group, "blocks")
_add(guardrails.group, "guardrails")
_add(captures.group, "captures")
_add(batches.group, "batches")
_add(cache.group, "cache")
_add(routes.group, "routes")
_add(gateway.group, "gateway")
_add(metrics.group, "metrics")
_add(hardware.group, "hardware")
app.command()(simulate.simulate)
_add(simulator.group, "simulator")
_add(jobs.group, "jobs")
_add(users.users, "users")
_add(users.projects, "projects")
_add(demo.group, "demo")
app.command()(up.logs)
app.command()(doctor.doctor)
app.command()(doctor.health)
app.command()(quality.completion)
app.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    quality.run_tests
)
app.command("bench")(quality.run_benchmark)
_add(dev.group, "dev")


def main(arguments: list[str] | None = None) -> int:
    """Run one command line; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in arguments
    if "_BUD_COMPLETE" in os.environ:  # a shell asks, through the script of `bud completion`
        completion_init()
    try:
        status = app(arguments, prog_name="bud", standalone_mode=False)
    except BudError as error:
        output.show_error(error, as_json=as_json)
        return error.exit_code
    except typer.TyperException as error:
        return _show_usage_error(error, as_json=as_json)
    except (typer.Abort, KeyboardInterrupt):
        output.note("Interrupted.")
        return 130
    return status if isinstance(status, int) else 0


def _show_usage_error(error: typer.TyperException, *, as_json: bool) -> int:
    if error.format_message().startswith("Usage:"):  # a command group without a command
        output.note(error.format_message())
        return 2
    asked = getattr(error, "ctx", None)
    command = asked.command_path if asked is not None else "bud"
    wrong = InvalidInput(error.format_message(), remedy=f"See: {command} --help")
    output.show_error(wrong, as_json=as_json)
    return 2


if __name__ == "__main__":
    sys.exit(main())
