"""Ports: whether one is free, who has it, and whether a server answers on it."""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
from pathlib import Path
from urllib.parse import urlsplit


def reachable(host: str) -> str:
    """The address by which this machine reaches a server that listens on `host`."""
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104 compared, not bound


def answers(url: str, timeout_s: float = 1.0) -> bool:
    """Whether `url` answers 200 now."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def problem(host: str, port: int) -> str | None:
    """Why nothing can listen on `port` of `host`; None when something can."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror:
        return f"there is no address {host!r} on this machine"
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            return _bind_problem(error, host, port)
    return None


def _bind_problem(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        taken_by = owner(port)
        return f"it is taken by {taken_by}" if taken_by else "another program has taken it"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine"
    if error.errno == errno.EACCES:
        return "this user may not use a port below 1024"
    return str(error)


def owner(port: int) -> str | None:
    """The process that listens on `port`, such as `process 42 (nginx)`; None when not visible."""
    import psutil

    # Without rights over every process, the system-wide list is refused or has no pids.
    with contextlib.suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status != psutil.CONN_LISTEN or connection.laddr[1:] != (port,):
                continue
            if connection.pid is None:
                return None
            words = psutil.Process(connection.pid).cmdline()
            command = " ".join([Path(word).name for word in words[:1]] + words[1:4])
            return f"process {connection.pid} ({command[:80]})"
    return None
