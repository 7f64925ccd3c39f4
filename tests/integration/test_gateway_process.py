"""The gateway as a process: killed, stopped, orphaned, flooded."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from gateway.facts import seal_orphans
from tests.doubles.gateway_harness import (
    CHAT,
    KEY,
    ROOT,
    GatewayProcess,
    facts_on_disk,
    publish,
    route,
    until,
)
from tests.doubles.openai_server import Knobs, OpenAiDouble

CALL: dict[str, Any] = {"model": CHAT, "messages": [{"role": "user", "content": "Hello"}]}
HEADERS = {"Authorization": f"Bearer {KEY}"}
HEAVY = ("sqlalchemy", "pandas", "pydantic", "streamlit", "dbos", "numpy", "duckdb", "aiohttp")


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    """Started by the test, killed here."""
    process = GatewayProcess(tmp_path / "data", "--drain-s", "1", "--max-body-mb", "8")
    yield process
    if process.process is not None:
        process.kill()


def client(gateway: GatewayProcess) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=400)
    return httpx.AsyncClient(
        base_url=gateway.url, headers=HEADERS, timeout=30, verify=False, limits=limits
    )


def test_imports_are_light() -> None:
    code = (
        "import sys, gateway.__main__\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


async def test_starts_without_a_table_and_takes_the_first_one(gateway: GatewayProcess) -> None:
    gateway.start()
    async with OpenAiDouble() as double, client(gateway) as http:
        assert (await http.get("/health")).json()["route_table_version"] == 0
        assert (await http.post("/v1/chat/completions", json=CALL)).status_code == 401
        publish(gateway.data_dir, [route(double.base_url)], version=7)
        for _ in range(50):
            answer = await http.post("/v1/chat/completions", json=CALL)
            if answer.status_code == 200:
                break
            await asyncio.sleep(0.05)
        assert answer.status_code == 200
        assert (await http.get("/health")).json()["route_table_version"] == 7


async def test_kill_loses_no_sealed_fact_and_orphans_are_sealed_once(
    gateway: GatewayProcess,
) -> None:
    async with OpenAiDouble(Knobs(tokens=2)) as double, client(gateway) as http:
        publish(gateway.data_dir, [route(double.base_url)])
        gateway.start()
        answers = await asyncio.gather(
            *[http.post("/v1/chat/completions", json=CALL) for _ in range(40)]
        )
        answered = {answer.headers["x-request-id"] for answer in answers}
        folder = gateway.data_dir / "facts"
        # Written within 0.1 s, sealed within 1 s: the kill comes between the two if it can.
        await until(lambda: any(path.stat().st_size for path in folder.iterdir()))
        await asyncio.sleep(0.3)
        gateway.kill()
    for path in folder.glob("*.open"):
        with path.open("ab") as file:
            file.write(b'{"request_id":"req_torn","started')
    gateway.start()
    await until(lambda: not list(folder.glob("*.open")))
    seen = [fact.request_id for fact in facts_on_disk(gateway.data_dir)]
    assert sorted(seen) == sorted(answered)
    gateway.kill()
    gateway.start()
    assert len(facts_on_disk(gateway.data_dir)) == len(seen)


async def test_segment_of_a_live_worker_is_left_alone(gateway: GatewayProcess) -> None:
    gateway.start()
    folder = gateway.data_dir / "facts"
    async with client(gateway) as http:
        for _ in range(100):
            await http.post("/v1/chat/completions", json=CALL)
            await asyncio.sleep(0.02)
            os.kill(gateway.pid, signal.SIGSTOP)  # it cannot seal meanwhile
            live = list(folder.glob("*.open"))
            if live:
                break
            os.kill(gateway.pid, signal.SIGCONT)
        try:
            assert live
            assert seal_orphans(folder) == 0
            assert list(folder.glob("*.open")) == live
        finally:
            os.kill(gateway.pid, signal.SIGCONT)


async def test_sigterm_finishes_streams_then_exits_cleanly(gateway: GatewayProcess) -> None:
    async with OpenAiDouble() as double, client(gateway) as http:
        publish(gateway.data_dir, [route(double.base_url)])
        gateway.start()

        async def stream(**knobs: Any) -> bytes:
            body = CALL | {"stream": True, "double": knobs}
            return (await http.post("/v1/chat/completions", json=body)).content

        short = asyncio.create_task(stream(tokens=10, delay_s=0.05))
        long = asyncio.create_task(stream(tokens=10_000, delay_s=0.05))
        await until(lambda: double.state.in_flight == 2)
        await asyncio.sleep(0.1)
        os.kill(gateway.pid, signal.SIGTERM)
        assert (await short).endswith(b"data: [DONE]\n\n")
        assert b"gateway_stopping" in await long
        status = await asyncio.to_thread(gateway.kill, signal.SIGTERM)
        assert status == 0
    facts = facts_on_disk(gateway.data_dir)
    assert sorted(fact.error_class for fact in facts) == ["", "gateway_stopped"]
    assert not list((gateway.data_dir / "facts").glob("*.open"))


def test_ends_when_its_supervisor_dies(tmp_path: Path) -> None:
    # A shell between this test and the gateway plays the supervisor.
    script = '"$@" & echo $! > "$PID_FILE"; wait'
    pid_file = tmp_path / "pid"
    os.environ["PID_FILE"] = str(pid_file)
    gateway = GatewayProcess(
        tmp_path / "data", "--drain-s", "0", prefix=("sh", "-c", script, "supervisor")
    )
    try:
        gateway.start()
    finally:
        del os.environ["PID_FILE"]
    pid = int(pid_file.read_text())
    gateway.kill()  # the shell, with -9
    deadline = time.monotonic() + 10
    while _runs(pid):
        assert time.monotonic() < deadline, "the gateway outlived its supervisor"
        time.sleep(0.05)


def test_port_that_is_taken_is_said(gateway: GatewayProcess, tmp_path: Path) -> None:
    gateway.start()
    command = [sys.executable, "-m", "gateway", "--port", str(gateway.port)]
    done = subprocess.run(
        [*command, "--data-dir", str(tmp_path / "other")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert str(gateway.port) in done.stderr


async def test_50_mb_body_is_refused_and_not_kept(gateway: GatewayProcess) -> None:
    gateway.start()
    publish(gateway.data_dir, [route(state="stopped")])
    async with client(gateway) as http:
        await asyncio.sleep(0.3)
        before = _rss_kib(gateway.pid)

        async def chunks(number: int) -> Any:
            for _ in range(number):
                yield b"x" * 1_000_000

        plain = await http.post("/v1/chat/completions", content=b"x" * 50_000_000)
        chunked = await http.post("/v1/chat/completions", content=chunks(50))
        assert plain.status_code == chunked.status_code == 413
        assert plain.json()["error"]["code"] == "request_too_large"
        assert _rss_kib(gateway.pid) - before < 25_000


async def test_300_streams_at_once(gateway: GatewayProcess) -> None:
    async with OpenAiDouble(Knobs(tokens=12, delay_s=0.05)) as double, client(gateway) as http:
        publish(gateway.data_dir, [route(double.base_url)])
        gateway.start()

        body = msgspec.json.encode(CALL | {"stream": True})
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\n"
            f"Authorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()

        async def one() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(head + body)
            content = await reader.readuntil(b"\r\n0\r\n\r\n")
            writer.close()
            return content

        contents = await asyncio.gather(*[one() for _ in range(300)])
        assert all(b"HTTP/1.1 200" in content for content in contents)
        assert all(b"data: [DONE]\n\n" in content for content in contents)
        assert {content.count(b"data: ") for content in contents} == {14}
        assert double.state.most_in_flight > 100
        await until(lambda: len(facts_on_disk(gateway.data_dir)) == 300, 5)
        assert _rss_kib(gateway.pid) < 120_000
        assert (await http.get("/health")).json()["in_flight"] == 0


async def test_logs_are_json_lines_without_keys_or_prompts(gateway: GatewayProcess) -> None:
    async with OpenAiDouble(Knobs(fail="before_first_byte")) as double, client(gateway) as http:
        publish(gateway.data_dir, [route(double.base_url)])
        gateway.start()
        secret = [{"role": "user", "content": "the secret prompt"}]
        answer = await http.post("/v1/chat/completions", json=CALL | {"messages": secret})
        assert answer.status_code == 502
        await http.post("/v1/chat/completions", headers={"Authorization": "Bearer bud-wrong-key"})
    assert gateway.kill(signal.SIGTERM) == 0
    text = gateway.log.read_text()
    lines = [msgspec.json.decode(line) for line in text.splitlines()]
    assert all({"at", "level", "logger", "message"} <= set(line) for line in lines)
    assert any(answer.headers["x-request-id"] in line["message"] for line in lines)
    for hidden in (KEY, "bud-wrong-key", "the secret prompt"):
        assert hidden not in text


def _rss_kib(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss) // 1024


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
