"""`bud`: the command line. Commands are thin; heavy imports wait until a command needs them."""

from __future__ import annotations

import os
import sys

import typer
from typer.completion import (  # type: ignore[attr-defined]  # re-exported, not declared so
    completion_init,
)

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

app = typer.Typer(
    name="bud",
    help="Run AI models as a service on machines you own or rent.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(up.up)
app.add_typer(models.group, name="models")
app.add_typer(providers.group, name="providers")
app.add_typer(catalogue.group, name="catalogue")
app.command()(deployments.deploy)
app.add_typer(deployments.group, name="deployments")
app.command()(chat.chat)
app.add_typer(leaderboards.group, name="leaderboard")
app.add_typer(keys.group, name="keys")
app.add_typer(limits.group, name="limits")
app.add_typer(blocks.group, name="blocks")
app.add_typer(guardrails.group, name="guardrails")
app.add_typer(captures.group, name="captures")
app.add_typer(batches.group, name="batches")
app.add_typer(cache.group, name="cache")
app.add_typer(routes.group, name="routes")
app.add_typer(gateway.group, name="gateway")
app.add_typer(metrics.group, name="metrics")
app.add_typer(hardware.group, name="hardware")
app.command()(simulate.simulate)
app.add_typer(simulator.group, name="simulator")
app.add_typer(jobs.group, name="jobs")
app.add_typer(users.users, name="users")
app.add_typer(users.projects, name="projects")
app.add_typer(demo.group, name="demo")
app.command()(up.logs)
app.command()(doctor.doctor)
app.command()(doctor.health)
app.command()(quality.completion)
app.command("test", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    quality.run_tests
)
app.command("bench")(quality.run_benchmark)
app.add_typer(dev.group, name="dev")


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
