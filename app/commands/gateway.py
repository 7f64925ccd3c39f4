"""`bud gateway`: the running gateway's processes."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import typer

from app.commands import output
from app.commands.output import Json
from core.kernel.errors import BudError, Unavailable

group = typer.Typer(help="The gateway's processes.", no_args_is_help=True)

_POLL_S = 0.2


@group.callback()
def _group() -> None:
    """The gateway's processes."""


@group.command()
def restart(
    wait_s: float = typer.Option(
        300.0, "--wait-s", min=0.0, help="How long to wait for it, in seconds."
    ),
    as_json: Json = False,
) -> None:
    """Put new workers in the place of the running ones, one by one; no request fails by it.

    The old ones answer what they have begun, streams for up to ten minutes, and then end.
    """
    before = _state()
    try:
        os.kill(before["pid"], signal.SIGUSR1)
    except ProcessLookupError:
        raise _stopped() from None
    deadline_s = time.monotonic() + wait_s
    state = before
    while state["restarts"] == before["restarts"]:
        if time.monotonic() > deadline_s:
            raise Unavailable(
                f"The gateway was not restarted within {wait_s:g} s.", remedy="See: bud logs"
            )
        time.sleep(_POLL_S)
        state = _state()
    if state["restart_problem"]:
        raise BudError(state["restart_problem"], remedy="See: bud logs gateway")
    workers = sum(name.startswith("gateway") for name in state["parts"])
    output.show({"workers": workers}, "The gateway was restarted.", as_json=as_json)


def _state() -> dict[str, Any]:
    from app import supervisor
    from core.kernel.settings import settings

    state = supervisor.running(settings().data_dir)
    if state is None:
        raise _stopped()
    if "restarts" not in state:
        raise Unavailable("Bud is only just starting.", remedy="Try again in a few seconds.")
    return state


def _stopped() -> Unavailable:
    return Unavailable("Bud does not run.", remedy="Start it with: bud up")
