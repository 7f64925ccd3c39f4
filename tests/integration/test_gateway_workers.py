"""Workers of one gateway under their supervisor: replaced, killed, and what they tell together."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.benchmarks import gateway_peers, native_code
from tests.benchmarks.gateway_load import Case, Load
from tests.benchmarks.gateway_peers import MODEL, Cpus, Peer, key_text
from tests.doubles.gateway_harness import (
    KEY,
    ROOT,
    GatewayProcess,
    api_key,
    facts_on_disk,
    free_port,
    publish,
    route,
    until,
)
from tests.doubles.openai_server import Knobs, OpenAiDouble
from tests.doubles.steady_load import SteadyLoad
from tests.machine import needs

_START_S = 90.0


class Supervised:
    """Two workers under a supervisor."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir, self.port = data_dir, free_port()
        self.log = data_dir.parent / "supervisor.log"
        command = [sys.executable, "-m", "tests.doubles.gateway_supervisor", str(data_dir)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, str(self.port), "2"], cwd=ROOT, stdout=log, stderr=log
            )

    @property
    def state(self) -> dict[str, Any]:
        path = self.data_dir / "run" / "supervisor.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def pids(self) -> set[int]:
        parts = self.state.get("parts", {})
        return {pid for name, pid in parts.items() if name.startswith("gateway")}

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=30, verify=False)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(timeout=60)

    async def both_live(self) -> None:
        def live() -> bool:
            try:
                return bool(self.get("/health").json()["workers"] == 2)
            except httpx.TransportError:
                return False

        await until(live, _START_S)


@pytest.fixture
async def double() -> AsyncIterator[OpenAiDouble]:
    async with OpenAiDouble(Knobs(tokens=2)) as server:
        yield server


@pytest.fixture
def gateway(tmp_path: Path, double: OpenAiDouble) -> Iterator[Supervised]:
    data_dir = tmp_path / "data"
    publish(data_dir, [route(double.base_url)])
    supervised = Supervised(data_dir)
    yield supervised
    supervised.stop()


def _answered(metrics: str) -> int:
    lines = [line for line in metrics.splitlines() if line.startswith("bud_requests_total{")]
    return sum(int(line.rpartition(" ")[2]) for line in lines)


async def test_a_rolling_restart_fails_no_request(gateway: Supervised) -> None:
    await gateway.both_live()
    before = gateway.pids()
    async with SteadyLoad(gateway.port) as load:
        await until(lambda: load.answered > 50, 30)
        os.kill(gateway.process.pid, signal.SIGUSR1)
        await until(lambda: gateway.state.get("restarts") == 1, _START_S)
        replaced_at = load.answered
        await until(lambda: load.answered > replaced_at + 50, 30)
    assert load.failures == []
    assert gateway.state["restart_problem"] == ""
    assert not gateway.pids() & before
    # The old ones had no caller left, and ended.
    await until(lambda: not any(psutil.pid_exists(pid) for pid in before), 30)
    # What they counted is not forgotten: sums over the workers never go back.
    await until(lambda: _answered(gateway.get("/metrics").text) == load.answered, 10)
    assert gateway.get("/health").json()["workers"] == 2
    assert gateway.stop() == 0
    facts = facts_on_disk(gateway.data_dir)
    assert len(facts) == load.answered
    assert len({fact.worker_id for fact in facts}) >= 3


async def test_a_killed_worker_is_started_again_and_its_callers_wait(gateway: Supervised) -> None:
    await gateway.both_live()
    async with SteadyLoad(gateway.port) as load:
        await until(lambda: load.answered > 50, 30)
    # Each worker knows of the other only what that has written down.
    both = range(10)
    await until(
        lambda: all(_answered(gateway.get("/metrics").text) == load.answered for _ in both), 30
    )
    victim = min(gateway.pids())
    os.kill(victim, signal.SIGKILL)

    async def ask() -> int:
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}) as http:
            url = f"http://127.0.0.1:{gateway.port}/v1/models"
            return (await http.get(url, timeout=_START_S)).status_code

    # New connections go to both sockets; those of the dead worker's wait in its queue.
    assert set(await asyncio.gather(*[ask() for _ in range(16)])) == {200}
    await until(lambda: victim not in gateway.pids() and len(gateway.pids()) == 2, _START_S)
    await gateway.both_live()
    assert _answered(gateway.get("/metrics").text) >= load.answered


async def test_a_successor_that_does_not_start_leaves_the_old_ones(gateway: Supervised) -> None:
    await gateway.both_live()
    before = gateway.pids()
    facts = gateway.data_dir / "facts"
    facts.rename(facts.with_name("facts_elsewhere"))
    facts.write_text("no folder")
    os.kill(gateway.process.pid, signal.SIGUSR1)
    await until(lambda: gateway.state.get("restarts") == 1, _START_S)
    assert "goes on as it is" in gateway.state["restart_problem"]
    assert gateway.pids() == before
    assert gateway.get("/health").status_code == 200


@needs("cc")
async def test_swapping_the_table_at_1000_requests_a_second_fails_none(tmp_path: Path) -> None:
    programs, data_dir = tmp_path / "programs", tmp_path / "data"
    programs.mkdir()
    native_code.compile_into(programs)
    cpus = Cpus.of_this_machine()
    with gateway_peers.replicas(programs, cpus) as replicas:

        def swap(version: int) -> None:
            same = route(
                *replicas.urls, model=MODEL, upstream_model=MODEL, deployment_id=f"dep_{version}"
            )
            publish(data_dir, [same], [api_key(key_text(0))], version)

        swap(1)
        with GatewayProcess(data_dir) as process:
            peer = Peer("gateway", process.port, process.pid)
            case = Case("swapped", "", 32, rate=1000.0)
            load = Load(programs, cpus)
            running = asyncio.create_task(asyncio.to_thread(load.measure, peer, case, seconds=2.5))
            version = 1
            while not running.done():
                version += 1
                swap(version)
                await asyncio.sleep(0.2)
            sample = await running
            health = httpx.get(f"{process.url}/health", verify=False).json()
    assert (sample.failures, sample.first_failure) == (0, "")
    assert sample.answered == 2500
    assert health["route_table_version"] >= version - 2 > 5
