"""Bad input through the gateway's process to the real model: each a clear error, nothing lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from core.accounts import api_keys
from core.contracts import route_table
from core.deployments import server_records
from core.deployments import services as deployments
from core.deployments.models import Deployment
from core.deployments.reconciler import Reconciler
from core.deployments.schemas import DeploymentRequest
from core.kernel import database
from core.kernel.actor import Actor
from core.metrics import services as metrics
from core.metrics.schemas import Window
from core.registry import services as registry
from core.routing import services as routing
from tests.doubles.gateway_harness import GatewayProcess, facts_on_disk

PROJECT, MODEL, CONTEXT_TOKENS = "prj_default", "smol", 256
HELLO = [{"role": "user", "content": "Say hello."}]
TOO_LONG = [{"role": "user", "content": "word " * 600}]


@dataclass
class Served:
    """The real model behind a gateway of its own process, and a client with a key for it."""

    gateway: GatewayProcess
    http: httpx.Client
    openai: openai.OpenAI

    def chat(self, **fields: Any) -> httpx.Response:
        body = {"model": MODEL, "messages": HELLO, "max_tokens": 2} | fields
        return self.http.post("/v1/chat/completions", json=body)

    def error_classes(self) -> list[str]:
        """Of the sealed facts, in the order in which the requests began."""
        facts = sorted(facts_on_disk(self.gateway.data_dir), key=lambda one: one.started_unix_s)
        return [fact.error_class for fact in facts]


def _until(what: str, check: Callable[[], object], timeout_s: float = 120) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not check():
        assert time.monotonic() < deadline_s, f"still not: {what}"
        time.sleep(0.05)


@pytest.fixture
def served(data_dir: Path, admin: Actor) -> Iterator[Served]:
    routing.subscribe()
    routing.publish()
    request = DeploymentRequest(
        project_id=PROJECT,
        name=MODEL,
        model_id=registry.add_starter(admin).id,
        context_tokens=CONTEXT_TOKENS,
        slots=1,
        threads=1,
    )
    made = deployments.deploy(admin, request)
    with database.transaction() as tx:
        row = tx.get(Deployment, made.id)
        assert row is not None
        row.desired_state = "running"  # as its job leaves it after the step `start`
    secret = api_keys.create_key(admin, PROJECT, "test").secret.reveal()
    reconciler = Reconciler()
    reconciler.start()
    _until("ready", lambda: deployments.get_deployment(admin, made.id).state == "ready")
    _until(
        "routed", lambda: route_table.decode(routing.table_path().read_bytes()).routes[0].replicas
    )
    with GatewayProcess(data_dir) as gateway:
        headers = {"Authorization": f"Bearer {secret}"}
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=secret, max_retries=0)
        with httpx.Client(base_url=gateway.url, headers=headers, timeout=60) as http:
            yield Served(gateway, http, client)
        client.close()
    reconciler.stop()
    server_records.stop_all(data_dir)


def _error(answer: httpx.Response) -> tuple[int, str | None, str]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["code"], error["message"]


def test_each_is_a_clear_error_and_the_model_answers_on(served: Served, admin: Actor) -> None:
    http = served.http
    status, _, says = _error(http.post("/v1/chat/completions", content=b'{"model": "smol", '))
    assert (status, "JSON" in says) == (400, True)
    status, code, says = _error(served.chat(model="smoll"))
    assert (status, code) == (404, "model_not_found")
    assert "smoll" in says
    wrong = {"Authorization": "Bearer bud-wrong"}
    refused = http.post("/v1/chat/completions", json={"model": MODEL}, headers=wrong)
    status, code, says = _error(refused)
    assert (status, code, "bud-wrong" in says) == (401, "invalid_api_key", False)
    status, code, says = _error(http.post("/v1/chat/completions", content=b"x" * 50_000_000))
    assert (status, code) == (413, "request_too_large")
    assert "32 MB" in says

    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            served.openai.chat.completions.create(model=MODEL, messages=TOO_LONG, stream=stream)
        assert caught.value.code == "context_length_exceeded"
        assert f"maximum context length is {CONTEXT_TOKENS} tokens" in str(caught.value)

    answer = served.chat()
    assert answer.status_code == 200
    assert answer.json()["usage"]["completion_tokens"] == 2

    expected = ["invalid_request", "not_found", "authentication", "too_large"]
    expected += ["context_length", "context_length", ""]
    _until("all facts are sealed", lambda: len(served.error_classes()) == len(expected), 10)
    assert served.error_classes() == expected
    shown = {row.error_class for row in metrics.errors(admin, PROJECT, Window.preset("1h"))}
    assert {"not_found", "context_length"} <= shown


def test_a_context_that_fills_up_while_answering_ends_the_answer(served: Served) -> None:
    almost = [{"role": "user", "content": "word " * 180}]
    answer = served.chat(messages=almost, max_tokens=1000, temperature=0, ignore_eos=True)
    assert answer.status_code == 200
    document = answer.json()
    assert document["choices"][0]["finish_reason"] == "length"
    assert document["usage"]["total_tokens"] <= CONTEXT_TOKENS
    assert served.chat().status_code == 200
