"""The Dockerfile's steps, run in a clean folder: there is no Docker engine to build it with.

What is not checked here: the base image, its users and its libraries.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "/opt/bud"


def stages() -> list[list[tuple[str, str]]]:
    """Instructions of the Dockerfile, by stage."""
    found: list[list[tuple[str, str]]] = []
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest))
    return found


def value(stage: list[tuple[str, str]], word: str) -> str:
    found = [rest for name, rest in stage if name == word]
    assert found, f"no {word}"
    return found[-1]


def copied(stage: list[tuple[str, str]]) -> list[tuple[list[str], str]]:
    """Sources and target of each COPY from the build context."""
    plain = [shlex.split(rest) for word, rest in stage if word == "COPY" and "--from" not in rest]
    return [(words[:-1], words[-1]) for words in plain]


def test_it_has_two_stages_no_root_and_a_health_check() -> None:
    build, final = stages()
    assert value(build, "FROM").endswith("AS build")
    assert value(final, "USER") == "10001"
    words = [word for word, _ in final]
    assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("COPY", "RUN"))
    assert value(final, "HEALTHCHECK").endswith('CMD ["/opt/bud/bud", "health"]')
    assert json.loads(value(final, "ENTRYPOINT")) == ["/opt/bud/bud"]
    assert json.loads(value(final, "CMD")) == ["up"]


def test_what_it_copies_is_let_through_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line]
    assert lines[1] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    sources = {
        source.strip("/") for stage in stages() for group, _ in copied(stage) for source in group
    }
    assert sources == allowed
    assert all((ROOT / source).exists() for source in sources)
    assert not any(fnmatch.fnmatch(".env", line.lstrip("!")) for line in lines[2:])


def index_is_reachable() -> bool:
    lock = str(ROOT / "requirements" / "installer.txt")
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--ignore-installed",
            "-q",
            "-r",
            lock,
        ],
        capture_output=True,
        check=False,
        timeout=60,
    )
    return run.returncode == 0


def _copy(stage: list[tuple[str, str]], folder: Path) -> None:
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for sources, target in copied(stage):
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, folder / target, ignore=ignore)
            else:
                shutil.copy(ROOT / source, folder / target)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_its_steps_end_in_a_bud_that_answers(tmp_path: Path) -> None:
    build, final = stages()
    folder = tmp_path / "opt" / "bud"
    folder.mkdir(parents=True)
    _copy(build, folder)
    environment = {
        **{name: text for name, text in os.environ.items() if not name.startswith("BUD_")},
        "BUD_PYTHON": sys.executable,
    }
    for word, command in build:
        if word == "RUN":
            run = subprocess.run(
                ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True,
                check=False, timeout=400,
            )  # fmt: skip
            if run.returncode != 0 and not index_is_reachable():
                pytest.skip("no package index can be reached")
            assert run.returncode == 0, run.stderr

    built = folder.rename(tmp_path / "built")
    folder.mkdir()
    (built / ".venv").rename(folder / ".venv")
    _copy(final, folder)
    variables = dict(pair.split("=", 1) for pair in shlex.split(value(final, "ENV")))
    data = tmp_path / "data"
    environment |= {
        name: text.replace("/var/lib/bud", str(data)) for name, text in variables.items()
    }
    environment |= {
        "BUD_HOST": "127.0.0.1",
        "BUD_APP_PORT": str(_free_port()),
        "BUD_GATEWAY_PORT": str(_free_port()),
        "BUD_ADMIN_PASSWORD": "correct-horse-battery",
    }
    _starts_answers_and_stops(folder, final, environment)


def _starts_answers_and_stops(
    folder: Path, final: list[tuple[str, str]], environment: dict[str, str]
) -> None:
    def local(words: list[str]) -> list[str]:
        return [word.replace(PREFIX, str(folder)) for word in words]

    entry = local(json.loads(value(final, "ENTRYPOINT")) + json.loads(value(final, "CMD")))
    health = local(json.loads(value(final, "HEALTHCHECK").partition("CMD ")[2]))
    output = folder.parent / "up.out"
    with output.open("wb") as log:
        bud = subprocess.Popen(
            entry, cwd="/", env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline_s = time.monotonic() + 120
        # Each health check starts Python, which takes the processor from what it asks for.
        while not _accepts(int(environment["BUD_APP_PORT"])):
            assert bud.poll() is None, output.read_text()
            assert time.monotonic() < deadline_s, output.read_text()
            time.sleep(0.1)
        while subprocess.run(health, cwd="/", env=environment, capture_output=True).returncode:
            assert bud.poll() is None, output.read_text()
            assert time.monotonic() < deadline_s, output.read_text()
            time.sleep(0.5)
        bud.send_signal(signal.SIGTERM)
        assert bud.wait(timeout=90) == 0, output.read_text()
        assert "Preparing Bud" not in output.read_text()
    finally:
        if bud.poll() is None:
            bud.kill()
            bud.wait()
