from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from core.deployments import server_records
from core.deployments.server_records import ServerRecord
from core.kernel.settings import ROOT

# A server as light as can be: claims its replica, says so, and waits.
_SERVER = """
import os, sys, time
from pathlib import Path
from core.deployments import server_records
config = Path(sys.argv[1])
data_dir = config.parents[2]
record = server_records.ServerRecord(
    replica_id=config.stem, deployment_id="dep_1", pid=os.getpid()
)
time.sleep(float(sys.argv[2]))
if server_records.claim(data_dir, record):
    print("runs", flush=True)
    while server_records.permitted(data_dir, config.stem):
        time.sleep(0.1)
"""


def _permit(data_dir: Path, replica_id: str) -> Path:
    config = server_records.config_path(data_dir, replica_id)
    config.parent.mkdir(parents=True, exist_ok=True)
    config.touch()
    return config


@contextmanager
def _server(config: Path, wait_s: float = 0.0) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _SERVER, str(config), str(wait_s)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield server
    finally:
        server.kill()
        server.communicate()


def _until(check: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def _says(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    return server.stdout.readline().strip()


def test_a_replica_never_has_two_servers(tmp_path: Path) -> None:
    config = _permit(tmp_path, "rep_1")
    with _server(config) as first:
        assert _says(first) == "runs"
        with _server(config) as second:
            assert second.wait(timeout=60) == 0
            assert _says(second) == ""
        assert server_records.read_all(tmp_path)["rep_1"].pid == first.pid
        first.kill()
        first.wait()
        with _server(config) as third:
            assert _says(third) == "runs"


def test_a_record_is_not_believed_when_its_pid_is_another_process_now(tmp_path: Path) -> None:
    config = _permit(tmp_path, "rep_1")
    with _server(config) as server:
        assert _says(server) == "runs"
        record = server_records.read_all(tmp_path)["rep_1"]
        found = server_records.process(record)
        assert found is not None
        assert found.pid == server.pid
        other = ServerRecord(replica_id="rep_2", deployment_id="dep_1", pid=server.pid)
        assert server_records.process(other) is None
        server.kill()
        # Until somebody reaps it, it is a zombie.
        _until(lambda: server_records.process(record) is None)


def test_a_server_without_its_permission_ends_itself(tmp_path: Path) -> None:
    config = _permit(tmp_path, "rep_1")
    with _server(config) as server:
        assert _says(server) == "runs"
        config.unlink()
        assert server.wait(timeout=60) == 0


def test_stop_all_also_stops_a_server_that_was_just_being_started(tmp_path: Path) -> None:
    with (
        _server(_permit(tmp_path, "rep_1")) as running,
        _server(_permit(tmp_path, "rep_2"), wait_s=2.0) as late,
    ):
        assert _says(running) == "runs"
        assert server_records.stop_all(tmp_path) == 1
        assert running.wait(timeout=5) != 0
        assert late.wait(timeout=60) == 0
        assert _says(late) == ""
    assert server_records.process(server_records.read_all(tmp_path)["rep_2"]) is None


def test_a_damaged_record_is_left_out(tmp_path: Path) -> None:
    _permit(tmp_path, "rep_1")
    (server_records.folder(tmp_path) / "rep_1.json").write_text('{"replica_id": ')
    assert server_records.read_all(tmp_path) == {}
    assert server_records.stop_all(tmp_path) == 0


def test_the_module_is_light() -> None:
    heavy = "{'sqlalchemy', 'pydantic', 'pandas', 'xllamacpp'} & set(sys.modules)"
    code = f"import sys, core.deployments.server_records; assert not ({heavy}), {heavy}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
