"""CPU time of the gateway for a request and for a streamed event: `bud bench gateway [--json]`.

A double of a model server answers at once; callers keep their connections. Rounds with and
without the gateway alternate, and CPU time is what the kernel says of each process (user and
system), so that other work on the machine blurs the figures but does not add to them.
"""

from __future__ import annotations

import asyncio
import json as json_module
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import uvloop

from tests.doubles.gateway_harness import (
    CHAT,
    KEY,
    ROOT,
    GatewayProcess,
    free_port,
    publish,
    route,
)

_ROUNDS = 5
_CONNECTIONS = 32
_REQUESTS = 3000
_STREAMS = 64
_EVENTS = 60
_EVENT_EVERY_S = 0.02
_ALONE = 200
_PROMPT = "Explain in two sentences why the sky is blue, and why sunsets look red. " * 6


@dataclass(frozen=True)
class _Load:
    """What one round of load cost: CPU µs by process, latencies in ms."""

    units: int
    gateway_us: float
    double_us: float
    latencies_ms: list[float]


def run(json: bool = False, rounds: int = _ROUNDS) -> dict[str, Any]:
    """Measure with processes of its own; prints the figures and gives them back."""
    folder = Path(tempfile.mkdtemp(prefix="bud-bench-"))
    try:
        figures = uvloop.run(_measure(folder, rounds))
    finally:
        shutil.rmtree(folder)
    if json:
        print(json_module.dumps(figures))
    else:
        _print(figures)
    return figures


async def _measure(folder: Path, rounds: int) -> dict[str, Any]:
    port = free_port()
    command = [sys.executable, "-m", "tests.doubles.openai_server", "--port", str(port)]
    double = subprocess.Popen(command, cwd=ROOT)
    try:
        await _listening(port)
        publish(folder / "data", [route(f"http://127.0.0.1:{port}", upstream_model=CHAT)])
        with GatewayProcess(folder / "data") as gateway:
            await _routed(gateway)
            bench = _Bench(gateway, psutil.Process(double.pid), port)
            return await bench.figures(rounds)
    finally:
        double.kill()
        double.wait()


