"""A real gateway for tests: in this process, or as a process of its own, on a folder of its own."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai

from core.contracts import route_table
from core.contracts.request_fact import RequestFact
from core.contracts.route_table import ApiKey, Limit, Replica, Route, RouteTable
from core.kernel import clock
from gateway.config import GatewayConfig, Timeouts
from gateway.server import Gateway
from tests.machine import slowness

ROOT = Path(__file__).resolve().parents[2]
KEY = "bud-test-key-0000000000000000000000000000000000"
CHAT = "tiny-chat"
EMBEDDER = "tiny-embedder"
QUICK = Timeouts(
    connect_s=0.5 * slowness(),
    first_byte_s=2.0 * slowness(),
    between_tokens_s=1.0 * slowness(),
    replica_wait_s=1.0 * slowness(),
    caller_s=2.0 * slowness(),
    drain_s=1.0 * slowness(),
)


def api_key(secret: str = KEY, **fields: Any) -> ApiKey:
    known = {"id": "key_test", "project_id": "prj_a", "user_id": "usr_a"} | fields
    return ApiKey(sha256=hashlib.sha256(secret.encode()).hexdigest(), **known)


def route(*base_urls: str, **fields: Any) -> Route:
    known: dict[str, Any] = {
        "model": CHAT,
        "project_id": "prj_a",
        "deployment_id": "dep_chat",
        "upstream_model": CHAT,
        "capabilities": ["chat", "completion"],
        "context_tokens": 512,
        "created_unix_s": 1_760_000_000,
    } | fields
    replicas = [
        Replica(id=f"rep_{known['deployment_id']}_{n}", base_url=url, slots=4)
        for n, url in enumerate(base_urls)
    ]
    return Route(**{"replicas": replicas, **known})


def embedder(*base_urls: str, **fields: Any) -> Route:
    known = {
        "model": EMBEDDER,
        "upstream_model": EMBEDDER,
        "deployment_id": "dep_embedder",
        "capabilities": ["embedding"],
    }
    return route(*base_urls, **known | fields)


def publish(
    data_dir: Path,
    routes: Iterable[Route],
    keys: Iterable[ApiKey] = (),
    version: int = 1,
    *,
    limits: Iterable[Limit] = (),
    **more: Any,
) -> None:
    """Write a route table; `more` are its other fields."""
    path = data_dir / "routes" / route_table.FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    table = RouteTable(
        version=version,
        published_unix_s=clock.unix_s(),
        routes=list(routes),
        keys=list(keys) or [api_key()],
        limits=list(limits),
        **more,
    )
    partial = path.with_suffix(".partial")
    partial.write_bytes(route_table.encode(table))
    partial.replace(path)


def facts_on_disk(data_dir: Path) -> list[RequestFact]:
    """Every fact in sealed segments."""
    return [
        msgspec.json.decode(line, type=RequestFact)
        for path in sorted((data_dir / "facts").glob("*.ndjson"))
        for line in path.read_bytes().splitlines()
    ]


class GatewayHere:
    """A gateway in this process; `async with GatewayHere(folder, [route(url)]) as gateway`.

    `table` are other fields of the route table, `config` those of `GatewayConfig`.
    """

    def __init__(
        self,
        data_dir: Path,
        routes: Iterable[Route] = (),
        *,
        keys: Iterable[ApiKey] = (),
        limits: Iterable[Limit] = (),
        timeouts: Timeouts = QUICK,
        max_body_bytes: int = 1_000_000,
        keys_dir: Path | None = None,
        table: Mapping[str, Any] | None = None,
        **config: Any,
    ) -> None:
        self.data_dir = data_dir
        publish(data_dir, routes, keys, limits=limits, **(table or {}))
        self.gateway = Gateway(
            GatewayConfig(
                host="127.0.0.1",
                port=0,
                data_dir=data_dir,
                keys_dir=keys_dir or data_dir / "keys",
                max_body_bytes=max_body_bytes,
                facts_max_bytes=10_000_000,
                timeouts=timeouts,
                **config,
            )
        )
        self.gateway.facts.seal_s = 0.0
        self._stopped = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.gateway.port}"

    async def __aenter__(self) -> GatewayHere:
        await self.gateway.start()
        self.http = httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60, verify=False
        )
        # Without TLS to verify, a client is made in a fraction of the time.
        self.openai = openai.AsyncOpenAI(
            base_url=f"{self.url}/v1",
            api_key=KEY,
            max_retries=0,
            timeout=60,
            http_client=httpx.AsyncClient(verify=False, timeout=60),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.openai.close()
        await self.http.aclose()
        await self.stop()

    async def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            await self.gateway.stop()

    async def publish(self, routes: Iterable[Route], keys: Iterable[ApiKey] = ()) -> None:
        """Publish, and wait until it is in use."""
        version = self.gateway.table.current.version + 1
        publish(self.data_dir, routes, keys, version)
        await until(lambda: self.gateway.table.current.version == version)

    async def facts(self, at_least: int = 1) -> list[RequestFact]:
        """The facts, once so many are sealed."""
        await until(lambda: len(facts_on_disk(self.data_dir)) >= at_least, 4)
        return facts_on_disk(self.data_dir)


class GatewayProcess:
    """A gateway as a process of its own."""

    def __init__(self, data_dir: Path, *options: str, prefix: Iterable[str] = ()) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.log = data_dir / "gateway.log"
        data_dir.mkdir(parents=True, exist_ok=True)
        self._command = [
            *prefix,
            *(sys.executable, "-m", "gateway", "--host", "127.0.0.1", "--port", str(self.port)),
            *("--data-dir", str(data_dir), "--keys-dir", str(data_dir / "keys"), *options),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> GatewayProcess:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self._command, cwd=ROOT, stderr=log)
        for _ in range(600):
            if self.process.poll() is not None:
                raise AssertionError(f"the gateway ended: {self.log.read_text()}")
            try:
                if httpx.get(f"{self.url}/health", timeout=2, verify=False).is_success:
                    return self
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError("the gateway did not start")

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal and wait; the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.process.wait(timeout=60)

    def __enter__(self) -> GatewayProcess:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition: Any, within_s: float = 3.0) -> None:
    """Wait until `condition()` holds."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "the condition did not come true in time"
        await asyncio.sleep(0.01)
