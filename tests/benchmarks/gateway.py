"""The gateway's CPU, latency and memory beside nginx and vllm-router: `bud bench gateway`.

Replicas that answer at once, so that what is left is the cost of the way there. Each peer carries
the same loads, interleaved over several rounds; CPU time is what the kernel counts for its
processes, so that other work on the machine blurs the figures but does not add to them.
"""

from __future__ import annotations

import argparse
import json as json_module
import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from core.kernel.errors import BudError, Unavailable
from tests.benchmarks import gateway_peers, gateway_report, native_code
from tests.benchmarks.gateway_load import (
    CASES,
    EXTRA_CASES,
    JSON_64,
    PLAIN,
    SSE_64,
    Case,
    Load,
    Sample,
    rss_mb,
    same_work_ms,
)
from tests.benchmarks.gateway_peers import Cpus, Peer, Replicas

_ROUNDS = 5
_SECONDS = 2.0
_WARM_UP_S = 1.0


def run(json: bool = False, rounds: int = _ROUNDS, seconds: float = _SECONDS) -> dict[str, Any]:
    """Measure with processes of its own; prints the figures and gives them back.

    Args:
        json: Print them as JSON.
        rounds: How often each load is run on each peer.
        seconds: How long, each time.

    Raises:
        BudError: A request failed, in any load of any peer; the figures are printed before.
        NotFound: There is no C compiler.
        Unavailable: This is not Linux.
    """
    require_linux()
    folder = Path(tempfile.mkdtemp(prefix="bud-bench-"))
    try:
        figures = _measured(folder, rounds, seconds)
    finally:
        shutil.rmtree(folder)
    print(json_module.dumps(figures) if json else gateway_report.text(figures))
    fail_if_any(figures["failures"], figures["requests"], figures["first_failure"])
    return figures


def require_linux() -> None:
    """Refuse where the kernel does not count CPU time by thread in ns. Raises Unavailable."""
    if not Path("/proc/self/schedstat").exists():
        raise Unavailable(
            "This benchmark reads CPU time from /proc/PID/task/*/schedstat.",
            remedy="Run it on Linux.",
        )


def fail_if_any(failures: int, requests: int, first: str) -> None:
    """Raise BudError, exit code 1, when a request failed: such figures count for nothing."""
    if failures:
        raise BudError(
            f"{failures} of {requests} requests failed, so the figures do not count; the first: "
            f"{first}"
        )


def _measured(folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    native_code.compile_into(folder)
    cpus = Cpus.of_this_machine()
    with ExitStack() as stack:
        replicas = stack.enter_context(gateway_peers.replicas(folder, cpus))
        gateway = stack.enter_context(gateway_peers.gateway(folder, replicas, cpus))
        others, skipped = gateway_peers.start_others(stack, folder, replicas, cpus)
        bench = _Bench(folder, cpus, [gateway, *others], replicas)
        return {
            **bench.figures(rounds, seconds),
            "skipped": skipped,
            "rounds": rounds,
            "seconds": seconds,
            "load_average": os.getloadavg()[0],
            "pinned": cpus.gateway.isdisjoint(cpus.callers | cpus.replicas),
        }


class _Bench:
    """All loads on all peers; the gateway is the first of them."""

    def __init__(self, folder: Path, cpus: Cpus, peers: list[Peer], replicas: Replicas) -> None:
        self._folder, self._cpus = folder, cpus
        self._peers, self._replicas = [*peers, replicas], replicas
        self._load = Load(folder, cpus)
        self._samples: dict[str, dict[str, list[Sample]]] = {}

    def figures(self, rounds: int, seconds: float) -> dict[str, Any]:
        for peer in self._peers:
            for case in (JSON_64, SSE_64):
                self._load.measure(peer, case, seconds=_WARM_UP_S)
        gateway = self._peers[0]
        rss_before_mb = rss_mb(gateway)
        work_ms = []
        for number in range(rounds):
            # Nobody is always the first, nor always behind the same one.
            turn = number % len(self._peers)
            for case in CASES:
                work_ms.append(same_work_ms(self._cpus))
                for peer in self._peers[turn:] + self._peers[:turn]:
                    self._run(peer, case, seconds)
        memory_mb = {peer.name: rss_mb(peer) for peer in self._peers[:-1]}
        # Only now: what few projects turn on is not to be in the memory of all others.
        gateway_peers.turn_on_extras(gateway, self._folder, self._replicas)
        for _ in range(rounds):
            for case in (PLAIN, *EXTRA_CASES):
                self._run(gateway, case, seconds)
        every = [each for by in self._samples.values() for of in by.values() for each in of]
        return {
            **gateway_report.summary(self._samples),
            "requests": sum(each.answered + each.failures for each in every),
            "failures": sum(each.failures for each in every),
            "first_failure": next((each.first_failure for each in every if each.failures), ""),
            "memory_mb": memory_mb,
            "memory_growth_mb": memory_mb["gateway"] - rss_before_mb,
            "same_work_ms": gateway_report.spread(work_ms),
            "dropped_facts": gateway_peers.dropped_facts(gateway),
        }

    def _run(self, peer: Peer, case: Case, seconds: float) -> None:
        if peer.name not in (case.only or [each.name for each in self._peers[:-1]]):
            return
        sample = self._load.measure(peer, case, seconds=seconds)
        self._samples.setdefault(case.name, {}).setdefault(peer.name, []).append(sample)
        gateway_peers.ingest(self._folder)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="of a load, in each round")
    return parser.parse_args()


if __name__ == "__main__":
    run(**vars(_options()))
