"""The C programs of `bud bench gateway`: they compile, and nothing but a whole 200 counts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.kernel.errors import BudError, NotFound
from tests.benchmarks import gateway_peers, gateway_report, native_code
from tests.benchmarks.gateway_load import CASES, EXTRA_CASES, PLAIN, Case, Load, Sample
from tests.benchmarks.gateway_peers import Cpus, Peer, Replicas
from tests.doubles.gateway_harness import free_port

BODY: dict[str, Any] = {"model": "mock-model", "max_tokens": 4}
STREAM = BODY | {"stream": True, "seed": 100}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("there is no cc here")
    folder = tmp_path_factory.mktemp("native")
    native_code.compile_into(folder, "-O0", "-Wall", "-Wextra", "-Werror")
    return folder


@pytest.fixture(scope="module")
def replicas(programs: Path) -> Iterator[Replicas]:
    with gateway_peers.replicas(programs, Cpus.of_this_machine()) as peer:
        yield peer


@pytest.fixture(scope="module")
def load(programs: Path) -> Load:
    return Load(programs, Cpus.of_this_machine())


@pytest.mark.parametrize(
    ("body", "tokens", "failure"),
    [
        (BODY, None, ""),
        (STREAM, 4, ""),
        (STREAM | {"stream_options": {"include_usage": True}}, 5, ""),
        (BODY | {"user": "status-503"}, None, "direct: HTTP/1.1 503 Asked"),
        (STREAM | {"user": "break-2"}, 4, "direct: closed within an answer"),
        (STREAM | {"max_tokens": 3}, 4, "direct: a stream of 4 events with [DONE], not 5"),
        (BODY, 4, "direct: a stream of 0 events without [DONE], not 5"),
    ],
)
def test_only_whole_answers_count(
    load: Load, replicas: Replicas, body: dict[str, Any], tokens: int | None, failure: str
) -> None:
    sample = load.measure(replicas, Case("test", "", 3, body=body, tokens=tokens), requests=9)
    assert sample.first_failure == failure
    assert (sample.answered, sample.failures) == ((0, 9) if failure else (9, 0))
    if not failure:
        assert sample.units == (9 if tokens is None else 9 * (tokens + 1))


def test_in_an_open_loop_waiting_for_a_connection_counts(load: Load, replicas: Replicas) -> None:
    # Each answer takes 30 ms, on one connection, and one is due every 10 ms: the queue grows.
    body = STREAM | {"max_tokens": 4, "seed": 10_000}
    case = Case("queue", "", 1, body=body, tokens=4, rate=100.0)
    sample = load.measure(replicas, case, requests=6)
    assert sample.answered == 6
    assert sample.p99_ms > 30 + 5 * 15
    assert sample.elapsed_s > 6 * 0.03


def test_a_load_that_cannot_be_run_is_no_measurement(load: Load) -> None:
    gone = Peer("gone", free_port(), os.getpid())
    with pytest.raises(BudError, match="cannot connect"):
        load.measure(gone, Case("gone", "", 1), requests=1)


def test_without_a_compiler_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(NotFound, match="apt-get install gcc"):
        native_code.compile_into(tmp_path)


def test_ratios_and_added_latency_are_of_each_round_and_a_missing_peer_is_said() -> None:
    def rounds(*cpu_us: float, **latency: float) -> list[Sample]:
        known = {"p50_ms": 1.0, "p99_ms": 1.0} | latency
        return [Sample(10, 0, "", 10, each * 10, 1.0, **known) for each in cpu_us]

    by_peer = {
        "gateway": rounds(80, 200, 90, p50_ms=1.25),
        "nginx": rounds(40, 100, 30),
        "direct": rounds(1, 1, 1),
    }
    samples = {case.name: by_peer for case in (*CASES, PLAIN, *EXTRA_CASES)}
    figures = gateway_report.summary(samples) | {
        "memory_mb": {"gateway": 60.0, "nginx": 7.0}, "memory_growth_mb": 0.5, "requests": 30,
        "failures": 0, "dropped_facts": 0, "skipped": ["vllm-router (how to get it)"],
        "rounds": 3, "seconds": 2.0, "load_average": 1.0, "pinned": True,
        "same_work_ms": {"median": 20.0, "min": 20.0, "max": 21.0},
    }  # fmt: skip
    assert figures["ratios"]["json_64"]["nginx"] == {"median": 2.0, "min": 2.0, "max": 3.0}
    assert figures["added_latency_ms"]["gateway"]["p50"]["median"] == 0.25
    reached = {words: (figure, most) for words, figure, most in gateway_report.bounds(figures)}
    assert reached["CPU a request, 64 connections, by nginx's"] == (2.0, 2.5)
    assert reached["CPU a request, 64 connections, by vllm-router's"] == (None, 1.0)
    printed = gateway_report.text(figures)
    assert "1 peers skipped\n  skipped: vllm-router (how to get it)" in printed
    assert "90.0 (80.0–200.0)" in printed
