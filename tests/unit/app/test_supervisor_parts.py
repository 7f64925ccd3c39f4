"""What the supervisor is made of: its plan, ports, log files, the mark of the set-up."""

from __future__ import annotations

import fcntl
import socket
import threading
from pathlib import Path

import pytest

from app import logs, plan, ports, setup_mark, supervisor
from core.demo import services as demo
from core.kernel.errors import InvalidInput, NotFound


def real_plan(folder: Path, **changes: object) -> plan.Plan:
    given = {
        "data_dir": folder,
        "keys_dir": folder / "keys",
        "host": "0.0.0.0",
        "app_port": 8501,
        "gateway_port": 8502,
        "max_body_mb": 32,
        "max_upload_mb": 200,
        "files_max_mb": 1000,
        "facts_max_mb": 256,
        "health_check_s": 5.0,
        "gateway_workers": 1,
        "gateway_url": "http://127.0.0.1:8502",
    }
    return plan.make(**{**given, **changes})  # type: ignore[arg-type]


def test_the_gateway_waits_for_keys_at_the_first_start_only(tmp_path: Path) -> None:
    gateway = real_plan(tmp_path).parts[0]
    assert (gateway.name, gateway.waits_for_setup) == ("gateway", True)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "current.json").write_text("{}")
    assert real_plan(tmp_path).parts[0].waits_for_setup is False


def test_the_plan_names_what_a_person_can_open(tmp_path: Path) -> None:
    report = dict(real_plan(tmp_path).report)
    assert report["Dashboard"] == "http://127.0.0.1:8501"
    assert report["Gateway"] == "http://127.0.0.1:8502/v1"
    assert "Demo data" not in report


def test_the_plan_names_the_demo_project_where_it_is_asked_for(tmp_path: Path) -> None:
    report = dict(real_plan(tmp_path, demo=True).report)
    assert report["Demo data"] == f"http://127.0.0.1:8501/?project={demo.PROJECT_NAME}"


def test_demo_reaches_the_set_up(tmp_path: Path) -> None:
    setup = real_plan(tmp_path, demo=True).setup
    assert setup is not None
    assert setup[-1] == "--demo"


def test_one_port_for_both_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot share a port"):
        real_plan(tmp_path, gateway_port=8501)


def test_nobody_runs_on_a_fresh_folder(tmp_path: Path) -> None:
    assert supervisor.running(tmp_path) is None
    with pytest.raises(NotFound, match="No Bud runs on"):
        supervisor.stop(tmp_path)


def test_a_killed_predecessor_is_not_taken_for_the_one_that_runs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "supervisor.json").write_text('{"pid": 4711, "restarts": 2}')
    with (run / "supervisor.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4712\n")
        lock.flush()
        assert supervisor.running(tmp_path) == {"pid": 4712}
        (run / "supervisor.json").write_text('{"pid": 4712, "restarts": 0}')
        assert supervisor.running(tmp_path) == {"pid": 4712, "restarts": 0}
    assert supervisor.running(tmp_path) is None, "it ended, and its word stays behind"


def test_a_taken_port_is_a_problem_until_it_is_free() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        assert "taken by process" in (ports.problem("127.0.0.1", port) or "")
        assert "taken by process" in (ports.problem("0.0.0.0", port) or "")
    assert ports.problem("127.0.0.1", port) is None


def test_an_address_of_another_machine_is_a_problem() -> None:
    assert ports.problem("192.0.2.1", 8501) == "192.0.2.1 is not an address of this machine"
    assert "no address" in (ports.problem("no.such.host.invalid", 8501) or "")


def test_nothing_answers_on_a_closed_port() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    assert ports.answers(f"http://127.0.0.1:{port}/health") is False


def test_the_tail_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    assert logs.tail(log, 3) == "(the log is empty)"
    log.write_text("".join(f"line {number}\n" for number in range(20_000)))
    assert logs.tail(log, 2) == "line 19998\nline 19999"


def test_logs_are_kept_small_while_they_are_written(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(6):
            writer.write(b"%d" % number * 200 + b"\n")
            logs.rotate(tmp_path, max_bytes=100)
        writer.write(b"after\n")
    assert log.read_bytes() == b"after\n"
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["app.log", "app.log.1", "app.log.2", "app.log.3"]
    assert (tmp_path / "app.log.1").read_bytes().startswith(b"555")
    assert (tmp_path / "app.log.3").read_bytes().startswith(b"333")


def test_new_lines_are_followed_whole_and_through_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("old\n")
    lines = logs.follow({"app": log})
    first = threading.Timer(0.1, lambda: _append(log, "one\nha"))
    first.start()
    assert next(lines) == ("app", "one")
    _append(log, "lf\n")
    assert next(lines) == ("app", "half")
    log.write_text("new\n")
    assert next(lines) == ("app", "new")


def _append(log: Path, text: str) -> None:
    with log.open("a") as file:
        file.write(text)


def test_the_dashboard_waits_for_the_set_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "setup"
    monkeypatch.setenv(setup_mark.VARIABLE, str(mark))
    waiting = threading.Thread(target=setup_mark.wait, daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    setup_mark.write(mark, setup_mark.DONE)
    waiting.join(2)
    assert not waiting.is_alive()
    setup_mark.write(mark, setup_mark.STOPPED)
    with pytest.raises(SystemExit):
        setup_mark.wait()


def test_without_a_supervisor_it_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(setup_mark.VARIABLE, raising=False)
    setup_mark.wait()
