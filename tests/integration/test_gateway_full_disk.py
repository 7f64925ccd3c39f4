"""A disk that is full for the gateway's process: it answers on, counts, and loses nothing."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app import attention
from core.kernel.actor import Actor
from core.metrics import services as metrics
from core.metrics.schemas import Window
from tests.doubles.gateway_harness import (
    CHAT,
    KEY,
    GatewayProcess,
    facts_on_disk,
    publish,
    route,
    until,
)
from tests.doubles.openai_server import Knobs, OpenAiDouble

CALL: dict[str, Any] = {"model": CHAT, "messages": [{"role": "user", "content": "Hello"}]}
# Smaller than any fact, larger than the count of what was dropped, which is overwritten in place
# as it can be on a disk without a free block.
_FULL_BYTES = 100
_PROJECT = "prj_a"


@pytest.fixture
def gateway(data_dir: Path) -> Iterator[GatewayProcess]:
    process = GatewayProcess(data_dir)
    yield process
    process.kill()


def _limit_file_size(gateway: GatewayProcess, size_bytes: int) -> None:
    """What the kernel lets the process write into a file: beyond it writes fail, as when full."""
    _, hard = resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.pid, resource.RLIMIT_FSIZE, (size_bytes, hard))


async def _ask(http: httpx.AsyncClient, times: int, *, stream: bool) -> list[str]:
    """Ask one after the other; the ids of the requests, all of which were answered."""
    ids = []
    for _ in range(times):
        answer = await http.post("/v1/chat/completions", json=CALL | {"stream": stream})
        assert answer.status_code == 200
        assert '"choices"' in answer.text
        assert answer.text.endswith("data: [DONE]\n\n" if stream else "}")
        ids.append(answer.headers["x-request-id"])
    return ids


async def test_a_full_disk_costs_facts_and_nothing_else(
    gateway: GatewayProcess, admin: Actor
) -> None:
    async with (
        OpenAiDouble(Knobs(tokens=3)) as double,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{gateway.port}",
            headers={"Authorization": f"Bearer {KEY}"},
            timeout=60,
            verify=False,
        ) as http,
    ):
        publish(gateway.data_dir, [route(double.base_url)])
        gateway.start()

        def kept() -> list[str]:
            return [fact.request_id for fact in facts_on_disk(gateway.data_dir)]

        before = await _ask(http, 5, stream=False)
        await until(lambda: len(kept()) == 5, 5)

        _limit_file_size(gateway, _FULL_BYTES)
        await _ask(http, 10, stream=False)
        await _ask(http, 10, stream=True)
        await until(lambda: metrics.segments.dropped_facts(gateway.data_dir) == 20, 5)
        assert kept() == before
        assert "bud_facts_dropped_total 20" in (await http.get("/metrics")).text
        assert (await http.get("/health")).json()["facts_dropped"] == 20

        _limit_file_size(gateway, resource.RLIM_INFINITY)
        after = await _ask(http, 3, stream=True)
        await until(lambda: len(kept()) == 8, 5)
    gateway.kill()

    rows = metrics.requests(admin, _PROJECT, Window.preset("1h"))
    assert sorted(row.request_id for row in rows) == sorted(before + after)
    assert metrics.ingest_state(admin).dropped_facts == 20
    texts = [item.text for item in attention.notices(admin, _PROJECT)]
    assert "Requests that could not be written down for the metrics: 20." in texts
