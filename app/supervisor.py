"""`bud up`: one process that keeps the dashboard and the gateway running on a data folder.

It holds the folder's lock, runs the set-up once, starts both parts, restarts the one that dies
and stops everything in order. It must stay light: no SQLAlchemy, no streamlit. The parts write
straight into their log files, so they never wait for this process, and they end by themselves
when it is killed (they watch `BUD_SUPERVISOR_PID`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

from app import logs, parts, ports, setup_mark
from app.parts import Part, Started
from app.plan import Plan
from app.rolling import Place, Rolling
from core.kernel.errors import Conflict, NotFound, Unavailable

ROOT = Path(__file__).resolve().parents[1]

_POLL_S = 0.1
_STOP_WAIT_S = 15.0
_LEFTOVER_WAIT_S = 10.0
_DOWN_WAIT_S = 60.0
_START_WAIT_S = 180.0
_HEALTHY_RUN_S = 10.0
_RESTART_DELAYS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_START_ATTEMPTS = 3
_LOG_CHECK_S = 5.0


@dataclass
class _Running:
    """A part's present process."""

    part: Part
    log: Path
    listener: socket.socket | None = None
    started: Started | None = None
    started_s: float = 0.0
    healthy: bool = False
    failures: int = 0
    start_at_s: float = 0.0

    @property
    def process(self) -> subprocess.Popen[bytes] | None:
        """What runs, if anything does."""
        return self.started.process if self.started else None

    def take(self, started: Started) -> None:
        """A process that was just started."""
        self.forget()
        self.started = started
        self.started_s, self.healthy = time.monotonic(), False

    def forget(self) -> None:
        """Its process has ended."""
        if self.started is not None:
            self.started.forget()
        self.started = None

    def stop_listening(self) -> None:
        """Callers are refused from now on, rather than left to wait."""
        if self.listener is not None:
            self.listener.close()
        self.listener = None


def running(data_dir: Path) -> dict[str, object] | None:
    """What the live supervisor of `data_dir` says of itself; None without one.

    While it has said nothing yet, that is its `pid` alone.
    """
    run = data_dir / "run"
    try:
        with (run / "supervisor.lock").open("r") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _said_by(lock.read().strip(), run)
    except FileNotFoundError:
        return None
    return None


def stop(data_dir: Path) -> int:
    """Stop the live supervisor of `data_dir` with all its parts; its process.

    Raises:
        NotFound: None lives.
        Unavailable: It goes on: parts that do not stop are killed before that.
    """
    pid = (running(data_dir) or {}).get("pid")
    if not isinstance(pid, int):
        raise NotFound(
            f"No Bud runs on {data_dir}.",
            remedy="Name its folder: bud down --data-dir … or BUD_DATA_DIR.",
        )
    os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + _DOWN_WAIT_S
    while running(data_dir) is not None:
        if time.monotonic() > deadline_s:
            raise Unavailable(
                f"Process {pid} has not stopped within {_DOWN_WAIT_S:.0f} s.",
                remedy=f"See what it does: bud logs — or end it: kill -9 {pid}",
            )
        time.sleep(_POLL_S)
    return pid


def _said_by(holder: str, run: Path) -> dict[str, object]:
    """The state that the lock's holder wrote: a killed one before it may have left its own."""
    state = _read_json(run / "supervisor.json")
    if state is not None and str(state.get("pid")) == holder:
        return state
    return {"pid": int(holder)} if holder.isdigit() else {}


