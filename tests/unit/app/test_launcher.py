"""`./bud` before anything is installed: platforms, Pythons, failures, going on after them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.machine import slowness

ROOT = Path(__file__).resolve().parents[3]
TOOLS = (
    *("sh", "cat", "cksum", "date", "dirname", "grep", "head", "ls", "mkdir", "readlink", "rm"),
    *("sed", "sleep", "tail", "uname"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of what the launcher needs, without an environment."""
    copy = tmp_path / "bud home"
    copy.mkdir()
    shutil.copy(ROOT / "bud", copy)
    shutil.copytree(ROOT / "requirements", copy / "requirements")
    return copy


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with what a bare machine has, and no Python."""
    path = tmp_path / "bin"
    path.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (path / tool).symlink_to(found)
    return path


def fake(tools: Path, name: str, script: str) -> None:
    (tools / name).unlink(missing_ok=True)
    (tools / name).write_text(f"#!/bin/sh\n{script}\n")
    (tools / name).chmod(0o755)


def launch(folder: Path, tools: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(folder / "bud"), "--help"],
        env={"PATH": str(tools), "HOME": str(folder), **variables},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.parametrize(
    ("system", "machine", "says"),
    [
        ("Darwin", "x86_64", "Bud does not run on Darwin x86_64"),
        ("Linux", "ppc64le", "Bud does not run on Linux ppc64le"),
        ("FreeBSD", "amd64", "Bud does not run on FreeBSD amd64"),
        ("MINGW64_NT-10.0", "x86_64", "Use WSL2"),
    ],
)
def test_other_platforms_are_refused_by_name(
    folder: Path, tools: Path, system: str, machine: str, says: str
) -> None:
    fake(tools, "uname", f"case $1 in -s) echo {system} ;; *) echo {machine} ;; esac")
    run = launch(folder, tools)
    assert run.returncode == 1
    assert says in run.stderr
    assert not (folder / ".venv").exists()


def test_no_python_is_said(folder: Path, tools: Path) -> None:
    run = launch(folder, tools)
    assert run.returncode == 1
    assert "There is no Python on the PATH; Bud needs 3.11, 3.12, 3.13 or 3.14" in run.stderr


def test_a_wrong_python_is_named_with_its_version(folder: Path, tools: Path) -> None:
    fake(tools, "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    fake(tools, "python3", "echo 3.9.18 ready")
    run = launch(folder, tools)
    assert run.returncode == 1
    assert f"there is only: {tools}/python3 (3.9.18)" in run.stderr


def test_a_python_without_venv_is_told_apart(folder: Path, tools: Path) -> None:
    fake(tools, "python3.12", "echo 3.12.1 without-venv")
    run = launch(folder, tools)
    assert run.returncode == 1
    assert "cannot make an environment" in run.stderr
    assert "apt-get install python3-venv" in run.stderr


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"python3.13": "3.13.1 ready-shared", "python3.11": "3.11.2 ready"}, "3.11.2"),
        ({"python3.13": "3.13.1 ready-shared", "python3.11": "3.11.2 ready-shared"}, "3.13.1"),
        ({"python3.13": "3.13.1 ready", "python3.11": "3.11.2 ready"}, "3.13.1"),
        ({"python3.13": "3.13.1 ready-shared", "python3.9": "3.9.18 ready"}, "3.13.1"),
    ],
)
def test_a_python_that_is_a_program_in_itself_comes_first(
    folder: Path, tools: Path, found: dict[str, str], expected: str
) -> None:
    for name, said in found.items():
        fake(tools, name, f"[ $1 = -c ] && echo {said}")
    run = launch(folder, tools)
    assert f"1/4 Make .venv with Python {expected}" in run.stderr


def test_a_failed_step_is_named_and_the_next_run_goes_on(folder: Path, tools: Path) -> None:
    unreachable = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
        "BUD_PYTHON": sys.executable,
    }
    first = launch(folder, tools, **unreachable)
    assert first.returncode == 1
    assert "1/4 Make .venv with Python 3." in first.stderr
    assert 'The step "2/4 Install the installer (uv)" failed' in first.stderr
    assert str(folder / ".venv" / "install.log") in first.stderr
    assert "Check the network and pip's index settings" in first.stderr
    assert not (folder / ".venv-install.lock").exists()
    second = launch(folder, tools, **unreachable)
    assert "1/4 .venv is there already" in second.stderr


def _stamp(folder: Path) -> None:
    """An environment that counts as installed, with a Python that says how it was called."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    fake(folder / ".venv" / "bin", "python", 'echo "called: $*"')
    sums = [
        subprocess.run(
            ["cksum"],
            stdin=(folder / "requirements" / name).open("rb"),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in ("installer.txt", "runtime.txt", "models.txt")
    ]
    (folder / ".venv" / ".bud-runtime").write_text(f"{folder}\n{''.join(sums)}")


def test_a_later_start_only_looks_at_the_stamp(folder: Path, tools: Path) -> None:
    _stamp(folder)
    took_s = []
    for _ in range(5):
        started = time.perf_counter()
        run = launch(folder, tools)
        took_s.append(time.perf_counter() - started)
        assert run.stdout == "called: -P -m app.cli --help\n"
        assert run.stderr == ""
    assert min(took_s) < 0.05 * slowness()


def test_python_keeps_what_it_compiled_also_where_the_environment_forbids_it(
    folder: Path, tools: Path
) -> None:
    _stamp(folder)
    fake(folder / ".venv" / "bin", "python", 'echo "${PYTHONDONTWRITEBYTECODE-not set}"')
    assert launch(folder, tools, PYTHONDONTWRITEBYTECODE="1").stdout == "not set\n"


def test_a_changed_lock_file_is_noticed(folder: Path, tools: Path) -> None:
    _stamp(folder)
    with (folder / "requirements" / "models.txt").open("a") as file:
        file.write("# changed\n")
    run = launch(folder, tools)
    assert "Preparing Bud" in run.stderr


def test_it_works_through_a_link(folder: Path, tools: Path, tmp_path: Path) -> None:
    _stamp(folder)
    (tmp_path / "link").symlink_to(Path("bud home") / "bud")
    run = subprocess.run(
        [str(tmp_path / "link"), "doctor"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "called: -P -m app.cli doctor\n"
