"""`bud doctor`: what it finds right, and what it finds wrong."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil
import pytest
from alembic.script import ScriptDirectory

from app import checkup
from core.deployments import server_records
from core.kernel import database
from core.kernel.settings import settings


@pytest.fixture(autouse=True)
def free_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BUD_APP_PORT", "BUD_GATEWAY_PORT"):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            monkeypatch.setenv(name, str(probe.getsockname()[1]))
    monkeypatch.setattr(checkup, "package_sizes", lambda: {"small": 10, "large": 2_000_000})


def findings() -> dict[str, checkup.Finding]:
    return {finding.name: finding for finding in checkup.look(largest=1)}


def test_a_sound_folder_has_no_problem(data_dir: Path) -> None:
    found = findings()
    assert [name for name, finding in found.items() if finding.state == "problem"] == []
    head = ScriptDirectory.from_config(database.alembic_config()).get_current_head()
    assert f"schema {head}" in found["database"].says
    assert str(data_dir) in found["keys"].says
    assert "port" in found["gateway"].says
    assert found["packages"].says.endswith("largest: large 1.9 MiB")


def test_a_key_file_open_to_others_is_a_problem(data_dir: Path) -> None:
    next((data_dir / "keys").glob("wrapping-*.pem")).chmod(0o644)
    finding = findings()["keys"]
    assert finding.state == "problem"
    assert "chmod 600" in finding.remedy


def test_a_damaged_database_is_a_problem_and_stops_no_other_check(data_dir: Path) -> None:
    (data_dir / "bud.db").write_bytes(b"not a database" * 100)
    found = findings()
    assert found["database"].state == "problem"
    assert "backup" in found["database"].remedy
    assert found["packages"].state == "ok"


def test_a_fresh_folder_says_how_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUD_DATA_DIR", str(tmp_path / "fresh"))
    settings.cache_clear()
    found = findings()
    assert (found["database"].state, found["database"].remedy) == ("warning", "Start Bud: bud up")
    settings.cache_clear()


def test_servers_left_without_bud_are_named(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = server_records.ServerRecord(replica_id="rep_1", deployment_id="dep_1", pid=4711)
    server_records.folder(data_dir).mkdir(parents=True)
    server_records.write(data_dir, record)
    assert findings()["model servers"].says == "0 running"
    monkeypatch.setattr(server_records, "process", lambda _: psutil.Process())
    finding = findings()["model servers"]
    assert finding.state == "warning"
    assert "4711" in finding.says


def test_package_sizes_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    sizes = checkup.package_sizes()
    assert sizes["xllamacpp"] > 50_000_000
    assert sizes["pyarrow"] > 50_000_000