class Supervisor:
    """Runs a plan until it is told to stop."""

    def __init__(
        self,
        plan: Plan,
        *,
        say: Callable[[str], None] | None = None,
        setup_output: TextIO | None = None,
    ) -> None:
        """Make a supervisor.

        Args:
            plan: What to run.
            say: Takes each line for the person; default: prints it.
            setup_output: Where the set-up prints the one-time password; default: the terminal.
        """
        self._plan = plan
        self._setup_output = setup_output
        self._say = _unbreakable(say or _print)
        self._run_dir = plan.data_dir / "run"
        self._logs_dir = plan.data_dir / "logs"
        self._parts = [_Running(part, self._logs_dir / f"{part.name}.log") for part in plan.parts]
        self._setup_mark = self._run_dir / "setup"
        self._stop = threading.Event()
        self._rolling = Rolling(self._say)
        self._restart_asked = False
        self._signals = 0
        self._ready = False
        self._started_s = time.monotonic()

    def run(self, *, verbose: bool = False) -> int:
        """Start, keep running, stop; the exit status of `bud up`.

        Raises:
            Conflict: Another instance has the folder, or a port is taken.
            Unavailable: The set-up or a part does not start.
        """
        self._run_dir.mkdir(parents=True, exist_ok=True)
        self._logs_dir.mkdir(parents=True, exist_ok=True)
        # Before anybody can learn this process's id from the lock, and signal it.
        self._handle_signals()
        with self._lock():
            self._end_leftovers()
            self._check_ports()
            logs.rotate(self._logs_dir)
            if verbose:
                threading.Thread(target=self._tee, daemon=True).start()
            try:
                self._start_all()
                if not self._stop.is_set():
                    self._report()
                self._keep_running()
            finally:
                self._stop_all()
        return 0

    # -- one instance a folder ---------------------------------------------------------------

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        path = self._run_dir / "supervisor.lock"
        with path.open("a+") as lock:
            if not _locked(lock):
                raise self._second_instance()
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            yield

    def _second_instance(self) -> Conflict:
        state = running(self._plan.data_dir) or {}
        pid = state.get("pid", "unknown")
        where = f", dashboard {state['app_url']}" if state.get("app_url") else ""
        return Conflict(
            f"Bud already runs on {self._plan.data_dir} (process {pid}{where}).",
            remedy=f"Use that one, stop it with: bud down --data-dir {self._plan.data_dir} — or "
            "start this one on another folder and ports: bud up --data-dir … --port … "
            "--gateway-port …",
        )

    def _end_leftovers(self) -> None:
        """Wait for parts of a supervisor that was killed; end those that do not end."""
        state = _read_json(self._run_dir / "supervisor.json") or {}
        pids = cast("dict[str, int]", state.get("parts", {})).values()
        left = [pid for pid in pids if _is_part_of(pid, state.get("pid"))]
        deadline_s = time.monotonic() + _LEFTOVER_WAIT_S
        if left:
            self._say(f"Waiting for what is left of an earlier start (processes {left}) …")
        while left and time.monotonic() < deadline_s and not self._stop.is_set():
            time.sleep(_POLL_S)
            left = [pid for pid in left if _exists(pid)]
        for pid in left:
            _signal_group(pid, signal.SIGKILL)

    def _check_ports(self) -> None:
        for part in {part.port: part for part in reversed(self._plan.parts)}.values():
            problem = ports.problem(self._plan.host, part.port)
            if problem is None:
                continue
            option = "--port" if part.name == "app" else "--gateway-port"
            raise Conflict(
                f"The {part.title.lower()} cannot listen on port {part.port} of "
                f"{self._plan.host}: {problem}.",
                remedy=f"Free the port, or choose another: bud up {option} {part.port + 10}.",
            )

    # -- starting ----------------------------------------------------------------------------

    def _start_all(self) -> None:
        self._setup_mark.unlink(missing_ok=True)
        for running in self._parts:
            if not running.part.waits_for_setup:
                self._start(running)
        self._write_state()
        self._set_up()
        for running in self._parts:
            if running.process is None and not self._stop.is_set():
                self._start(running)
        self._write_state()
        self._wait_until_healthy()

    def _set_up(self) -> None:
        if self._stop.is_set():
            return
        if self._plan.setup is None:
            setup_mark.write(self._setup_mark, setup_mark.DONE)
            return
        started_s = time.monotonic()
        log = self._logs_dir / "setup.log"
        with log.open("ab") as output:
            # Standard output goes to the terminal: it holds the one-time password, which must
            # not stand in a log.
            process = subprocess.Popen(
                self._plan.setup, cwd=ROOT, env=self._environment(),
                stdout=self._setup_output, stderr=output, start_new_session=True,
            )  # fmt: skip
            while process.poll() is None and not self._stop.is_set():
                time.sleep(_POLL_S / 4)
        if process.poll() is None:
            _signal_group(process.pid, signal.SIGTERM)
            process.wait()
            return
        if process.returncode != 0:
            raise Unavailable(
                f"The set-up of {self._plan.data_dir} failed:\n{logs.tail(log, 12)}",
                remedy=f"Mend what the last line says and run bud up again; all of it: {log}",
            )
        setup_mark.write(self._setup_mark, setup_mark.DONE)
        self._say(_timed("Database, accounts and starter model are ready", started_s))

    def _start(self, running: _Running) -> None:
        if running.part.inherits and running.listener is None:
            running.listener = parts.listen(running.part, self._plan.host)
        running.take(self._started(running))

    def _started(self, running: _Running) -> Started:
        return parts.start(
            running.part,
            running.log,
            listener=running.listener,
            environment=self._environment(),
            folder=ROOT,
        )

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **self._plan.environment,
            "BUD_SUPERVISOR_PID": str(os.getpid()),
            setup_mark.VARIABLE: str(self._setup_mark),
            "PYTHONUNBUFFERED": "1",
        }

    def _wait_until_healthy(self) -> None:
        deadline_s = time.monotonic() + _START_WAIT_S
        while not self._stop.is_set() and not all(running.healthy for running in self._parts):
            for running in self._parts:
                self._look_at(running)
                if running.failures >= _START_ATTEMPTS or time.monotonic() > deadline_s:
                    raise Unavailable(
                        f"The {running.part.title.lower()} does not start. The end of its log:\n"
                        f"{logs.tail(running.log, 12)}",
                        remedy=f"All of it is in {running.log}; bud doctor checks the machine.",
                    )
            self._stop.wait(_POLL_S)

    def _look_at(self, running: _Running) -> None:
        """Notice that a part has ended or has become healthy; start it when it is due."""
        if running.process is None:
            if time.monotonic() >= running.start_at_s:
                self._start(running)
                self._write_state()
        elif running.process.poll() is not None:
            self._note_end(running, running.process.returncode)
        elif not running.healthy and self._is_ready(running):
            running.healthy = True
            self._say(_timed(f"{running.part.title} answers", running.started_s))

    def _note_end(self, running: _Running, status: int) -> None:
        assert running.process is not None
        _signal_group(running.process.pid, signal.SIGKILL)
        ran_s = time.monotonic() - running.started_s
        ran_well = running.healthy and ran_s >= _HEALTHY_RUN_S
        running.failures = 1 if ran_well else running.failures + 1
        delay_s = _RESTART_DELAYS_S[min(running.failures, len(_RESTART_DELAYS_S)) - 1]
        running.forget()
        running.start_at_s = time.monotonic() + delay_s
        if delay_s:
            running.stop_listening()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        when = f"in {delay_s:g} s" if delay_s else "now"
        self._say(f"{running.part.title} ended ({how}); starting it again {when}.")
        if self._ready and running.failures >= _START_ATTEMPTS:
            self._say(
                f"  It has ended {running.failures} times in a row. The end of {running.log}:\n"
                f"{logs.tail(running.log, 6)}"
            )

    def _is_ready(self, running: _Running) -> bool:
        part = running.part
        if part.inherits:
            # Another worker may answer on its port.
            return running.started is not None and running.started.is_ready
        return ports.answers(
            f"http://{ports.reachable(self._plan.host)}:{part.port}{part.health_path}"
        )

    def _report(self) -> None:
        lines = [f"  {name:<10} {value}" for name, value in self._plan.report]
        self._ready = True
        ready = f"Bud is ready after {time.monotonic() - self._started_s:.1f} s."
        self._say("\n".join(["", *lines, "", ready]))

    def _write_state(self) -> None:
        urls = {
            f"{running.part.name}_url": f"http://{ports.reachable(self._plan.host)}:{running.part.port}"
            for running in self._parts
        }
        parts = {
            running.part.name: running.process.pid
            for running in self._parts
            if running.process is not None
        }
        parts |= {f"leaving-{process.pid}": process.pid for process in self._rolling.leaving}
        state = {
            "pid": os.getpid(),
            "host": self._plan.host,
            "ports": {running.part.name: running.part.port for running in self._parts},
            **urls,
            "parts": parts,
            "restarts": self._rolling.done,
            "restart_problem": self._rolling.problem,
        }
        partial = self._run_dir / ".supervisor.json.partial"
        partial.write_text(json.dumps(state, indent=1))
        partial.replace(self._run_dir / "supervisor.json")

    # -- running and stopping ----------------------------------------------------------------

    def _keep_running(self) -> None:
        logs_at_s = time.monotonic()
        while not self._stop.is_set():
            for running in self._parts:
                self._look_at(running)
            self._roll()
            if time.monotonic() - logs_at_s > _LOG_CHECK_S:
                logs.rotate(self._logs_dir)
                logs_at_s = time.monotonic()
            self._stop.wait(_POLL_S)

    def _roll(self) -> None:
        if self._restart_asked:
            self._restart_asked = False
            self._rolling.begin([self._place(each) for each in self._parts if each.part.inherits])
        if self._rolling.advance():
            self._write_state()

    def _place(self, running: _Running) -> Place:
        return Place(
            running.part.title,
            start=lambda: self._started(running),
            present=lambda: running.process,
            put=running.take,
        )

    def _handle_signals(self) -> None:
        signal.signal(signal.SIGUSR1, self._on_restart)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._signals += 1
        self._stop.set()

    def _on_restart(self, _number: int, _frame: object) -> None:
        self._restart_asked = True

    def _stop_all(self) -> None:
        live = [running for running in self._parts if running.process is not None]
        setup_mark.write(self._setup_mark, setup_mark.STOPPED)
        if live:
            self._say("\nStopping … (Ctrl-C again to end at once)")
        for running in live:
            if running.process is not None:
                running.process.terminate()
        self._rolling.stop()
        deadline_s = time.monotonic() + _STOP_WAIT_S
        for running in live:
            self._wait_for_end(running.part.title, running.process, deadline_s)
        for process in self._rolling.leaving:
            self._wait_for_end("A part that was replaced", process, deadline_s)
        for running in self._parts:
            running.stop_listening()
        if self._plan.stop_servers is not None:
            self._plan.stop_servers(self._plan.data_dir)
        (self._run_dir / "supervisor.json").unlink(missing_ok=True)
        if live:
            self._say("Bud has stopped.")

    def _wait_for_end(
        self, title: str, process: subprocess.Popen[bytes] | None, deadline_s: float
    ) -> None:
        assert process is not None
        while process.poll() is None:
            if time.monotonic() > deadline_s or self._signals > 1:
                self._say(f"{title} did not stop in time; killed it.")
                break
            time.sleep(_POLL_S / 2)
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()

    def _tee(self) -> None:
        for name, line in logs.follow({running.part.name: running.log for running in self._parts}):
            self._say(f"{name:<7} | {line}")


def _locked(lock: TextIO) -> bool:
    # `running()` holds the lock for a moment to look at it, so one failure is no proof.
    for _ in range(5):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_POLL_S)
        else:
            return True
    return False


def _read_json(path: Path) -> dict[str, object] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _is_part_of(pid: int, supervisor: object) -> bool:
    """Whether a process was started by that supervisor: pids are used again, its mark is not."""
    import psutil

    try:
        return psutil.Process(pid).environ().get("BUD_SUPERVISOR_PID") == str(supervisor)
    except psutil.Error:
        return False


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _signal_group(pid: int, number: signal.Signals) -> None:
    """Signal the process group that a part leads: what it started, too."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _timed(what: str, since_s: float) -> str:
    return f"  {what:<52}{time.monotonic() - since_s:6.1f} s"


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201 this is what a person reads


def _unbreakable(say: Callable[[str], None]) -> Callable[[str], None]:
    """The terminal may be gone while Bud goes on."""

    def safely(text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            say(text)

    return safely
