"""A real Valkey for tests, or a Redis where there is no Valkey: a process of its own."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import pytest

from app.testing import installed_valkey
from core.kernel.crypto import Secret
from tests.machine import slowness

PASSWORD = "correct-horse-battery"


class ValkeyServer:
    """Listens on a socket in a folder; skips the test when no server is installed."""

    def __init__(self, folder: Path) -> None:
        program = installed_valkey()
        if not program:
            pytest.skip("no valkey-server or redis-server")
        self._program, self._folder = program, folder
        self._socket = folder / "valkey.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.url = Secret(f"unix://:{PASSWORD}@{self._socket}")

    def start(self) -> ValkeyServer:
        """Start it, and wait until it listens; it knows nothing of its last run."""
        self._process = subprocess.Popen(
            [
                *(self._program, "--port", "0", "--unixsocket", str(self._socket)),
                *("--requirepass", PASSWORD, "--save", "", "--dir", str(self._folder)),
                *("--logfile", str(self._folder / "valkey.log")),
            ]
        )
        give_up_s = time.monotonic() + 20 * slowness()
        while not self._listens():
            assert self._process.poll() is None, (self._folder / "valkey.log").read_text()
            assert time.monotonic() < give_up_s
            time.sleep(0.02)
        return self

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self._socket))
            except OSError:
                return False
        return True

    def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
