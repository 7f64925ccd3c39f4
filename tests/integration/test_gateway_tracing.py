"""Traces as a collector of OTLP gets them, and which requests are traced."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from core.contracts.request_fact import RequestFact
from core.kernel.crypto import Secret
from gateway import tracing
from gateway.access_config import TracingConfig
from gateway.http_request import Headers
from gateway.tracing import Tracer
from tests.doubles.gateway_harness import CHAT, KEY, GatewayHere, route, until
from tests.doubles.openai_server import OpenAiDouble
from tests.doubles.trace_collector import TraceCollector, attributes

CALL: dict[str, Any] = {"model": CHAT, "messages": [{"role": "user", "content": "My secret"}]}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SERVER, CLIENT = 2, 3


@pytest.fixture
async def double() -> AsyncIterator[OpenAiDouble]:
    async with OpenAiDouble() as server:
        yield server


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_BATCH_S", 0.05)


def config(collector: TraceCollector, ratio: float = 1.0) -> TracingConfig:
    return TracingConfig(collector.url, {"X-Token": Secret("s3cret")}, ratio)


async def test_spans_have_the_names_of_the_conventions_and_nothing_private(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    with TraceCollector() as collector:
        async with GatewayHere(
            tmp_path, [route(double.base_url)], tracing=config(collector)
        ) as gateway:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            stream = CALL | {"stream": True, "stream_options": {"include_usage": True}}
            answer = await gateway.http.post("/v1/chat/completions", json=stream, headers=headers)
            assert answer.status_code == 200
            await gateway.http.post("/v1/chat/completions", json=CALL | {"model": "nobody"})
            await until(lambda: len(collector.spans) == 3, 20)
            facts = await gateway.facts(2)
        request, call, refused = collector.spans
        assert (request.kind, call.kind, refused.kind) == (SERVER, CLIENT, SERVER)
        assert request.trace_id.hex() == call.trace_id.hex() == TRACE == facts[0].trace_id
        assert request.parent_span_id.hex() == PARENT
        assert call.parent_span_id == request.span_id
        assert refused.trace_id != request.trace_id
        assert not refused.parent_span_id
        # The replica is told of the call, so that its own spans hang below it.
        assert double.headers[0]["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"
        assert (call.name, facts[0].span_id) == (f"chat {CHAT}", call.span_id.hex())
        of_call = attributes(call)
        assert of_call["gen_ai.operation.name"] == "chat"
        assert of_call["gen_ai.provider.name"] == "bud"
        assert of_call["gen_ai.request.model"] == of_call["gen_ai.response.model"] == CHAT
        assert of_call["gen_ai.request.stream"] is True
        assert of_call["gen_ai.usage.input_tokens"] == facts[0].input_tokens
        assert of_call["gen_ai.usage.output_tokens"] == facts[0].output_tokens
        assert 0 < of_call["gen_ai.response.time_to_first_chunk"] < 60
        assert request.start_time_unix_nano <= call.start_time_unix_nano
        assert call.start_time_unix_nano < call.end_time_unix_nano <= request.end_time_unix_nano
        of_refused = attributes(refused)
        assert of_refused["http.response.status_code"] == 404
        assert (of_refused["error.type"], refused.status.code) == ("not_found", 0)
        assert collector.resources[0]["service.name"] == "bud-gateway"
        assert set(collector.paths) == {"/v1/traces"}
        assert {headers["x-token"] for headers in collector.headers} == {"s3cret"}
        told = str(collector.spans)
        assert "My secret" not in told
        assert KEY not in told


async def test_a_caller_that_is_not_traced_is_not_and_without_one_the_ratio_holds() -> None:
    with TraceCollector() as collector:
        never, always = (Tracer(config(collector, ratio), "gww_1") for ratio in (0.0, 1.0))

    def begun(tracer: Tracer, traceparent: str) -> str:
        fact = RequestFact(request_id="req_1", started_unix_s=1.0, endpoint="models")
        request: Any = type("Asked", (), {"method": "GET", "path": "/v1/models"})
        request.headers = Headers({b"traceparent": traceparent.encode()})
        trace = tracer.begin(request, fact)
        assert fact.trace_id == ("" if trace is None else trace.trace_id)
        return fact.trace_id

    assert begun(never, f"00-{TRACE}-{PARENT}-01") == TRACE
    assert begun(always, f"00-{TRACE}-{PARENT}-00") == ""
    assert begun(never, f"01-{TRACE}-{PARENT}-03-more") == TRACE
    for none in (
        "nonsense",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
    ):
        assert begun(never, none) == ""
        assert begun(always, none) not in ("", TRACE)


async def test_a_collector_that_fails_is_tried_again_and_what_is_dropped_is_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "_BACK_OFF_S", 0.01)
    fact = RequestFact(
        request_id="req_1", started_unix_s=1.0, endpoint="embeddings", status=200, attempts=1
    )
    with TraceCollector(503, 429, 400) as collector, caplog.at_level(logging.ERROR):
        tracer = Tracer(config(collector), "gww_1")
        tracer.start()
        request: Any = type("Asked", (), {"method": "GET", "path": "/", "headers": Headers({})})

        def trace() -> None:
            begun = tracer.begin(request, fact)
            assert begun is not None
            tracer.add(begun, fact, "bedrock")

        trace()
        # 503 and 429 may pass; 400 means that it will never be taken.
        await until(lambda: tracer.dropped == 1, 20)
        assert collector.spans == []
        trace()
        await until(lambda: len(collector.spans) == 2, 20)
        tracer.stop()
    of_call = attributes(collector.spans[1])
    assert of_call["gen_ai.provider.name"] == "aws.bedrock"
    assert of_call["gen_ai.operation.name"] == "embeddings"
    assert "status 400" in caplog.text
    assert "s3cret" not in caplog.text
    full = Tracer(config(collector), "gww_1")
    for _ in range(tracing._MAX_QUEUED + 5):
        begun = full.begin(request, fact)
        assert begun is not None
        full.add(begun, fact, "")
    assert full.dropped == 5


async def test_a_caller_without_a_valid_key_cannot_fill_the_collector(
    tmp_path: Path, double: OpenAiDouble
) -> None:
    with TraceCollector() as collector:
        async with GatewayHere(
            tmp_path, [route(double.base_url)], tracing=config(collector, ratio=0.0)
        ) as gateway:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            for authorization in ("", "Bearer bud-wrong"):
                asked = headers | {"Authorization": authorization}
                answer = await gateway.http.post("/v1/chat/completions", json=CALL, headers=asked)
                assert answer.status_code == 401
            await gateway.http.post("/v1/chat/completions", json=CALL, headers=headers)
            await until(lambda: len(collector.spans) >= 2, 20)
        assert [span.kind for span in collector.spans] == [SERVER, CLIENT], "only the last one"


async def test_a_redirect_of_the_collector_is_not_followed_with_its_token() -> None:
    with TraceCollector(302) as collector:
        tracer = Tracer(config(collector), "gww_1")
        request: Any = type("Asked", (), {"method": "GET", "path": "/", "headers": Headers({})})
        fact = RequestFact(request_id="req_1", started_unix_s=1.0, endpoint="models", status=200)
        tracer.start()
        begun = tracer.begin(request, fact)
        assert begun is not None
        tracer.add(begun, fact, "")
        await until(lambda: tracer.dropped == 1, 20)
        tracer.stop()
        assert collector.paths == []