class _Bench:
    """The loads, through the gateway and past it."""

    def __init__(self, gateway: GatewayProcess, double: psutil.Process, port: int) -> None:
        self._port = {"gateway": gateway.port, "direct": port}
        self._gateway = psutil.Process(gateway.pid)
        self._double = double

    async def figures(self, rounds: int) -> dict[str, Any]:
        seen: dict[str, list[_Load]] = {}
        await self._whole("gateway", _REQUESTS // 4, _CONNECTIONS)
        rss_before = self._gateway.memory_info().rss
        for _ in range(rounds):
            for way in ("direct", "gateway"):
                loads = seen.setdefault
                loads(f"{way} whole", []).append(await self._whole(way, _REQUESTS, _CONNECTIONS))
                loads(f"{way} stream", []).append(await self._streams(way))
                loads(f"{way} alone", []).append(await self._whole(way, _ALONE, 1))
        return {
            "rounds": rounds,
            "python": sys.version.split()[0],
            "cpus": psutil.cpu_count(),
            "load_average": round(psutil.getloadavg()[0], 1),
            "request": _cost(seen["gateway whole"], seen["direct whole"]),
            "event": _cost(seen["gateway stream"], seen["direct stream"]),
            "alone_ms": {
                "direct_p50": _quantile(seen["direct alone"], 0.5),
                "direct_p99": _quantile(seen["direct alone"], 0.99),
                "gateway_p50": _quantile(seen["gateway alone"], 0.5),
                "gateway_p99": _quantile(seen["gateway alone"], 0.99),
            },
            "gateway_rss_mb": round(self._gateway.memory_info().rss / 1e6, 1),
            "gateway_rss_growth_mb": round((self._gateway.memory_info().rss - rss_before) / 1e6, 1),
        }

    async def _whole(self, way: str, requests: int, connections: int) -> _Load:
        body = {"model": CHAT, "messages": [{"role": "user", "content": _PROMPT}]}
        latencies_ms: list[float] = []

        async def caller(number: int) -> None:
            caller_requests = requests // connections
            connection = await _Caller.open(self._port[way], body)
            for _ in range(caller_requests):
                began_s = time.perf_counter()
                await connection.whole()
                latencies_ms.append((time.perf_counter() - began_s) * 1000)
            connection.close()

        load = await self._metered(lambda: _all(caller, connections))
        return _Load(len(latencies_ms), *load, latencies_ms)

    async def _streams(self, way: str) -> _Load:
        knobs = {"tokens": _EVENTS, "delay_s": _EVENT_EVERY_S}
        messages = [{"role": "user", "content": _PROMPT}]
        body = {"model": CHAT, "stream": True, "messages": messages, "double": knobs}
        events = 0

        async def caller(number: int) -> None:
            nonlocal events
            await asyncio.sleep(number * _EVENT_EVERY_S / _STREAMS)
            connection = await _Caller.open(self._port[way], body)
            seen = await connection.stream()
            events += seen
            connection.close()

        load = await self._metered(lambda: _all(caller, _STREAMS))
        return _Load(events, *load, [])

    async def _metered(self, work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
        before = _cpu_us(self._gateway), _cpu_us(self._double)
        await work()
        return _cpu_us(self._gateway) - before[0], _cpu_us(self._double) - before[1]


class _Caller:
    """A caller that costs little: one connection, one request repeated."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> None:
        self._reader, self._writer, self._request = reader, writer, request

    @classmethod
    async def open(cls, port: int, body: dict[str, Any]) -> _Caller:
        content = json_module.dumps(body).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: bench\r\n"
            f"Authorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        return cls(reader, writer, head.encode() + content)

    async def whole(self) -> None:
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head, head
        length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
        await self._reader.readexactly(int(length))

    async def stream(self) -> int:
        self._writer.write(self._request)
        content = await self._reader.readuntil(b"\r\n0\r\n\r\n")
        events = content.count(b"data: ")
        assert b"data: [DONE]" in content, content[-500:]
        assert events == _EVENTS + 2, events
        return events

    def close(self) -> None:
        self._writer.close()


async def _all(caller: Callable[[int], Awaitable[None]], number: int) -> None:
    await asyncio.gather(*[caller(each) for each in range(number)])


async def _listening(port: int) -> None:
    for _ in range(200):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise AssertionError("the double does not listen")


async def _routed(gateway: GatewayProcess) -> None:
    async with httpx.AsyncClient(verify=False) as http:
        while not (await http.get(f"{gateway.url}/health")).json()["routes"]:
            await asyncio.sleep(0.05)


def _cpu_us(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system) * 1e6


def _cost(gateway: list[_Load], direct: list[_Load]) -> dict[str, float]:
    """CPU µs a unit: of the gateway, of the double called directly, and the first by the second."""
    mine = [load.gateway_us / load.units for load in gateway]
    theirs = [load.double_us / load.units for load in direct]
    return {
        "units": sum(load.units for load in gateway),
        "gateway_cpu_us": round(statistics.median(mine), 1),
        "gateway_cpu_us_min": round(min(mine), 1),
        "gateway_cpu_us_max": round(max(mine), 1),
        "double_cpu_us": round(statistics.median(theirs), 1),
        "ratio": round(statistics.median(mine) / statistics.median(theirs), 2),
    }


def _quantile(loads: list[_Load], share: float) -> float:
    every = sorted(latency for load in loads for latency in load.latencies_ms)
    return round(every[int(len(every) * share)], 2)


def _print(figures: dict[str, Any]) -> None:
    print(f"{'':26}{'gateway':>10}{'min':>8}{'max':>8}{'double':>10}{'ratio':>8}")
    for name, label in (("request", "CPU µs a request"), ("event", "CPU µs a streamed event")):
        cost = figures[name]
        print(
            f"{label:26}{cost['gateway_cpu_us']:>10}{cost['gateway_cpu_us_min']:>8}"
            f"{cost['gateway_cpu_us_max']:>8}{cost['double_cpu_us']:>10}{cost['ratio']:>8}"
        )
    alone = figures["alone_ms"]
    print(f"{'latency alone, p50 ms':26}{alone['gateway_p50']:>10}{alone['direct_p50']:>26}")
    print(f"{'latency alone, p99 ms':26}{alone['gateway_p99']:>10}{alone['direct_p99']:>26}")
    print(f"memory {figures['gateway_rss_mb']} MB ({figures['gateway_rss_growth_mb']:+} MB)")
    print(
        f"{figures['rounds']} rounds, Python {figures['python']}, {figures['cpus']} CPUs, "
        f"load average {figures['load_average']}"
    )


if __name__ == "__main__":
    run(json="--json" in sys.argv)
