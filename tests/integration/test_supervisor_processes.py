"""The supervisor with real processes: tiny parts that answer, die, and refuse to stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from app import ports, supervisor

ROOT = Path(__file__).resolve().parents[2]
MODULE = (sys.executable, "-m", "tests.doubles.tiny_supervisor")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(check: Callable[[], object], timeout_s: float = 60.0) -> float:
    started = time.monotonic()
    while not check():
        assert time.monotonic() - started < timeout_s, "waited in vain"
        time.sleep(0.02)
    return time.monotonic() - started


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Bud:
    """One supervisor on a folder and two ports."""

    def __init__(self, folder: Path, *options: str, ports: tuple[int, int] | None = None) -> None:
        self.folder = folder
        self.app_port, self.gateway_port = ports or (free_port(), free_port())
        self.output_path = folder.parent / f"{folder.name}-{time.monotonic_ns()}.out"
        with self.output_path.open("wb") as output:
            self.process = subprocess.Popen(
                [*MODULE, str(folder), str(self.app_port), str(self.gateway_port), *options],
                cwd=ROOT,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        return self.output_path.read_text()

    def answers(self) -> bool:
        return all(
            ports.answers(f"http://127.0.0.1:{port}/")
            for port in (self.app_port, self.gateway_port)
        )

    def wait_until_ready(self) -> None:
        wait_for(lambda: "Bud is ready" in self.output or self.process.poll() is not None)
        assert "Bud is ready" in self.output, self.output

    def pid(self, part: str) -> int:
        state = json.loads((self.folder / "run" / "supervisor.json").read_text())
        return int(state["parts"][part])

    def living(self) -> list[int]:
        return [pid for pid in (self.pid("app"), self.pid("gateway")) if is_alive(pid)]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Bud]]:
    started: list[Bud] = []

    def _start(*options: str, folder: Path | None = None, ports: object = None) -> Bud:
        started.append(Bud(folder or tmp_path / "bud", *options, ports=ports))
        return started[-1]

    yield _start
    for bud in started:
        if bud.process.poll() is None:
            bud.process.kill()
            bud.process.wait()


def test_it_starts_both_parts_and_reports_them(start: Callable[..., Bud]) -> None:
    bud = start("setup:print('one-time password: x')")
    bud.wait_until_ready()
    assert bud.answers()
    assert "one-time password: x" in bud.output
    assert f"Dashboard  http://127.0.0.1:{bud.app_port}" in bud.output
    assert (bud.folder / "logs" / "app.log").read_text().strip() == f"part on {bud.app_port}"


@pytest.mark.parametrize("part", ["app", "gateway"])
def test_a_killed_part_answers_again_within_two_seconds(
    start: Callable[..., Bud], part: str
) -> None:
    bud = start()
    bud.wait_until_ready()
    other = "gateway" if part == "app" else "app"
    killed, untouched = bud.pid(part), bud.pid(other)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: bud.pid(part) != killed, 2.0)
    assert wait_for(bud.answers, 2.0) < 2.0
    assert bud.pid(other) == untouched
    assert "ended (signal 9); starting it again now" in bud.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_clean_stop_leaves_nothing(start: Callable[..., Bud], number: signal.Signals) -> None:
    bud = start()
    bud.wait_until_ready()
    pids = bud.living()
    assert len(pids) == 2
    bud.process.send_signal(number)
    assert bud.process.wait(timeout=60) == 0
    assert not any(is_alive(pid) for pid in pids)
    assert (bud.folder / "servers_stopped").exists()
    assert not (bud.folder / "run" / "supervisor.json").exists()


def test_down_stops_it_from_another_terminal(start: Callable[..., Bud]) -> None:
    bud = start()
    bud.wait_until_ready()
    pids = bud.living()
    assert supervisor.stop(bud.folder) == bud.process.pid
    assert bud.process.wait(timeout=5) == 0
    assert not any(is_alive(pid) for pid in pids)


def test_a_second_signal_ends_a_part_that_does_not_stop(start: Callable[..., Bud]) -> None:
    bud = start("app:--deaf")
    bud.wait_until_ready()
    pids = bud.living()
    bud.process.send_signal(signal.SIGINT)
    wait_for(lambda: "Stopping" in bud.output)
    bud.process.send_signal(signal.SIGINT)
    assert bud.process.wait(timeout=5) == 0
    assert "Dashboard did not stop in time; killed it" in bud.output
    assert not any(is_alive(pid) for pid in pids)


def test_a_second_instance_on_the_folder_is_refused(start: Callable[..., Bud]) -> None:
    first = start()
    first.wait_until_ready()
    second = start(folder=first.folder)
    assert second.process.wait(timeout=60) == 5
    assert f"already runs on {first.folder} (process {first.process.pid}" in second.output
    assert first.answers()


def test_a_taken_port_is_named_with_its_owner(start: Callable[..., Bud]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        bud = start(ports=(port, free_port()))
        assert bud.process.wait(timeout=60) == 5
    assert f"cannot listen on port {port}" in bud.output
    assert f"taken by process {os.getpid()}" in bud.output
    assert f"bud up --port {port + 10}" in bud.output


def test_a_part_that_cannot_start_is_shown_with_its_log(start: Callable[..., Bud]) -> None:
    bud = start("gateway:--dies")
    assert bud.process.wait(timeout=20) == 7
    assert "The gateway does not start" in bud.output
    assert "no model of that name" in bud.output
    assert not ports.answers(f"http://127.0.0.1:{bud.app_port}/")


def test_a_failed_set_up_is_shown_and_starts_nothing(start: Callable[..., Bud]) -> None:
    bud = start("setup:import sys; sys.exit('the disk is full')")
    assert bud.process.wait(timeout=60) == 7
    assert "the disk is full" in bud.output
    assert not (bud.folder / "logs" / "app.log").exists()


def test_after_kill_9_a_new_one_takes_over(start: Callable[..., Bud]) -> None:
    first = start()
    first.wait_until_ready()
    pids = first.living()
    first.process.kill()
    first.process.wait()
    second = start(folder=first.folder, ports=(first.app_port, first.gateway_port))
    second.wait_until_ready()
    assert not any(is_alive(pid) for pid in pids)
    assert second.answers()
