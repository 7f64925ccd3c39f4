"""Metrics asked by other processes, over the app's loopback route."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette

from app import internal
from core.kernel import clock
from core.kernel.settings import settings
from core.metrics import ingest, segments
from core.metrics.adapters import app_store
from core.metrics.schemas import StoredFact

ASK = """
from core.accounts import services as accounts
from core.kernel.actor import Actor
from core.metrics import services, store
from core.metrics.schemas import Window
import sys
actor = Actor("cli", "cli", "ten_default", "admin")
with store.remote_or_local() as used:
    print(type(used).__name__)
window = Window.preset("1h")
print(services.summary(actor, "prj_a", window).requests)
series = services.series(actor, "prj_a", window, group_by="model")
print(sum(point.requests for point in series.points), sorted(series.labels))
print([row.request_id for row in services.requests(actor, "prj_a", window)])
print(len(services.costs(actor, "prj_a", window).machines))
print(services.errors(actor, "prj_a", window), services.errors_over_time(actor, "prj_a", window))
print(services.request_cost(actor, "prj_a", "req_0").basis)
print(services.forget_project(actor, "prj_b"))
"""


def _facts(count: int, project_id: str) -> list[StoredFact]:
    return [
        StoredFact(
            request_id=f"req_{number}",
            started_unix_s=clock.unix_s() - 60 - number,
            endpoint="/v1/completions",
            model="tiny",
            project_id=project_id,
            replica_id="rep_1",
            duration_ms=5.0,
        )
        for number in range(count)
    ]


@pytest.fixture
def running(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The internal route on a real server, and an ingester behind it; its address."""
    ingester = ingest.Ingester()
    ingester.start()
    server = uvicorn.Server(
        uvicorn.Config(Starlette(routes=internal.routes), port=0, log_level="error")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    monkeypatch.setenv("BUD_APP_PORT", str(port))
    settings.cache_clear()
    internal.start()
    yield f"http://127.0.0.1:{port}"
    internal.stop()
    server.should_exit = True
    thread.join(timeout=60)
    ingester.stop()


def _ask_from_another_process(data_dir: Path) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", ASK],
        env=os.environ | {"BUD_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


_ANSWERS = [
    "3",
    "3 ['tiny']",
    "['req_0', 'req_1', 'req_2']",
    "[] []",
    "not set",
    "2",
]


def test_another_process_asks_the_running_app(running: str, data_dir: Path) -> None:
    segments.write(data_dir, "seg-1", [*_facts(3, "prj_a"), *_facts(2, "prj_b")])
    while segments.sealed(data_dir):
        time.sleep(0.05)
    lines = _ask_from_another_process(data_dir)
    machines = lines.pop(4)
    assert lines == ["AppStore", *_ANSWERS]
    assert machines in ("0", "1")  # one, once the first seconds of uptime are written


def test_without_an_app_the_file_is_opened_and_ingested(data_dir: Path) -> None:
    segments.write(data_dir, "seg-1", [*_facts(3, "prj_a"), *_facts(2, "prj_b")])
    lines = _ask_from_another_process(data_dir)
    assert lines.pop(4) == "0"
    assert lines == ["DuckDbStore", *_ANSWERS]


def test_a_stale_address_falls_back_to_the_file(data_dir: Path) -> None:
    app_store.publish_address(data_dir, "http://127.0.0.1:1")
    assert _ask_from_another_process(data_dir)[0] == "DuckDbStore"


def test_the_token_is_for_the_owner_only_and_needed(running: str, data_dir: Path) -> None:
    path = app_store.token_path(data_dir)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    token = msgspec.json.decode(path.read_bytes(), type=app_store.AppAddress).token
    question = {"method": "last_ingested_at", "arguments": {}}

    def status(given: dict[str, str]) -> int:
        return httpx.post(running + app_store.PATH, json=question, headers=given).status_code

    assert status({app_store.TOKEN_HEADER: token}) == 200
    assert status({app_store.TOKEN_HEADER: token[:-1]}) == 404
    assert status({app_store.TOKEN_HEADER: ""}) == 404
    assert status({}) == 404
    assert httpx.get(running + app_store.PATH).status_code == 405


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"not json", 400),
        (b'{"method": "add_segments", "arguments": {}}', 400),
        (b'{"method": "close", "arguments": {}}', 400),
        (b'{"method": "__init__", "arguments": {}}', 400),
        (b'{"method": "summary", "arguments": {"scope": 5}}', 400),
        (b'{"method": "summary", "arguments": {}}', 400),
        (b'{"method": "summary", "arguments": {"nothing": 5}}', 400),
        (b'["method"]', 400),
        (b" " * 2_000_000, 413),
    ],
)
def test_malformed_questions_are_refused(
    running: str, data_dir: Path, body: bytes, status: int
) -> None:
    token = msgspec.json.decode(app_store.token_path(data_dir).read_bytes())["token"]
    answer = httpx.post(
        running + app_store.PATH, content=body, headers={app_store.TOKEN_HEADER: token}
    )
    assert answer.status_code == status
