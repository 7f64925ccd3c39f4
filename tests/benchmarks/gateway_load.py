"""The loads of `bud bench gateway`, and what one of them cost the process that carried it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from core.kernel.errors import BudError
from tests.benchmarks.gateway_peers import (
    EXTRAS,
    KEYS,
    MODEL,
    UNLIMITED,
    Cpus,
    Peer,
    extra_key_text,
    key_text,
    on_cpus,
)
from tests.benchmarks.native_code import LOAD

CHAT_PATH = "/v1/chat/completions"
TOKENS = 32
PACE_US = 5000
OPEN_LOOP_RATE = 200.0
_TIMEOUT_S = 900.0
_SYSTEM = (
    "You are a helpful assistant that answers briefly and to the point, in plain words, and never "
    "invents facts it cannot support."
)
_QUESTION = (
    "Explain in two sentences why the sky is blue, and add one sentence on why sunsets look red. "
    "Keep it short."
)
_ASKED = {"role": "user", "content": _QUESTION}
_WHOLE: dict[str, Any] = {
    "model": MODEL,
    "max_tokens": TOKENS,
    "messages": [{"role": "system", "content": _SYSTEM}, _ASKED],
}
_STREAM = {**_WHOLE, "stream": True, "seed": PACE_US}
_BURST = {**_WHOLE, "stream": True}
_SAME_WORK = bytes(16_000_000)
_ANTHROPIC = {"model": MODEL, "max_tokens": TOKENS, "system": _SYSTEM, "messages": [_ASKED]}


@dataclass(frozen=True)
class Case:
    """One kind of load.

    Attributes:
        name: Its name in the figures.
        keys: "one" with limits, "many" of those in turn, the one that is "unlimited", or that of
            a project with one of `EXTRAS`.
        tokens: Events of a stream before "[DONE]"; None for whole answers.
        rate: Requests per second at even distances; 0: the next one follows each answer.
        only: The peers that are asked; empty: all but the replicas themselves.
    """

    name: str
    label: str
    connections: int
    body: dict[str, Any] = field(default_factory=lambda: _WHOLE)
    path: str = CHAT_PATH
    keys: str = "one"
    tokens: int | None = None
    rate: float = 0.0
    only: tuple[str, ...] = ()

    @property
    def streams(self) -> bool:
        """Whether answers come as events."""
        return self.tokens is not None


JSON_64 = Case("json_64", "JSON, 64 connections", 64)
SSE_64 = Case("sse_64", "SSE, 64 streams", 64, body=_STREAM, tokens=TOKENS)
OPEN_LOOP = Case(
    "open_loop",
    f"JSON, {OPEN_LOOP_RATE:g} requests/s",
    64,
    rate=OPEN_LOOP_RATE,
    only=("direct", "gateway", "nginx", "vllm-router"),
)
MANY_KEYS = Case("many_keys", f"JSON, {KEYS:,} keys in turn", 64, keys="many")
UNLIMITED_64 = Case("unlimited", "JSON, no limits", 64, keys="unlimited", only=("gateway",))
TRANSLATED = Case(
    "translated",
    "JSON, Anthropic's dialect",
    64,
    body=_ANTHROPIC,
    path="/v1/messages",
    only=("gateway",),
)
# Hits of the cache: all ask the same, and for the same answer.
_REPEATABLE = {**_WHOLE, "temperature": 0}
PLAIN = Case("plain", "JSON, nothing more", 64, keys="unlimited", only=("gateway",))
EXTRA_CASES = tuple(
    Case(
        extra,
        f"JSON, {label}",
        64,
        body=_REPEATABLE if extra == "cache" else _WHOLE,
        keys=extra,
        only=("gateway",),
    )
    for extra, label in zip(
        EXTRAS,
        ("from the cache", "hedging on", "shadow of 10%", "PII and secrets", "capture on"),
        strict=True,
    )
)
BURST = Case("burst", "SSE, all at once", 64, body=_BURST, keys="many", tokens=TOKENS)
CASES = (
    Case("json_1", "JSON, 1 connection", 1),
    Case("json_16", "JSON, 16 connections", 16),
    JSON_64,
    MANY_KEYS,
    Case("sse_16", "SSE, 16 streams", 16, body=_STREAM, tokens=TOKENS),
    SSE_64,
    OPEN_LOOP,
    UNLIMITED_64,
    TRANSLATED,
)


@dataclass(frozen=True)
class Sample:
    """What one run of a load gave.

    Attributes:
        units: Requests answered, or events for streams.
        cpu_us: CPU time of all threads of the peer's processes.
    """

    answered: int
    failures: int
    first_failure: str
    units: int
    cpu_us: float
    elapsed_s: float
    p50_ms: float
    p99_ms: float

    @property
    def cpu_us_per_unit(self) -> float:
        """CPU µs for a request, or for an event."""
        return self.cpu_us / max(self.units, 1)


class Load:
    """Runs loads with the compiled generator.

    Args:
        programs: Where the generator is; bodies and keys are written there too.
    """

    def __init__(self, programs: Path, cpus: Cpus) -> None:
        self._programs, self._cpus = programs, cpus
        secrets = {"one": [key_text(0)], "unlimited": [UNLIMITED]}
        secrets |= {extra: [extra_key_text(extra)] for extra in EXTRAS}
        secrets["many"] = [key_text(number) for number in range(KEYS)]
        for name, texts in secrets.items():
            (programs / f"{name}.keys").write_text("\n".join(texts))

    def measure(self, peer: Peer, case: Case, *, seconds: float = 0.0, requests: int = 0) -> Sample:
        """Ask one peer, for so many seconds or requests.

        Raises:
            BudError: The load could not be run: nothing listens, or a connection in use by
                nobody was closed.
        """
        processes = _tree(peer.pid)
        before_us = _cpu_us(processes)
        seen = self._run(peer.port, case, seconds, requests)
        cpu_us = _cpu_us(processes) - before_us
        return Sample(
            answered=seen["answered"],
            failures=seen["failures"],
            first_failure=seen["first_failure"] and f"{peer.name}: {seen['first_failure']}",
            units=seen["events"] if case.streams else seen["answered"],
            cpu_us=cpu_us,
            elapsed_s=seen["elapsed_s"],
            p50_ms=seen["latency_us"]["p50"] / 1000,
            p99_ms=seen["latency_us"]["p99"] / 1000,
        )

    def _run(self, port: int, case: Case, seconds: float, requests: int) -> dict[str, Any]:
        body = self._programs / f"{case.name}.json"
        # Without spaces, as clients send it.
        body.write_text(json.dumps(case.body, separators=(",", ":")))
        command = [
            *(str(self._programs / LOAD), "--port", str(port), "--path", case.path),
            *("--body", str(body), "--keys", str(self._programs / f"{case.keys}.keys")),
            *("--connections", str(case.connections), "--rate", str(case.rate)),
            *("--seconds", str(seconds), "--requests", str(requests)),
            *(("--tokens", str(case.tokens)) if case.streams else ()),
        ]
        with on_cpus(self._cpus.callers):
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
        if not done.stdout:
            raise BudError(f"The load {case.name} could not be run: {done.stderr.strip()}")
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures


def rss_mb(peer: Peer) -> float:
    """Resident memory of the largest process: a worker, where there is a process above it."""
    sizes = [process.memory_info().rss for process in _tree(peer.pid)]
    return max(sizes) / 1e6


def same_work_ms(cpus: Cpus) -> float:
    """CPU time of work that is always the same, on the gateway's CPU.

    Where it differs from round to round, the machine is shared in a way that its kernel does not
    see, and counts others' time as ours.
    """
    with on_cpus(cpus.gateway):
        before_ns = time.thread_time_ns()
        hashlib.sha256(_SAME_WORK).digest()
        return (time.thread_time_ns() - before_ns) / 1e6


def _tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _cpu_us(processes: Iterable[psutil.Process]) -> float:
    """CPU time so far; the kernel counts it to the ns, where `ps` and psutil see ticks of 10 ms."""
    spent_ns = 0
    for process in processes:
        for path in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            spent_ns += int(path.read_text().split()[0])
    return spent_ns / 1000
