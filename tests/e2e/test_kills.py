"""Kill -9 of each part under a running load of streams: what must survive, survives.

Volume comes from a double of the model server; one stream at a time runs on the real model.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.e2e.conftest import Stack, answers, wait_for
from tests.e2e.load import Load
from tests.machine import slowness

DOUBLE, REAL = "double", "real-smol"
STREAMS = {DOUBLE: 12, REAL: 1}


def _deploy(stack: Stack, name: str, replicas: int) -> None:
    stack.cli(
        *("deploy", "SmolLM2-135M-Instruct", "--name", name, "--replicas", str(replicas)),
        *("--context", "512", "--slots", "4", "--threads", "1", "--wait"),
    )


@pytest.fixture(scope="module")
def key(stack: Stack) -> str:
    _deploy(stack, DOUBLE, 2)
    _deploy(stack, REAL, 1)
    made = stack.cli("keys", "create", "kill-tests")
    assert isinstance(made, dict)
    return str(made["secret"])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    environment = {"BUD_MODEL_SERVER_MODULE": "tests.doubles.model_server"}
    made = Stack(tmp_path_factory.mktemp("kills") / "bud", environment)
    made.start()
    yield made
    made.destroy()


def _rows(stack: Stack, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(f"file:{stack.data_dir / 'bud.db'}?mode=ro", uri=True)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def _server_pids(stack: Stack) -> list[int]:
    query = "SELECT pid FROM replicas WHERE state = 'ready' ORDER BY pid"
    return [int(str(row[0])) for row in _rows(stack, query)]


def _all_ready(stack: Stack) -> bool:
    return [row[0] for row in _rows(stack, "SELECT state FROM deployments")] == ["ready"] * 2


def _steady(load: Load) -> None:
    """Wait until every caller has completed a stream, on both models."""
    since_s = time.monotonic()
    for model in STREAMS:
        wait_for(
            f"streams of {model} complete",
            lambda model=model: [one for one in load.completed(since_s) if one.model == model],
        )


def test_a_killed_model_server_fails_only_its_own_streams(stack: Stack, key: str) -> None:
    victims = [
        int(str(row[0]))
        for row in _rows(
            stack,
            "SELECT r.pid FROM replicas r JOIN deployments d ON d.id = r.deployment_id "
            "WHERE r.position = 0",
        )
    ]
    with Load(stack.gateway_url, key, STREAMS) as load:
        _steady(load)
        killed_s = time.monotonic()
        stack.kill(*victims)
        took_s = wait_for(
            "new servers answer",
            lambda: _all_ready(stack) and not set(victims) & set(_server_pids(stack)),
        )
        _steady(load)
    assert took_s < 15 * slowness()
    for one in load.failed():
        in_flight = one.started_s <= killed_s <= one.ended_s
        if one.model == DOUBLE:
            # Its other replica answered everybody else.
            assert one.kind == "error_event", one
            assert in_flight, one
            assert one.server in {f"pid-{pid}" for pid in victims}, one
        else:
            assert one.kind in ("error_event", "refused"), one
    assert any(one.kind == "error_event" for one in load.failed() if one.model == DOUBLE)


def test_a_killed_app_does_not_stop_the_gateway_and_adopts_its_servers(
    stack: Stack, key: str
) -> None:
    before = _server_pids(stack)
    (app,) = stack.pids("app")
    with Load(stack.gateway_url, key, STREAMS) as load:
        _steady(load)
        stack.kill(app)
        wait_for("another app", lambda: stack.pids("app") not in ([], [app]), 10 * slowness())
        wait_for("the app answers", stack._answers, 180)
        time.sleep(2)
        _steady(load)
    assert load.failed() == []
    assert _server_pids(stack) == before
    assert stack.pids("server") == before


def test_a_killed_gateway_is_back_within_two_seconds_and_no_fact_counts_twice(
    stack: Stack, key: str
) -> None:
    (gateway,) = stack.pids("gateway")
    with Load(stack.gateway_url, key, STREAMS) as load:
        _steady(load)
        time.sleep(1)
        killed_s, killed_unix_s = time.monotonic(), time.time()
        stack.kill(gateway)
        wait_for(
            "it answers again", lambda: answers(f"{stack.gateway_url}/health"), 30 * slowness()
        )
        back_s = time.monotonic()
        new = psutil.Process(stack.pids("gateway")[0])
        used_cpu_s = sum(new.cpu_times()[:2])
        _steady(load)
    # Wall time less what other work on this machine took: the wait for the restart, and then
    # the CPU time of the new process until it answered.
    assert new.create_time() - killed_unix_s + used_cpu_s < 2.0 * slowness()
    assert {one.kind for one in load.failed()} <= {"cut", "unreachable"}
    assert all(one.started_s <= back_s for one in load.failed())
    # What the gateway held for less than its flush interval is the only thing that may be gone.
    durable = {one.request_id for one in load.completed() if abs(one.ended_s - killed_s) > 0.5}
    wait_for("every segment is ingested", lambda: not list(stack.data_dir.glob("facts/*.ndjson")))
    time.sleep(1.5)
    rows = stack.cli("metrics", "requests", "--limit", "100000")
    assert isinstance(rows, list)
    stored = [str(row["request_id"]) for row in rows]
    assert len(stored) == len(set(stored))
    assert durable <= set(stored)


def test_after_a_killed_supervisor_a_new_one_adopts_everything(stack: Stack, key: str) -> None:
    before = _server_pids(stack)
    assert stack.process is not None
    with Load(stack.gateway_url, key, STREAMS) as load:
        _steady(load)
        stack.kill(stack.process.pid)
        stack.process.wait()
        wait_for(
            "app and gateway end", lambda: not stack.pids("app") and not stack.pids("gateway"), 15
        )
        stack.start()
        wait_for("all ready", lambda: _all_ready(stack))
        _steady(load)
    assert _server_pids(stack) == before
    assert stack.pids("server") == before
    assert (len(stack.pids("app")), len(stack.pids("gateway"))) == (1, 1)


def test_a_job_goes_on_at_its_step_after_app_and_supervisor_are_killed(
    stack: Stack, key: str
) -> None:
    model = "SmolLM2-135M-Instruct"
    made = stack.cli("deploy", model, "--name", "midway", "--context", "512")
    assert isinstance(made, dict)
    job = "SELECT name, state, runs FROM job_steps WHERE job_id = (SELECT job_id FROM deployments "
    job += "WHERE name = 'midway') ORDER BY position"

    def steps() -> dict[str, tuple[str, int]]:
        return {str(row[0]): (str(row[1]), int(str(row[2]))) for row in _rows(stack, job)}

    with Load(stack.gateway_url, key, STREAMS) as load:
        _steady(load)
        wait_for("a later step", lambda: steps()["preflight"][0] == "succeeded")
        assert stack.process is not None
        stack.kill(stack.process.pid, *stack.pids("app"))
        stack.process.wait()
        stack.start()
        wait_for("the job's end", lambda: steps()["publish"][0] == "succeeded", 60)
        _steady(load)
    assert steps()["preflight"] == ("succeeded", 1), "a finished step is not done again"
    stack.stop()
