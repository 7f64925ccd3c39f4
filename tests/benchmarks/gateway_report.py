"""Medians, spreads and ratios of `bud bench gateway`, and the table they are printed in."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable
from typing import Any

from tests.benchmarks.gateway_load import (
    CASES,
    EXTRA_CASES,
    JSON_64,
    MANY_KEYS,
    OPEN_LOOP,
    PLAIN,
    SSE_64,
    TRANSLATED,
    UNLIMITED_64,
    Sample,
)

Samples = dict[str, dict[str, list[Sample]]]
Spread = dict[str, float]

# What is to be reached, on a quiet machine: figure, words, bound. Source: issue 5, section Speed.
_BOUNDS = (
    ("nginx_json", "CPU a request, 64 connections, by nginx's", 2.5),
    ("router_json", "CPU a request, 64 connections, by vllm-router's", 1.0),
    ("nginx_sse", "CPU an event, 64 streams, by nginx's", 1.3),
    ("p50_ms", "added latency at 200 requests/s, p50 ms", 0.3),
    ("p99_ms", "added latency at 200 requests/s, p99 ms", 2.0),
    ("rss_mb", "memory of a worker, MB", 80.0),
)
# What a case costs more than another: name, case, the one it is compared with.
_ADDED = (
    ("ten limits and budgets", JSON_64.name, UNLIMITED_64.name),
    (MANY_KEYS.label.partition(", ")[2], MANY_KEYS.name, JSON_64.name),
    ("translation from Anthropic's dialect", TRANSLATED.name, JSON_64.name),
    *(
        (f"{each.label.partition(', ')[2]}, no limits", each.name, PLAIN.name)
        for each in EXTRA_CASES
    ),
)


def summary(samples: Samples) -> dict[str, Any]:
    """Figures of every case: CPU µs by peer, the gateway's ratios, added latency and added CPU.

    Args:
        samples: By case and peer, in the order of the rounds.
    """
    return {
        "cpu_us": {
            case: {peer: spread(_costs(of)) for peer, of in by_peer.items() if peer != "direct"}
            for case, by_peer in samples.items()
        },
        "ratios": {
            case: {
                peer: spread(_ratios(by_peer["gateway"], of))
                for peer, of in by_peer.items()
                if peer not in ("gateway", "direct")
            }
            for case, by_peer in samples.items()
        },
        "added_latency_ms": _added_latency(samples[OPEN_LOOP.name]),
        "added_cpu_us": {
            name: spread(
                more - less
                for more, less in zip(
                    _costs(samples[case]["gateway"]), _costs(samples[base]["gateway"]), strict=True
                )
            )
            for name, case, base in _ADDED
        },
    }


def spread(values: Iterable[float]) -> Spread:
    """Median, least and most."""
    known = sorted(values)
    return {"median": statistics.median(known), "min": known[0], "max": known[-1]}


def _costs(samples: list[Sample]) -> list[float]:
    return [sample.cpu_us_per_unit for sample in samples]


def _ratios(mine: list[Sample], theirs: list[Sample]) -> list[float]:
    """Of each round by itself: what slows the machine for a while slows both."""
    return [a / b for a, b in zip(_costs(mine), _costs(theirs), strict=True)]


def _added_latency(by_peer: dict[str, list[Sample]]) -> dict[str, dict[str, Spread]]:
    """Quantiles through a peer less those of the replicas themselves in the same round."""
    direct = by_peer["direct"]
    return {
        peer: {
            "p50": spread(a.p50_ms - b.p50_ms for a, b in zip(of, direct, strict=True)),
            "p99": spread(a.p99_ms - b.p99_ms for a, b in zip(of, direct, strict=True)),
        }
        for peer, of in by_peer.items()
        if peer != "direct"
    }


def bounds(figures: dict[str, Any]) -> list[tuple[str, float | None, float]]:
    """What is to be reached: words, figure (None: nothing to compare with), the most it may be."""
    latency = figures["added_latency_ms"]["gateway"]
    found = {
        "nginx_json": _median(figures["ratios"][JSON_64.name], "nginx"),
        "router_json": _median(figures["ratios"][JSON_64.name], "vllm-router"),
        "nginx_sse": _median(figures["ratios"][SSE_64.name], "nginx"),
        "p50_ms": latency["p50"]["median"],
        "p99_ms": latency["p99"]["median"],
        "rss_mb": figures["memory_mb"]["gateway"],
    }
    return [(words, found[name], most) for name, words, most in _BOUNDS]


def _median(by_peer: dict[str, Spread], peer: str) -> float | None:
    return by_peer[peer]["median"] if peer in by_peer else None


# -- the table


def text(figures: dict[str, Any]) -> str:
    """The figures for a terminal."""
    peers = list(figures["memory_mb"])
    lines = [
        f"{'':34}" + "".join(f"{peer:>24}" for peer in peers)
        + "".join(f"{'by ' + peer + chr(39) + 's':>24}" for peer in peers[1:]),
        "CPU µs a request",
        *(
            _case_line(case.name, case.label, figures)
            for case in (*CASES, PLAIN, *EXTRA_CASES)
            if not case.streams
        ),
        "CPU µs an event",
        *(_case_line(case.name, case.label, figures) for case in CASES if case.streams),
        f"added latency, ms, {OPEN_LOOP.label.partition(', ')[2]}",
        *(_latency_line(quantile, figures) for quantile in ("p50", "p99")),
        "CPU µs a request of the gateway that come with",
        *(f"  {name:36}{_cell(of, 1)}" for name, of in figures["added_cpu_us"].items()),
        *_memory_lines(figures),
        "to reach, on a quiet machine",
        *(_bound_line(*bound) for bound in bounds(figures)),
        *_closing_lines(figures),
    ]  # fmt: skip
    return "\n".join(line.rstrip() for line in lines)


def _case_line(name: str, label: str, figures: dict[str, Any]) -> str:
    costs = figures["cpu_us"][name]
    ratios = figures["ratios"][name]
    peers = list(figures["memory_mb"])
    return (
        f"  {label:32}"
        + "".join(_cell(costs.get(peer), 1) for peer in peers)
        + "".join(_cell(ratios.get(peer), 2) for peer in peers[1:])
    )


def _latency_line(quantile: str, figures: dict[str, Any]) -> str:
    by_peer = figures["added_latency_ms"]
    cells = (_cell(by_peer[peer][quantile], 2) for peer in figures["memory_mb"])
    return f"  {quantile:32}" + "".join(cells)


def _cell(value: Spread | None, digits: int) -> str:
    if value is None:
        return f"{'':24}"
    median, least, most = (f"{value[name]:.{digits}f}" for name in ("median", "min", "max"))
    return f" {median} ({least}–{most})".rjust(24)


def _memory_lines(figures: dict[str, Any]) -> list[str]:
    sizes = "".join(f"{size:>24.1f}" for size in figures["memory_mb"].values())
    growth = figures["memory_growth_mb"]
    return [f"{'memory of a worker, MB':34}{sizes}", f"  gateway since warm-up {growth:+.1f}"]


def _bound_line(words: str, figure: float | None, most: float) -> str:
    if figure is None:
        return f"  {words:50}at most {most:<6g} not compared"
    return f"  {words:50}at most {most:<6g} {figure:6.2f} {'met' if figure <= most else 'missed'}"


def _closing_lines(figures: dict[str, Any]) -> list[str]:
    skipped = figures["skipped"]
    gateway = "alone on its CPU" if figures["pinned"] else "sharing its CPU with the callers"
    return [
        f"{figures['failures']} of {figures['requests']:,} requests failed; "
        f"{figures['dropped_facts']} facts dropped; {len(skipped)} peers skipped"
        + "".join(f"\n  skipped: {each}" for each in skipped),
        f"medians (least–most) of {figures['rounds']} rounds of {figures['seconds']:g} s, gateway "
        f"{gateway}, Python {platform.python_version()}, load average "
        f"{figures['load_average']:.1f}",
        "CPU ms of the same work, which a steady machine does not vary: "
        f"{_cell(figures['same_work_ms'], 1).strip()}",
    ]
