"""A whole Bud as a person starts it: `bud up` in a process of its own, on ports of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 90.0
PASSWORD = "correct-horse-battery"

# What each process of Bud has on its command line.
PARTS = {"app": "app.serve", "gateway": "gateway", "server": "model_server"}


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, check: Callable[[], object], timeout_s: float = 90.0) -> float:
    """Wait until `check()` is true; the seconds it took. Fails with `what` otherwise."""
    started = time.monotonic()
    while time.monotonic() - started < timeout_s:
        asked = time.monotonic()
        if check():
            return time.monotonic() - started
        # What is waited for needs the processor more than a check that takes long.
        time.sleep(max(0.1, time.monotonic() - asked))
    raise AssertionError(f"after {timeout_s:.0f} s still not: {what}")


@dataclass
class Stack:
    """One running `bud up` on a data folder."""

    data_dir: Path
    environment: dict[str, str] = field(default_factory=dict)
    app_port: int = field(default_factory=free_port)
    gateway_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def app_url(self) -> str:
        return f"http://127.0.0.1:{self.app_port}"

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def env(self) -> dict[str, str]:
        return os.environ | {
            "BUD_DATA_DIR": str(self.data_dir),
            "BUD_APP_PORT": str(self.app_port),
            "BUD_GATEWAY_PORT": str(self.gateway_port),
            "BUD_ADMIN_PASSWORD": PASSWORD,
            **self.environment,
        }

    def start(self) -> float:
        """Start and wait until dashboard and gateway answer; the seconds it took."""
        log = (self.data_dir.parent / "up.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "up"],
            cwd=ROOT,
            env=self.env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return wait_for("dashboard and gateway answer", self._answers, START_TIMEOUT_S)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()[-4000:]}") from None

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"bud up ended:\n{self.output()[-4000:]}"
        return answers(f"{self.gateway_url}/health") and answers(f"{self.app_url}/_stcore/health")

    def output(self) -> str:
        """What `bud up` printed."""
        return (self.data_dir.parent / "up.log").read_text(errors="replace")

    def cli(self, *arguments: str, check: bool = True) -> object:
        """Run `bud … --json` and give back what it printed, decoded."""
        run = subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments, "--json"],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if check:
            assert run.returncode == 0, f"bud {' '.join(arguments)}: {run.stdout}{run.stderr}"
        return json.loads(run.stdout) if run.stdout.strip() else None

    def pids(self, part: str) -> list[int]:
        """The processes of one part, found by command line and data folder."""
        return sorted(process.pid for process in self.processes() if _is(part, process))

    def processes(self) -> list[psutil.Process]:
        """Every live process that belongs to this data folder."""
        return [process for process in psutil.process_iter() if self._owns(process)]

    def _owns(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.environ().get("BUD_DATA_DIR") == str(self.data_dir)
        except psutil.Error:
            return False

    def kill(self, *pids: int) -> None:
        """Kill -9."""
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """A clean stop, as by Ctrl-C; fails when anything is left behind."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=90)
        left = [(process.pid, process.cmdline()) for process in self.processes()]
        assert left == [], f"left behind: {left}"

    def destroy(self) -> None:
        """Kill whatever is left, whoever started it."""
        for process in self.processes():
            process.kill()
        if self.process is not None:
            self.process.wait(timeout=60)


def answers(url: str) -> bool:
    """Whether `url` answers 200 now."""
    try:
        # Plain HTTP: reading all certificates would take ten times as long, at each question.
        return httpx.get(url, timeout=2, verify=False).status_code == 200
    except httpx.HTTPError:
        return False


def _is(part: str, process: psutil.Process) -> bool:
    try:
        command = process.cmdline()
    except psutil.Error:
        return False
    # The ansible and resource-tracker helpers of a part are not the part itself.
    return any(word == PARTS[part] or word.endswith(f".{PARTS[part]}") for word in command)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A started Bud, shared by the tests of one file."""
    made = Stack(tmp_path_factory.mktemp("e2e") / "bud")
    made.start()
    yield made
    made.destroy()
