from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.deployments.adapters import local


def _log(deployment: str, text: str) -> Path:
    path = local.log_path(deployment, 0)
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_the_first_error_of_the_last_start_is_the_reason(data_dir: Path) -> None:
    _log(
        "dep_a",
        "--- model server starts 2026-01-01 00:00:00 UTC\n"
        "0.00.031.521 E llama_model_load: an old error\n"
        "--- model server starts 2026-01-01 00:00:09 UTC\n"
        "0.00.001.000 I srv          init: initializing ...\n"
        "0.00.031.521 E llama_model_load: error loading model: tensor 'x' is not in the file\n"
        "0.00.031.559 E srv    load_model: failed to load model\n"
        "RuntimeError: Failed to init server, please check the input params.\n",
    )
    reason = local.load_failure("dep_a", 0)
    assert reason == "llama_model_load: error loading model: tensor 'x' is not in the file"


def test_a_traceback_gives_its_error_and_not_the_names_of_files(data_dir: Path) -> None:
    _log(
        "dep_b",
        "--- model server starts 2026-01-01 00:00:00 UTC\n"
        "Traceback (most recent call last):\n"
        '  File "core/kernel/errors.py", line 3, in open\n'
        "    raise KeyProblem(error)\n"
        "core.kernel.errors.KeyProblem: A credential cannot be opened.\n",
    )
    expected = "core.kernel.errors.KeyProblem: A credential cannot be opened."
    assert local.load_failure("dep_b", 0) == expected


def test_a_log_without_an_error_or_no_log_gives_no_reason(data_dir: Path) -> None:
    _log("dep_c", "an error of a log without any start\n--- model server starts x\nall well\n")
    assert local.load_failure("dep_c", 0) == ""
    assert local.load_failure("dep_none", 0) == ""


def test_a_long_log_keeps_its_end_while_the_server_goes_on_writing(data_dir: Path) -> None:
    path = _log("dep_d", "".join(f"line {number}\n" for number in range(800_000)))
    assert path.stat().st_size > 8_000_000
    with path.open("ab") as server:
        local.shorten_log("dep_d", 0)
        server.write(b"still here\n")
    lines = path.read_text().splitlines()
    assert path.stat().st_size < 1_000_100
    assert lines[0].startswith("line ")
    assert lines[-2:] == ["line 799999", "still here"]


def test_a_servers_environment_holds_no_setting_of_bud(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUD_ADMIN_PASSWORD", "secret")
    environment = local._environment()
    assert [name for name in environment if name.startswith("BUD_")] == ["BUD_DATA_DIR"]
    assert environment["PATH"] == os.environ["PATH"]
