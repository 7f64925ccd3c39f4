"""What `bud bench gateway` compares, started on CPUs of their own: the gateway, nginx, vllm-router.

All of them stand before the same two replicas: two ports of one double of a model server.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import httpx
import msgspec
import psutil

from core.contracts import route_table
from core.contracts.guardrails import Guardrail, Pii, Secrets
from core.contracts.route_table import (
    ApiKey,
    Cache,
    Capture,
    Hedge,
    Limit,
    Price,
    Project,
    Replica,
    Route,
    RouteTable,
    Shadow,
)
from core.kernel import clock
from core.kernel.errors import BudError
from tests.benchmarks.native_code import MOCK_BACKEND
from tests.doubles.gateway_harness import GatewayProcess, api_key, free_port
from tests.doubles.trace_collector import TraceCollector

MODEL = "mock-model"
KEYS = 10_000
UNLIMITED = "bud-bench-unlimited"
# What a project may have beside what all have: each has one of its own, without limits.
EXTRAS = ("cache", "hedge", "shadow", "guardrails", "capture")
_USERS = 100
_PROJECT, _OPEN_PROJECT = "prj_bench", "prj_open"
_SHADOW = "mock-shadow"
_SLOTS = 128
_LONG_S = 3600.0
_MANY_BYTES = 100_000_000
_BUDGET_MS = 10_000.0  # what waits for the CPU behind 63 others is not to be refused
_START_S = 180.0
_ENOUGH = 1e9  # no limit is ever reached: what they cost is measured

_NGINX = """
daemon off; worker_processes 1; pid nginx.pid; error_log stderr;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000; client_body_buffer_size 256k;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  upstream replicas {{
    random two least_conn;
    {servers}
    keepalive 256; keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://replicas; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Cpus:
    """Which CPUs what is measured, the replicas and the callers are kept on."""

    gateway: frozenset[int]
    replicas: frozenset[int]
    callers: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> Cpus:
        """What is measured gets a CPU that nothing else of the benchmark runs on, if there are two.

        Replicas and callers share one, except where there are three.
        """
        usable = sorted(os.sched_getaffinity(0))
        return cls(*(frozenset({usable[min(number, len(usable) - 1)]}) for number in range(3)))


@dataclass(frozen=True)
class Peer:
    """One way to the replicas: where it listens, and the process that it is."""

    name: str
    port: int
    pid: int


@dataclass(frozen=True)
class Replicas(Peer):
    """The double, called directly; `ports` are those of its replicas."""

    ports: tuple[int, ...]

    @property
    def urls(self) -> list[str]:
        """Where they answer."""
        return [f"http://127.0.0.1:{port}" for port in self.ports]


@contextmanager
def on_cpus(cpus: frozenset[int]) -> Iterator[None]:
    """Processes that are started inside stay on these CPUs, with all their threads."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def replicas(programs: Path, cpus: Cpus) -> Iterator[Replicas]:
    """Two replicas: one process, so that they cost as little as can be."""
    ports = free_port(), free_port()
    command = [str(programs / MOCK_BACKEND), *map(str, ports)]
    with _process(command, cpus.replicas, programs / "replicas.log") as pid:
        peer = Replicas("direct", ports[0], pid, ports)
        _answers(peer, programs / "replicas.log")
        yield peer


def start_others(
    stack: ExitStack, folder: Path, behind: Replicas, cpus: Cpus
) -> tuple[list[Peer], list[str]]:
    """Start nginx and vllm-router, as far as they are installed.

    Returns:
        Those that answer, and for each of the others why it is left out.
    """
    peers, skipped = [], []
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if nginx is None:
        skipped.append("nginx (apt-get install nginx-light)")
    else:
        peers.append(stack.enter_context(_nginx(nginx, folder / "nginx", behind, cpus)))
    # Beside this Python first: there `uv pip install -r requirements/bench.txt` puts it.
    router = shutil.which("vllm-router", path=f"{sys.prefix}/bin:{os.environ.get('PATH', '')}")
    if router is None:
        skipped.append("vllm-router (.venv/bin/uv pip install -r requirements/bench.txt)")
    else:
        peers.append(stack.enter_context(_vllm_router(router, folder, behind, cpus)))
    return peers, skipped


@contextmanager
def gateway(folder: Path, behind: Replicas, cpus: Cpus) -> Iterator[Peer]:
    """One worker with 10,000 keys, limits at every level, p2c, breaker, retries, facts, metrics.

    One request in a hundred is traced. Raises BudError at the end: no trace came.
    """
    data_dir = folder / "data"
    _publish(folder, _table(behind))
    process = GatewayProcess(data_dir)
    with _TraceSink() as traces:
        with on_cpus(cpus.gateway), mock.patch.dict(os.environ, BUD_OTLP_ENDPOINT=traces.url):
            process.start()
        try:
            peer = Peer("gateway", process.port, process.pid)
            _answers(peer, process.log)
            yield peer
        finally:
            process.kill()
    if not traces.received_bytes:
        raise BudError("No trace came from the gateway, so the figures are without traces.")


def turn_on_extras(peer: Peer, folder: Path, behind: Replicas) -> None:
    """Publish projects with `EXTRAS`, and wait until the gateway knows them."""
    table = _table(behind)
    _publish(folder, _with_extras(table, behind))
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s:
        health = httpx.get(f"http://127.0.0.1:{peer.port}/health").json()
        if health["route_table_version"] > table.version:
            return
        time.sleep(0.1)
    raise BudError(f"The gateway did not take the second table within {_START_S:g} s.")


def _publish(folder: Path, table: RouteTable) -> None:
    path = folder / "data" / "routes" / route_table.FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(route_table.encode(table))
    partial.replace(path)


class _TraceSink(TraceCollector):
    """Takes traces and does not read them, which would take a CPU from the callers."""

    received_bytes = 0

    def take(self, content: bytes) -> None:
        """Count what came."""
        self.received_bytes += len(content)


def key_text(number: int) -> str:
    """The secret of one of the keys with limits."""
    return f"bud-bench-{number:05}"


def extra_key_text(extra: str) -> str:
    """The secret of the project that has one of `EXTRAS`."""
    return f"bud-bench-{extra}"


def ingest(folder: Path) -> None:
    """Take sealed segments of facts away, as the app does that reads them, and captures."""
    for path in (*(folder / "data" / "facts").glob("*.ndjson"),
                 *(folder / "data" / "captures").glob("*/*.ndjson")):  # fmt: skip
        path.unlink(missing_ok=True)


def dropped_facts(peer: Peer) -> int:
    """How many facts the gateway could not write."""
    return int(httpx.get(f"http://127.0.0.1:{peer.port}/health").json()["facts_dropped"])


# -- the others


@contextmanager
def _nginx(program: str, folder: Path, behind: Replicas, cpus: Cpus) -> Iterator[Peer]:
    folder.mkdir()
    port = free_port()
    servers = "".join(f"server 127.0.0.1:{each};" for each in behind.ports)
    (folder / "nginx.conf").write_text(_NGINX.format(port=port, servers=servers))
    command = [program, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]
    with _process(command, cpus.gateway, folder / "log") as pid:
        peer = Peer("nginx", port, pid)
        _answers(peer, folder / "log")
        yield peer


@contextmanager
def _vllm_router(program: str, folder: Path, behind: Replicas, cpus: Cpus) -> Iterator[Peer]:
    port, log = free_port(), folder / "vllm-router.log"
    command = [
        *(program, "--host", "127.0.0.1", "--port", str(port), "--policy", "power_of_two"),
        *("--prometheus-port", str(free_port()), "--log-level", "error"),
        *("--worker-urls", *behind.urls),
    ]
    with _process(command, cpus.gateway, log) as pid:
        peer = Peer("vllm-router", port, pid)
        _answers(peer, log)
        yield peer


@contextmanager
def _process(command: list[str], cpus: frozenset[int], log: Path) -> Iterator[int]:
    with on_cpus(cpus), log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(peer: Peer, log: Path) -> None:
    """Wait until it answers a request as it will be asked."""
    url = f"http://127.0.0.1:{peer.port}/v1/chat/completions"
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    headers = {"Authorization": f"Bearer {key_text(0)}"}
    deadline_s = time.monotonic() + _START_S
    seen = "no connection"
    while time.monotonic() < deadline_s:
        if psutil.Process(peer.pid).status() == psutil.STATUS_ZOMBIE:
            raise BudError(f"{peer.name} ended: {_tail(log)}")
        try:
            response = httpx.post(url, json=body, headers=headers, timeout=5)
        except httpx.TransportError as error:
            seen = str(error)
        else:
            if response.status_code == 200:
                return
            seen = f"{response.status_code} {response.text[:200]}"
        time.sleep(0.1)
    raise BudError(f"{peer.name} did not answer within {_START_S:g} s ({seen}): {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-1000:]


# -- what the gateway knows


def _table(behind: Replicas) -> RouteTable:
    keys = [_key(number) for number in range(KEYS)]
    unlimited = api_key(UNLIMITED, id="key_open", project_id=_OPEN_PROJECT, user_id="usr_open")
    return RouteTable(
        version=1,
        published_unix_s=clock.unix_s(),
        routes=[_route(project_id, behind) for project_id in (_PROJECT, _OPEN_PROJECT)],
        keys=[*keys, unlimited],
        limits=_limits(keys),
    )


def _with_extras(table: RouteTable, behind: Replicas) -> RouteTable:
    shadow = msgspec.structs.replace(_route("prj_shadow", behind), model=_SHADOW)
    return msgspec.structs.replace(
        table,
        version=table.version + 1,
        routes=[*table.routes, *(_extra_route(extra, behind) for extra in EXTRAS), shadow],
        keys=[*table.keys, *(_extra_key(extra) for extra in EXTRAS)],
        guardrails=[
            Guardrail(
                id=f"grl_{number}",
                project_id="prj_guardrails",
                name=str(number),
                check=check,
                budget_ms=_BUDGET_MS,
            )
            for number, check in enumerate((Pii(), Secrets()))
        ],
        projects=[
            Project(
                id="prj_cache", name="cache", cache=Cache(ttl_s=_LONG_S, max_bytes=_MANY_BYTES)
            ),
            Project(
                id="prj_capture",
                name="capture",
                capture=Capture(keep_days=1, max_bytes=_MANY_BYTES),
            ),
        ],
    )


def _extra_route(extra: str, behind: Replicas) -> Route:
    route = _route(f"prj_{extra}", behind)
    if extra == "hedge":
        return msgspec.structs.replace(route, hedge=Hedge(after_ms=_LONG_S * 1000, percent=5.0))
    if extra == "shadow":
        return msgspec.structs.replace(route, shadow=Shadow(model=_SHADOW, percent=10.0))
    return route


def _extra_key(extra: str) -> ApiKey:
    return api_key(
        extra_key_text(extra), id=f"key_{extra}", project_id=f"prj_{extra}", user_id="usr_open"
    )


def _key(number: int) -> ApiKey:
    return api_key(
        key_text(number), id=f"key_{number}", project_id=_PROJECT, user_id=f"usr_{number % _USERS}"
    )


def _route(project_id: str, behind: Replicas) -> Route:
    return Route(
        model=MODEL,
        project_id=project_id,
        deployment_id=f"dep_{project_id}",
        upstream_model=MODEL,
        capabilities=["chat"],
        context_tokens=8192,
        price=Price(input_usd_per_million_tokens=1.0, output_usd_per_million_tokens=2.0),
        replicas=[
            Replica(id=f"rep_{number}", base_url=url, slots=_SLOTS)
            for number, url in enumerate(behind.urls)
        ],
    )


def _limits(keys: list[ApiKey]) -> list[Limit]:
    """Ten limits hold for each request: rates, budgets and requests at once, at all four levels."""
    found = []
    for key in keys:
        found += [
            _limit("key", key.id, "requests", "minute"),
            _limit("key", key.id, "tokens", "minute"),
            _limit("key", key.id, "usd", "month"),
        ]
    for user in range(_USERS):
        found += [
            _limit("user", f"usr_{user}", "requests", "day"),
            _limit("user", f"usr_{user}", "usd", "month"),
        ]
    return [
        *found,
        _limit("project", _PROJECT, "tokens", "minute"),
        _limit("project", _PROJECT, "usd", "month"),
        _limit("project", _PROJECT, "concurrent", ""),
        _limit("model", MODEL, "requests", "minute"),
        _limit("model", MODEL, "usd", "day"),
    ]


def _limit(
    level: route_table.LimitLevel,
    subject: str,
    metric: route_table.LimitMetric,
    window: route_table.LimitWindow,
) -> Limit:
    return Limit(
        project_id=_PROJECT, level=level, subject=subject, metric=metric, window=window,
        amount=_ENOUGH,
    )  # fmt: skip
