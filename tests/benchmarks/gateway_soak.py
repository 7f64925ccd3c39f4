"""Whether the memory of a gateway worker stays flat over 2 million requests with 10,000 keys.

`bud bench gateway_soak [--json]`; `python -m tests.benchmarks.gateway_soak --requests 200000` for
another number. Nine of ten requests get a whole answer, one a stream. Resident memory is read
every 100,000 requests; the first reading, when every key has been used many times, is the base.
"""

from __future__ import annotations

import argparse
import json as json_module
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks import gateway_peers, native_code
from tests.benchmarks.gateway import fail_if_any, require_linux
from tests.benchmarks.gateway_load import BURST, MANY_KEYS, Load, Sample, rss_mb
from tests.benchmarks.gateway_peers import Cpus, Peer

_REQUESTS = 2_000_000
_STEP = 100_000
_STREAM_SHARE = 0.1
_MAX_DRIFT_PERCENT = 3.0


def run(json: bool = False, requests: int = _REQUESTS) -> dict[str, Any]:
    """Send the requests; prints memory as it goes and gives the figures back.

    Args:
        json: Print the figures as JSON, at the end.
        requests: How many, rounded up to whole steps of 100,000 (or one step, when fewer).

    Raises:
        BudError: A request failed; the figures are printed before.
        NotFound: There is no C compiler.
        Unavailable: This is not Linux.
    """
    require_linux()
    folder = Path(tempfile.mkdtemp(prefix="bud-bench-"))
    # With --json, what is printed on the way must not be in the way.
    out = sys.stderr if json else sys.stdout
    rows: list[dict[str, Any]] = []
    failed: list[Sample] = []
    try:
        native_code.compile_into(folder)
        for row, samples in _steps(folder, requests):
            rows.append(row)
            failed += [sample for sample in samples if sample.failures]
            print(f"{row['requests']:>10,} requests {row['rss_mb']:7.1f} MB", file=out, flush=True)
    finally:
        shutil.rmtree(folder)
    figures = {"steps": rows, **_drift([row["rss_mb"] for row in rows])}
    print(json_module.dumps(figures) if json else _text(figures))
    fail_if_any(
        sum(sample.failures for sample in failed),
        rows[-1]["requests"],
        failed[0].first_failure if failed else "",
    )
    return figures


def _steps(folder: Path, requests: int) -> Iterator[tuple[dict[str, Any], list[Sample]]]:
    cpus = Cpus.of_this_machine()
    step, sent = min(_STEP, requests), 0
    with (
        gateway_peers.replicas(folder, cpus) as replicas,
        gateway_peers.gateway(folder, replicas, cpus) as gateway,
    ):
        load = Load(folder, cpus)
        while sent < requests:
            samples = _step(load, gateway, step)
            sent += sum(sample.answered + sample.failures for sample in samples)
            gateway_peers.ingest(folder)
            dropped = gateway_peers.dropped_facts(gateway)
            yield {"requests": sent, "rss_mb": rss_mb(gateway), "dropped_facts": dropped}, samples


def _step(load: Load, gateway: Peer, requests: int) -> list[Sample]:
    streams = int(requests * _STREAM_SHARE)
    return [
        load.measure(gateway, MANY_KEYS, requests=requests - streams),
        load.measure(gateway, BURST, requests=max(streams, 1)),
    ]


def _drift(sizes_mb: list[float]) -> dict[str, float]:
    """How far memory went from the first reading: at the end, and at most, in percent."""
    base = sizes_mb[0]
    off = [(size / base - 1) * 100 for size in sizes_mb]
    return {"drift_percent": off[-1], "furthest_percent": max(off, key=abs)}


def _text(figures: dict[str, Any]) -> str:
    if len(figures["steps"]) == 1:
        return "one reading says nothing about drift: send more requests"
    furthest = figures["furthest_percent"]
    verdict = "flat" if abs(furthest) <= _MAX_DRIFT_PERCENT else "not flat"
    return (
        f"drift {figures['drift_percent']:+.1f}%, at most {furthest:+.1f}% "
        f"(±{_MAX_DRIFT_PERCENT:g}% may be): {verdict}"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--requests", type=int, default=_REQUESTS)
    return parser.parse_args()


if __name__ == "__main__":
    run(**vars(_options()))
