"""A part of Bud: one process that `bud up` keeps running, and how it is started."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.kernel.errors import Conflict

READY_VARIABLE = "BUD_READY_FD"
_BACKLOG = 1024


@dataclass(frozen=True)
class Part:
    """One process to keep running.

    Attributes:
        name: Short name; also that of its log file.
        title: What a person calls it.
        command: Its command line.
        port: The port it listens on.
        health_path: The path that answers 200 when it is ready.
        waits_for_setup: Whether it may only start after the set-up; one that may start before
            waits by itself where it must (`app.setup_mark`).
        inherits: Whether it takes its listening socket from the supervisor (`--listen-fd`), says
            when it is ready on the descriptor that `BUD_READY_FD` names, and hands over to its
            successor at SIGUSR1. Callers that come while it is started again then wait in the
            socket's queue, and none is lost when it is replaced.
        shares_port: Whether other parts listen on the same port.
    """

    name: str
    title: str
    command: tuple[str, ...]
    port: int
    health_path: str
    waits_for_setup: bool = True
    inherits: bool = False
    shares_port: bool = False


class Started:
    """A process of a part; `ready` is where it says that it is, -1 when it cannot."""

    def __init__(self, process: subprocess.Popen[bytes], ready: int = -1) -> None:
        self.process = process
        self._ready = ready
        self._said = b""

    @property
    def is_ready(self) -> bool:
        """Whether it has said that it takes work."""
        while self._ready >= 0 and select.select([self._ready], [], [], 0)[0]:
            said = os.read(self._ready, 64)
            self._said += said
            if not said:
                self.forget()
        return bool(self._said)

    def forget(self) -> None:
        """Listen to it no more."""
        if self._ready >= 0:
            os.close(self._ready)
        self._ready = -1


def start(
    part: Part,
    log: Path,
    *,
    listener: socket.socket | None,
    environment: Mapping[str, str],
    folder: Path,
) -> Started:
    """Start a part in a session of its own; it writes straight into its log.

    Args:
        part: What to start.
        log: Where its output is appended.
        listener: The socket that a part inherits.
        environment: All of its variables.
        folder: Where it runs.
    """
    command, variables, given = part.command, dict(environment), []
    reading = writing = -1
    if listener is not None:
        reading, writing = os.pipe()
        given = [listener.fileno(), writing]
        command = (*command, "--listen-fd", str(listener.fileno()))
        variables[READY_VARIABLE] = str(writing)
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, start_new_session=True, pass_fds=given,
        )  # fmt: skip
    if writing >= 0:
        os.close(writing)
    return Started(process, reading)


def listen(part: Part, host: str) -> socket.socket:
    """The listening socket of a part that inherits it. Raises Conflict."""
    family, kind, number, _, address = socket.getaddrinfo(
        host or None, part.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, number)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if part.shares_port:
        # The kernel then spreads connections over the sockets of all workers.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Conflict(
            f"The {part.title.lower()} cannot listen on port {part.port} of {host}: "
            f"{error.strerror}.",
            remedy=f"Free the port, or choose another: bud up --gateway-port {part.port + 10}.",
        ) from error
    return listener
